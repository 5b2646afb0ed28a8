#!/bin/sh
# Installs the programs, their completions and manual pages, and the agent's unit:
#   PREFIX    where to, /usr/local by default
#   DESTDIR   put before it, for packages and images
#   BINARIES  where the programs lie, target/release of this checkout by default
set -eu
# What is installed is for everybody, whatever the umask of whoever installs it.
umask 022

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
binaries=${BINARIES:-$root/target/release}
to=${DESTDIR:-}${PREFIX:-/usr/local}
for program in plimsoll plimsoll-agent; do
    # Nothing is built here: who may write to PREFIX mostly has no Rust.
    test -x "$binaries/$program" || { echo "$binaries/$program is not there: make build, as whoever has Rust" >&2; exit 2; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# Everything is made first: what cannot be made leaves nothing half installed.
for program in plimsoll plimsoll-agent; do
    "$binaries/$program" completions bash >"$work/$program.bash"
    "$binaries/$program" completions zsh >"$work/$program.zsh"
    "$binaries/$program" completions fish >"$work/$program.fish"
    "$binaries/$program" man --dir "$work/man"
done

install -d "$to/bin" "$to/share/man/man1" "$to/share/bash-completion/completions" "$to/share/zsh/site-functions" \
    "$to/share/fish/vendor_completions.d" "$to/lib/systemd/system"
for program in plimsoll plimsoll-agent; do
    install -m 755 "$binaries/$program" "$to/bin/$program"
    install -m 644 "$work/$program.bash" "$to/share/bash-completion/completions/$program"
    install -m 644 "$work/$program.zsh" "$to/share/zsh/site-functions/_$program"
    install -m 644 "$work/$program.fish" "$to/share/fish/vendor_completions.d/$program.fish"
done
install -m 644 "$work"/man/*.1 "$to/share/man/man1"
# The unit names the program by its path.
sed "s|/usr/local/bin/|${PREFIX:-/usr/local}/bin/|" "$root/deploy/systemd/plimsoll-agent.service" \
    >"$work/plimsoll-agent.service"
install -m 644 "$work/plimsoll-agent.service" "$to/lib/systemd/system"
