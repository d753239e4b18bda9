#!/usr/bin/env bash
# Makes .venv from a hashed lock and installs this project into it; does nothing if this lock is installed already.
#   scripts/venv.sh requirements.lock        to serve
#   scripts/venv.sh requirements-dev.lock    to run tests and checks too
set -euo pipefail
cd "$(dirname "$0")/.."
lock=$1
stamp=.venv/.installed-$(sha256sum "$lock" pyproject.toml | sha256sum | cut -c1-16)
[ -e "$stamp" ] && exit 0

is_usable() { "$1" -c "import sys${2:-}; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; }

# The system's own first: distributions build it with optimisation, which takes a third off the time of every program.
# pyenv does not by default.
python=${PYTHON:-/usr/bin/python3}
[ -n "${PYTHON:-}" ] || is_usable "$python" ", ensurepip" || python=python3
if ! is_usable "$python"; then
  echo "imagegate needs Python 3.11 or newer; '$python' is not. Set PYTHON to one that is, as in: make run PYTHON=python3.12" >&2
  exit 1
fi
# Debian keeps venv's ensurepip in a package of its own.
if ! is_usable "$python" ", ensurepip"; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
  else
    echo "Python's venv module is missing; on Debian: apt-get install python3-venv" >&2
    exit 1
  fi
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "imagegate: installing from $lock; the first time this takes a minute or two" >&2
.venv/bin/python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --require-hashes -r "$lock"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
  --no-build-isolation --no-deps --editable .
touch "$stamp"
