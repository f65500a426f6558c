#!/bin/sh
# Install the Debian packages that are needed for: demo, tests. Asks for sudo when not root.
#   tools/install_system_packages.sh demo
#   tools/install_system_packages.sh demo tests
set -eu
# tuxpaint-stamps-default: the labelled photographs (GPL, so not part of this project)
demo="tuxpaint-stamps-default"
# qemu-user: other processors, for the tests that compare their answers
# qemu-system-arm and what follows: the virtual board (tools/virtual_board)
# openssh-server: the board over SSH that is this machine itself (tests/remote)
# systemd: systemd-analyze, which judges the service's unit; nothing of it is started
# gcc, libc6-dev: the plugin that counts instructions (tools/bench)
# mosquitto: the broker that `edgenet camera --mqtt` is tried against
# chromium, fonts-dejavu-core, xvfb, xdotool: the live page and the desktop window, as they are drawn
# gir1.2-gst-rtsp-server-1.0 and what follows: H.264, as edgenet playlist serves and writes it, and
#   the cameras in tests/stand_ins send it
tests="qemu-user qemu-system-arm cpio device-tree-compiler kmod openssh-client openssh-server
    squashfs-tools systemd
    gcc libc6-dev mosquitto chromium fonts-dejavu-core xvfb xdotool
    gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good
    gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-tools python3-gi"

packages=
for group in "$@"; do
    case $group in
    demo) packages="$packages $demo" ;;
    tests) packages="$packages $tests" ;;
    *)
        echo "usage: $0 {demo|tests}..." >&2
        exit 2
        ;;
    esac
done
missing=
for package in $packages; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "edgenet: not a Debian system; provide by hand what these packages hold:$missing" >&2
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
