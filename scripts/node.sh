#!/usr/bin/env bash
# Installs the Node packages of tests/sdk; does nothing if this lock is installed already.
set -euo pipefail
cd "$(dirname "$0")/../tests/sdk/node"

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "imagegate: installing Node.js" >&2
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
  else
    echo "The tests need node and npm; on Debian: apt-get install nodejs npm" >&2
    exit 1
  fi
fi

# Several test processes may run this at once.
exec 9<package.json
flock 9
stamp=node_modules/.installed-$(sha256sum package-lock.json | cut -c1-16)
[ -e "$stamp" ] && exit 0
echo "imagegate: installing tests/sdk/node" >&2
npm ci --ignore-scripts --loglevel=error >&2
touch "$stamp"
