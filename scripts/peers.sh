#!/usr/bin/env bash
# Installs the contestants of the comparison, each by its own documentation, into .build/peers: LiteLLM from PyPI and
# Portkey's gateway from npm, in just the versions that bench/contestants.py names, and nginx from Debian.
set -euo pipefail
cd "$(dirname "$0")/.."
version_of() { sed -n "s/^LITELLM, PORTKEY = \"\(.*\)\", \"\(.*\)\"$/\\$1/p" bench/contestants.py; }
litellm=$(version_of 1) portkey=$(version_of 2) peers=.build/peers
mkdir -p "$peers"

if ! [ -x "$peers/litellm/bin/litellm" ]; then
  echo "imagegate: installing LiteLLM $litellm" >&2
  # By the Python that runs imagegate. Some of its other releases were compromised: use only this one.
  "${PYTHON:-.venv/bin/python}" -m venv "$peers/litellm"
  "$peers/litellm/bin/pip" install --quiet --disable-pip-version-check "litellm[proxy]==$litellm"
fi

if ! [ -d "$peers/portkey/node_modules/@portkey-ai/gateway" ]; then
  echo "imagegate: installing Portkey's gateway $portkey" >&2
  npm install --prefix "$peers/portkey" --silent --no-audit --no-fund --ignore-scripts "@portkey-ai/gateway@$portkey"
fi

if ! command -v nginx >/dev/null && ! [ -x /usr/sbin/nginx ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light >/dev/null
  else
    echo "nginx is missing; on Debian: apt-get install nginx-light" >&2
    exit 1
  fi
fi
