#!/usr/bin/env bash
# Installs the tools of the tests beside Python: curl, for the README's examples, and Node.js with the packages of tests/sdk.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v curl >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "imagegate: installing curl" >&2
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends curl >/dev/null
  else
    echo "The tests need curl; on Debian: apt-get install curl" >&2
    exit 1
  fi
fi
./node.sh
