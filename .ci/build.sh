#!/usr/bin/env bash
# Build the package with colcon into install/$ROS_DISTRO, if anything that is installed has changed.
set -eo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
AIRSIDE_UNDERLAY_ONLY=1 . .ci/ros.bash

exec 9<"$root"
flock 9  # one build at a time

record=install/$ROS_DISTRO/.inputs
inputs=$(
  for source in .venv/environment setup.py setup.cfg package.xml resource airside_perception \
    config launch models; do
    if [ -e "$source" ]; then find "$source" -type f ! -name '*.pyc' -exec sha256sum {} +; fi
  done | sort -k 2 | sha256sum
)
if [ "$(cat "$record" 2>/dev/null)" = "$inputs" ]; then exit 0; fi

# setuptools would install modules that have been deleted since from its own build folder.
rm -rf "build/$ROS_DISTRO" "install/$ROS_DISTRO"
if grep -q '^ros=wheel$' .venv/environment; then
  unset AMENT_PREFIX_PATH  # the wheel's tree has no set-up scripts that the build could refer to
fi
python -c 'import sys; from colcon_core.command import main; sys.exit(main())' \
  --log-base "log/$ROS_DISTRO" build --base-paths . --packages-select airside_perception \
  --build-base "build/$ROS_DISTRO" --install-base "install/$ROS_DISTRO" >&2
echo "$inputs" >"$record"
