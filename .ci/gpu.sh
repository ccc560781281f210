#!/usr/bin/env bash
# The tests that need a GPU, with the TensorRT of $PYTHON (default: python3). Run by `make gpu`.
# Engines are built into $AIRSIDE_TEST_PLANS (default: build/gpu-tests) where they are not there;
# a lean runtime, which cannot build, runs those that another TensorRT left there.
# Arguments are passed to pytest.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export AIRSIDE_TEST_PLANS=${AIRSIDE_TEST_PLANS:-$PWD/build/gpu-tests}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

"$python" -c 'import sys; from airside_perception.cuda.runtime import unavailable as why; sys.exit(why() or 0)' ||
  exit
if [ ! -f "$AIRSIDE_TEST_PLANS/complete" ]; then
  "$python" test/gpu/plans.py "$AIRSIDE_TEST_PLANS" --jobs "${JOBS:-1}" &&
    touch "$AIRSIDE_TEST_PLANS/complete" ||
    echo 'not all engines could be built: tests that need them are skipped' >&2
fi
exec "$python" -m pytest test/gpu -m gpu -q "$@"
