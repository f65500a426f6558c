#!/bin/sh
# Install the Debian packages that the demo and the tests need; asks for sudo when not root.
set -eu
# tuxpaint-stamps-default: the labelled photographs (GPL, so not part of this project)
# qemu-user: other processors, for the tests that compare their answers
packages="tuxpaint-stamps-default qemu-user"

missing=
for package in $packages; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "edgenet: not a Debian system; provide /usr/share/tuxpaint/stamps and qemu-x86_64 by hand (missing:$missing)" >&2
    exit 1
fi
as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "edgenet: as root, run: apt-get install$missing" >&2
        exit 1
    fi
    as_root=sudo
fi
$as_root apt-get update -qq
# shellcheck disable=SC2086 # one word a package
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
