#!/usr/bin/env bash
# Runs one named part of the long tests, or all of them in turn. Each takes at most half an hour on two quiet cores.
#   scripts/soak.sh ledger
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A parts=(
  [ledger]="tests/money tests/history"
  [crashes]="tests/recovery"
  [sdks]="tests/api/test_sdk_retries.py"
  [outcomes]="tests/delivery/test_outcome_grid.py tests/health/test_brownout.py"
  [grid]="tests/api/test_grid.py tests/routing/test_plan_grid.py"
  [clients]="tests/api/test_clients.py tests/api/test_callbacks.py"
  [redis]="tests/store"
  [restarts]="tests/server/test_rolling_restart.py"
  [instance]="tests/server/test_instance.py"
  [fuzz]="tests/fuzz tests/admin/test_random_input.py"
  [mutation]="tests/mutation"
)
# Most of this part is waiting for time-outs.
declare -A workers=([outcomes]=6)
order=(ledger crashes sdks outcomes grid clients redis restarts instance fuzz mutation)

[ $# -gt 0 ] || set -- "${order[@]}"
for name in "$@"; do
  if [ -z "${parts[$name]:-}" ]; then
    echo "There is no part '$name'; the parts are: ${order[*]}" >&2
    exit 2
  fi
done
for name in "$@"; do
  echo "soak: $name"
  # Its tools are too many for every day.
  [ "$name" != fuzz ] || scripts/venv.sh requirements-fuzz.lock
  # shellcheck disable=SC2086 # a part is a list of paths
  TEST_PROFILE=soak .venv/bin/python -m pytest -q -n "${workers[$name]:-2}" ${parts[$name]}
done
