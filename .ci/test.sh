#!/usr/bin/env bash
# Every test: the core on older Pythons, nodes and launch files on the other ROS 2 tree, then the
# whole suite. The whole suite comes last, so that its summary closes the output.
# Arguments are passed to the last run.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
failed=()

heading() { printf '\n######## %s\n' "$*"; }

# A Python of that version that runs, or nothing.
find_python() {
  local candidate
  for candidate in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python; do
    if "$candidate" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' \
      "$1" 2>/dev/null; then
      "$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))'
      return
    fi
  done
}

# Torch, for the tests of training/, where pip is set up with a folder that holds a wheel of it:
# from an index it would come with gigabytes of CUDA. Those tests are skipped elsewhere.
add_torch() {
  local pip=(.venv/bin/python -m pip --python "$1/bin/python" install --quiet
    --disable-pip-version-check --only-binary :all:)
  "${pip[@]}" --no-index --no-deps "$(grep '^torch==' .ci/requirements-training.txt)" 2>/dev/null ||
    return 0
  "${pip[@]}" -r .ci/requirements-training.txt
}

# Chromium, in which tests open the reports; they are skipped where it cannot be had.
add_browser() {
  local name
  for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && return
  done
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
    --no-install-recommends chromium; } >/dev/null 2>&1 || echo 'chromium cannot be installed' >&2
}

# nuScenes' development kit, against which the evaluation is tested, with the first Python it runs on.
add_nuscenes() {
  local version python venv=$root/.venv-nuscenes inputs
  inputs=$(cat .ci/requirements-nuscenes.txt <(echo "$root") | sha256sum)
  [ "$(cat "$venv/inputs" 2>/dev/null)" != "$inputs" ] || return 0
  rm -rf "$venv"
  for version in 3.11 3.10; do
    python=$(find_python "$version")
    [ -n "$python" ] || continue
    "$python" -m venv --without-pip "$venv" &&
      .venv/bin/python -m pip --python "$venv/bin/python" install --quiet --no-deps \
        --disable-pip-version-check --only-binary :all: -r .ci/requirements-nuscenes.txt &&
      echo "$inputs" >"$venv/inputs"
    return
  done
}

# Tests on another Python, in an environment of their own: test_core VERSION PYTHON TEST...
test_core() {
  local version=$1 python=$2 venv=$root/.venv-$1 inputs
  shift 2
  inputs=$(cat "$root"/.ci/requirements-{core,training}.txt <(echo "$root $python") | sha256sum)
  if [ "$(cat "$venv/inputs" 2>/dev/null)" != "$inputs" ]; then
    rm -rf "$venv"
    "$python" -m venv --without-pip "$venv" &&
      .venv/bin/python -m pip --python "$venv/bin/python" install --quiet \
        --disable-pip-version-check --only-binary :all: -r .ci/requirements-core.txt &&
      add_torch "$venv" &&
      echo "$inputs" >"$venv/inputs" || return
  fi
  env -u PYTHONPATH -u AMENT_PREFIX_PATH -u LD_LIBRARY_PATH \
    "$venv/bin/python" -m pytest -q --no-header -p no:cacheprovider \
    --ignore=test/nodes --ignore=test/launch -m 'not ros and not open3d' "$@"
}

add_browser
add_nuscenes || echo 'nuscenes-devkit cannot be installed: the check against it is skipped' >&2

# The whole core on 3.10, which is that of Ubuntu 22.04 and so of JetPack 6; on 3.11 what needs torch,
# and that everything can be imported. Both at once: they are one process each.
tests_310=(test)
tests_311=(test/training test/deploy/test_export.py test/package/test_imports.py)
versions=()
for version in 3.10 3.11; do
  python=$(find_python "$version")
  if [ -z "$python" ]; then
    echo "Python $version not found: nothing is tested on it"
    continue
  fi
  log=$(mktemp)
  declare -n tests=tests_${version/./}
  test_core "$version" "$python" "${tests[@]}" >"$log" 2>&1 &
  versions+=("$version $! $log")
done
for entry in ${versions[@]+"${versions[@]}"}; do
  read -r version pid log <<<"$entry"
  wait "$pid" || failed+=("the core on Python $version")
  heading "the core on Python $version"
  cat "$log"
  rm -f "$log"
done

. .ci/ros.bash || exit
if grep -q '^ros=wheel$' .venv/environment && [ "$ROS_DISTRO" != humble ]; then
  heading 'nodes and launch files on ROS 2 Humble'
  (
    export ROS_DISTRO=humble
    .ci/build.sh && . .ci/ros.bash &&
      python -m pytest -q --no-header -p no:cacheprovider -m ros test
  ) || failed+=('ROS 2 Humble')
fi

heading "everything on ROS 2 ${ROS_DISTRO^}, Python $(python -c 'import platform; print(platform.python_version())')"
if [ ${#failed[@]} -gt 0 ]; then
  printf 'failed before: %s\n' "${failed[@]}"
fi
python -m pytest --cov --cov-report=term --cov-fail-under="${COVERAGE_MIN:-0}" "$@" ||
  failed+=("ROS 2 ${ROS_DISTRO^}")

[ ${#failed[@]} -eq 0 ]
