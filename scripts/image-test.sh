#!/usr/bin/env bash
# Builds the container image with buildah on a Debian base made by debootstrap, and runs it as in production:
# a user other than root, a read-only root, a writable /data. Checks that it serves a picture and ends at a SIGTERM.
# Needs root on Debian, no Docker daemon and no image registry. Takes minutes; `make image-test` runs it.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/.build/image-test
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
# No layers: with the vfs driver each would be a full copy.
buildah=(buildah --root "$work/storage" --runroot "$work/runroot")

say() { echo "image-test: $*" >&2; }
fail() { say "FAILED: $*"; exit 1; }

[ "$(id -u)" = 0 ] || fail "it needs root, for buildah's chroot and for mounts"
if ! command -v buildah >/dev/null || ! command -v debootstrap >/dev/null; then
  say "installing buildah and debootstrap"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah debootstrap >/dev/null
fi
mkdir -p "$work"

# --- the base image, made once -----------------------------------------------------------------------------------
if ! "${buildah[@]}" inspect --type image localhost/python-base >/dev/null 2>&1; then
  say "making localhost/python-base (Debian 12, python3)"
  rm -rf "$work/rootfs"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/\?$')
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/rootfs" "$mirror" \
    >"$work/debootstrap.log" 2>&1 || fail "debootstrap; see $work/debootstrap.log"
  container=$("${buildah[@]}" from scratch)
  "${buildah[@]}" copy --quiet "$container" "$work/rootfs" / >/dev/null
  "${buildah[@]}" config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  "${buildah[@]}" commit --quiet --rm "$container" localhost/python-base >/dev/null
  rm -rf "$work/rootfs"
fi

# --- the image ---------------------------------------------------------------------------------------------------
# The build uses this machine's pip configuration and the files it names; they are not in the image.
python3 -m pip config list | sed -nE "s/^[^.]+\.\.?([a-z-]+)='(.*)'$/\1 = \2/p" | sort -u -t= -k1,1 \
  | sed '1i [global]' >"$work/pip.conf"
# An index in a folder refers to files beside it, so the build gets its parent folder.
paths=$({ grep -oE 'file:///[^ ]+' "$work/pip.conf" | sed 's#^file://##' | xargs -r dirname
          grep -oE '[ =]/[^ ]+' "$work/pip.conf" | tr -d ' ='; } | sort -u)
lent=(--volume "$work/pip.conf:/etc/pip.conf:ro")
for path in $paths; do
  [ -e "$path" ] && lent+=(--volume "$path:$path:ro")
done
say "building"
began=$SECONDS
"${buildah[@]}" bud --format docker --pull-never --network=host --layers=false "${lent[@]}" \
  --build-arg PYTHON_IMAGE=localhost/python-base --tag localhost/imagegate . >"$work/build.log" 2>&1 \
  || { tail -30 "$work/build.log" >&2; fail "the build; see $work/build.log"; }
say "built in $((SECONDS - began)) s"

# --- what is in it -----------------------------------------------------------------------------------------------
config() { "${buildah[@]}" inspect --type image --format "$1" localhost/imagegate; }
[ "$(config '{{.OCIv1.Config.User}}')" = 10001:10001 ] || fail "its user is not 10001:10001"
[ "$(config '{{.OCIv1.Config.Cmd}}')" = "[imagegate serve]" ] || fail "its command is not imagegate serve"
config '{{.Docker.Config.Healthcheck}}' | grep -q healthcheck || fail "it has no health check"
mapfile -t env < <(config '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' | grep .)

container=$("${buildah[@]}" from --pull-never localhost/imagegate)
root=$("${buildah[@]}" mount "$container")
data=$(mktemp -d "$work/data.XXXX")
runner=
cleanup() {
  [ -z "$runner" ] || kill -KILL "$runner" 2>/dev/null || true
  "${buildah[@]}" rm "$container" >/dev/null 2>&1 || true
  rm -rf "$data"
}
trap cleanup EXIT
chown 10001:10001 "$data"
[ -z "$(find "$root/opt/imagegate" -name '*.pth')" ] || fail "the install holds .pth files, which run code at every start"
[ ! -e "$root/etc/pip.conf" ] || [ ! -s "$root/etc/pip.conf" ] || fail "this machine's pip configuration is in the image"
! grep -rqsF "$work" "$root/opt/imagegate" || fail "this machine's paths are in the image"
say "size: $(du -sm "$root" | cut -f1) MiB, of which the install $(du -sm "$root/opt/imagegate" | cut -f1) MiB"

# --- running it --------------------------------------------------------------------------------------------------
# Plain kernel features, no container runtime: a mount namespace with a read-only root, then chroot.
# All of it runs in one shell of that namespace, and `inside` enters it.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export root data
unshare --mount --propagation private bash -c '
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs tmpfs "$root/tmp"
  chmod 1777 "$root/tmp"
  mount --bind "$data" "$root/data"
  mount -o remount,ro,bind "$root"
  exec chroot --userspec=10001:10001 "$root" env -i -C /data "$@"
' bash "${env[@]}" "GATEWAY_PORT=$port" GATEWAY_DRAIN_S=5 imagegate serve --demo >"$work/serve.out" 2>"$work/serve.err" &
runner=$!
inside() {
  nsenter --target "$runner" --mount chroot --userspec=10001:10001 "$root" env -i -C /data "${env[@]}" \
    "GATEWAY_PORT=$port" "$@"
}

for _ in $(seq 150); do
  grep -q 'Ctrl-C stops' "$work/serve.out" && break
  kill -0 "$runner" 2>/dev/null || { cat "$work/serve.err" >&2; fail "it ended at its start"; }
  sleep 0.2
done
[ "$(awk '/^Uid:/ {print $2}' "/proc/$runner/status")" = 10001 ] || fail "it does not run as 10001"
! inside touch /opt/imagegate/x 2>/dev/null || fail "its root can be written"
inside imagegate healthcheck || fail "the health check"
inside imagegate keys create image-test >/dev/null 2>&1 || fail "making a key"

# The banner's first example, pasted from outside.
(cd "$data" && bash -c "$(sed -n '/^curl /,/^  | python3/p; /^  | python3/q' "$work/serve.out")")
head -c 8 "$data/picture.png" | cmp -s - <(printf '\x89PNG\r\n\x1a\n') || fail "no picture came"
say "a picture of $(stat -c %s "$data/picture.png") bytes was served"

began=$(date +%s%N)
kill -TERM "$runner"
code=0
wait "$runner" || code=$?
[ "$code" = 0 ] || { cat "$work/serve.err" >&2; fail "it ended with exit code $code"; }
say "stopped in $((($(date +%s%N) - began) / 1000000)) ms with exit code 0"
runner=
left=$(pgrep -u 10001 || true)
[ -z "$left" ] || fail "processes are left: $left"

# Without a key and without --demo it must refuse, and name the variables.
refusal=$(chroot --userspec=10001:10001 "$root" env -i "${env[@]}" GATEWAY_DATA_DIR=/tmp/none imagegate serve 2>&1) \
  && fail "it serves without any upstream key"
grep -q ANYFAST_API_KEY <<<"$refusal" || fail "it refuses, but does not name the variables: $refusal"
say "passed"
