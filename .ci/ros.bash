# Source this file in bash (. .venv/ros.bash) to get ROS 2 and this package, as after
# `. /opt/ros/jazzy/setup.bash` and `. install/setup.bash` on a vehicle.
# ROS_DISTRO=humble or jazzy chooses the tree of the ROS 2 wheel; all DDS traffic stays on loopback.

if [ -z "${BASH_VERSION:-}" ]; then
  echo 'ros.bash works in bash only' >&2
  return 1
fi
_airside_root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
_airside_ros=$(sed -n 's/^ros=//p' "$_airside_root/.venv/environment" 2>/dev/null)

# Put a directory in front of a search path.
_airside_prepend() {
  export "$1=$2${!1:+:${!1}}"
}

# Take out of a search path what an earlier sourcing of this file put there.
_airside_strip() {
  local entry kept=
  while IFS= read -r -d : entry; do
    case $entry in
      '' | "$_airside_root"/*) ;;
      *) kept=$kept${kept:+:}$entry ;;
    esac
  done <<<"${!1:-}:"
  if [ -n "$kept" ]; then export "$1=$kept"; else unset "$1"; fi
}

# colcon's and ROS's own scripts read variables that may not be set.
_airside_source() {
  local options=$-
  set +eu
  # shellcheck disable=SC1090  # made by colcon, or part of the ROS 2 that was found
  . "$1"
  case $options in *e*) set -e ;; esac
  case $options in *u*) set -u ;; esac
}

_airside_setup() {
  local name tree rmw
  if [ -z "$_airside_ros" ]; then
    echo "there is no environment in $_airside_root/.venv yet: run 'make setup' there first" >&2
    return 1
  fi
  for name in AMENT_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PATH PYTHONPATH; do
    _airside_strip "$name"
  done
  if [ "$_airside_ros" = wheel ]; then
    export ROS_DISTRO=${ROS_DISTRO:-jazzy} ROS_VERSION=2 ROS_PYTHON_VERSION=3
    tree=$(echo "$_airside_root"/.venv/lib/python3.*/site-packages/isaacsim/exts/isaacsim.ros2.core/"$ROS_DISTRO")
    if [ ! -d "$tree" ]; then
      echo "ROS_DISTRO=$ROS_DISTRO: the ROS 2 wheel has humble and jazzy only" >&2
      return 1
    fi
    _airside_prepend AMENT_PREFIX_PATH "$tree"
    _airside_prepend LD_LIBRARY_PATH "$tree/lib"
    _airside_prepend PYTHONPATH "$tree/rclpy"
    # FastDDS needs seconds to find a peer in another process, Cyclone DDS a tenth of one.
    rmw=$tree/lib/librmw_cyclonedds_cpp.so
  else
    if [ -z "${AMENT_PREFIX_PATH:-}" ]; then _airside_source "$_airside_ros/setup.bash"; fi
    rmw=$_airside_ros/lib/librmw_cyclonedds_cpp.so
  fi
  if [ -z "${RMW_IMPLEMENTATION:-}" ] && [ -e "$rmw" ]; then
    export RMW_IMPLEMENTATION=rmw_cyclonedds_cpp
  fi
  if [ "$ROS_DISTRO" = humble ]; then
    export ROS_LOCALHOST_ONLY=1
  else
    unset ROS_LOCALHOST_ONLY
    export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
  fi
  _airside_prepend PATH "$_airside_root/.venv/bin"
  export AIRSIDE_ENVIRONMENT=$_airside_root
  # A build of this package starts from what lies below it.
  if [ -z "${AIRSIDE_UNDERLAY_ONLY:-}" ] &&
    [ -f "$_airside_root/install/$ROS_DISTRO/local_setup.bash" ]; then
    _airside_source "$_airside_root/install/$ROS_DISTRO/local_setup.bash"
  fi
}

_airside_setup
_airside_status=$?
unset -f _airside_setup _airside_source _airside_strip _airside_prepend
unset _airside_ros
eval "unset _airside_root _airside_status; return $_airside_status"
