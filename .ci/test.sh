#!/usr/bin/env bash
# Every test: the core on older Pythons beside nodes and launch files on the other ROS 2 tree, then
# the whole suite. The whole suite comes last, so that its summary closes the output.
# JOBS processes (default: one a CPU) share the longer runs. Arguments are passed to the last run.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
failures=$(mktemp)  # titles of stages that failed, one a line
log=$(mktemp)
trap 'rm -f "$failures" "$log"' EXIT
workers=(-n "${JOBS:-$(nproc)}" --dist worksteal)  # of pytest-xdist

# Several processes share the CPUs: threads of each would wait for those of the others.
export OMP_NUM_THREADS=1
# Nodes and commands are started by the hundred, and every worker reads all tests.
unset PYTHONDONTWRITEBYTECODE

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
  local pip=(.venv/bin/python -m pip --python "$1/bin/python" install --quiet --no-compile
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
      .venv/bin/python -m pip --python "$venv/bin/python" install --quiet --no-compile --no-deps \
        --disable-pip-version-check --only-binary :all: -r .ci/requirements-nuscenes.txt &&
      echo "$inputs" >"$venv/inputs"
    return
  done
}

# The environment for the core's tests on another Python, where there is one: add_python VERSION
add_python() {
  local python venv=$root/.venv-$1 inputs
  python=$(find_python "$1")
  [ -n "$python" ] || return 0
  inputs=$(cat "$root"/.ci/requirements-{core,training}.txt <(echo "$root $python") | sha256sum)
  [ "$(cat "$venv/inputs" 2>/dev/null)" != "$inputs" ] || return 0
  rm -rf "$venv"
  "$python" -m venv --without-pip "$venv" &&
    .venv/bin/python -m pip --python "$venv/bin/python" install --quiet --no-compile \
      --disable-pip-version-check --only-binary :all: -r .ci/requirements-core.txt &&
    add_torch "$venv" &&
    echo "$inputs" >"$venv/inputs"
}

# Run a stage under its title, and note it down if it fails: stage TITLE COMMAND...
stage() {
  heading "$1"
  "${@:2}" || echo "$1" >>"$failures"
}

# The core's tests on another Python: core VERSION MARKS TEST...
core() {
  env -u PYTHONPATH -u AMENT_PREFIX_PATH -u LD_LIBRARY_PATH \
    ".venv-$1/bin/python" -m pytest -q --no-header -p no:cacheprovider \
    --ignore=test/nodes --ignore=test/launch -m "$2" "${@:3}"
}

nodes_on_humble() {
  . .ci/ros.bash && python -m pytest -q --no-header -p no:cacheprovider -m ros test
}

humble=
if grep -q '^ros=wheel$' .venv/environment && [ "${ROS_DISTRO:-}" != humble ]; then humble=yes; fi

# All that the stages need, before any test runs: some read the tree that Humble's is built from.
add_browser &
{ add_nuscenes || echo 'nuscenes-devkit cannot be installed: the check against it is skipped' >&2; } &
for version in 3.10 3.11; do
  [ -n "$(find_python $version)" ] || echo "Python $version not found: nothing is tested on it"
  add_python $version || echo "the environment of Python $version" >>"$failures" &
done
[ -z "$humble" ] || ROS_DISTRO=humble .ci/build.sh || echo 'the build on ROS 2 Humble' >>"$failures"
wait
. .ci/ros.bash || exit

# The core on 3.10, which is that of Ubuntu 22.04 and so of JetPack 6, but for what is slow: that runs
# with everything else at the end. Beside it, one after the other: on 3.11 what needs torch, and that
# everything can be imported; and Humble, whose tests wait more than they compute.
anywhere='not ros and not open3d'
{
  [ -z "$(find_python 3.11)" ] || stage 'the core on Python 3.11' core 3.11 "$anywhere" \
    test/training test/deploy/test_export.py test/package/test_imports.py
  [ -z "$humble" ] || ROS_DISTRO=humble stage 'nodes and launch files on ROS 2 Humble' nodes_on_humble
} >"$log" 2>&1 &
[ -z "$(find_python 3.10)" ] || stage 'the core on Python 3.10' core 3.10 "$anywhere and not slow" \
  test "${workers[@]}"
wait
cat "$log"

heading "everything on ROS 2 ${ROS_DISTRO^}, Python $(python -c 'import platform; print(platform.python_version())')"
sed 's/^/failed before: /' "$failures"
python -m pytest "${workers[@]}" --cov --cov-report=term --cov-fail-under="${COVERAGE_MIN:-0}" "$@" ||
  echo "ROS 2 ${ROS_DISTRO^}" >>"$failures"

[ ! -s "$failures" ]
