#!/usr/bin/env bash
# Installs the tools of the tests beside Python: curl, for the README's examples; nginx, for the same requests behind a
# proxy; and Node.js with the packages of tests/sdk. The Java test runs where a JDK is; none is installed for it.
set -euo pipefail
cd "$(dirname "$0")"

# install COMMAND PACKAGE: the package, unless the command is there; PATH of an ordinary user has no sbin.
install() {
  PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "imagegate: installing $2" >&2
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
  else
    echo "The tests need $1; on Debian: apt-get install $2" >&2
    return 1
  fi
}

install curl curl
# Its tests are skipped on systems without apt-get.
install nginx nginx-light || ! command -v apt-get >/dev/null
./node.sh
