#!/usr/bin/env bash
# Check what runs on a system that nobody here has: edgenet beside that system's own Python, under
# QEMU's user mode emulation, holds against a bundle's golden vectors.
#
#     tools/check_system.sh bookworm-armhf BUNDLE    32-bit: Debian's numpy and OpenCV, tflite-runtime
#     tools/check_system.sh trixie-arm64 BUNDLE      Python 3.13: the wheels that edgenet deploy takes
#
# ~/.cache/edgenet/systems (0.7 GB each, or EDGENET_SYSTEMS) keeps what was fetched. Packages are
# unpacked, not installed; root is not needed. Needs qemu-user, apt, dpkg and the checkout's .venv.
set -euo pipefail

usage="usage: tools/check_system.sh bookworm-armhf|trixie-arm64 BUNDLE"
system=${1:?$usage}
bundle=$(realpath "${2:?$usage}")
folder=${EDGENET_SYSTEMS:-$HOME/.cache/edgenet/systems}/$system
checkout=$(cd "$(dirname "$0")/.." && pwd)
root=$folder/root
python=$checkout/.venv/bin/python
mkdir -p "$folder"

case $system in
bookworm-armhf)
    version=3.11 triplet=arm-linux-gnueabihf qemu=(qemu-arm) runtimes=(litert)
    packages=(python3-numpy python3-opencv libgomp1 libatomic1)
    ;;
trixie-arm64)
    version=3.13 triplet=aarch64-linux-gnu qemu=(qemu-aarch64 -cpu cortex-a76)
    runtimes=(litert onnxruntime openvino)
    packages=(libgomp1 libstdc++6 libatomic1 zlib1g)
    ;;
*)
    echo "$usage" >&2
    exit 2
    ;;
esac

fetch_debian() {
    local state=$folder/apt partial=$folder/partial architecture=${system#*-}
    rm -rf "$state" "$partial"
    mkdir -p "$state"/lists/partial "$state"/archives/partial "$state/parts" "$partial/usr"
    touch "$state/status"
    local archive
    archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
        grep -m 1 '/debian/$') || { echo "this machine's apt has no Debian archive" >&2; exit 1; }
    printf '%s\n' "Types: deb" "URIs: $archive" "Suites: ${system%-*}" \
        "Components: main" "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" \
        > "$state/parts/debian.sources"
    local apt=(apt-get -qq -o APT::Architecture="$architecture" -o APT::Architectures="$architecture"
        -o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Acquire::Languages=none
        -o Acquire::Retries=3 -o Dir::State="$state" -o Dir::State::lists="$state/lists"
        -o Dir::State::status="$state/status" -o Dir::Cache="$state"
        -o Dir::Cache::archives="$state/archives"
        -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$state/parts")
    "${apt[@]}" update
    "${apt[@]}" install --yes --download-only base-files libc-bin coreutils dash python3 \
        "${packages[@]}"
    for name in bin lib sbin; do
        mkdir "$partial/usr/$name"
        ln -s "usr/$name" "$partial/$name"
    done
    for package in "$state"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" |
            tar -x -p --no-same-owner --keep-directory-symlink \
                --exclude=./usr/share/doc --exclude=./usr/share/man -C "$partial"
    done
    rm -rf "$state"
    if [ "$system" = trixie-arm64 ]; then
        # What the runtimes read of the processor: the host's own /proc and /sys make them crash.
        local board
        board=$("$checkout/tools/virtual_board/board" user-root pi5)
        rm -rf "$partial/proc" "$partial/sys"
        cp -rL "$board/proc" "$board/sys" "$partial/"
    fi
    mv "$partial" "$root"
}

fetch_wheels() {
    rm -rf "$folder/wheels" "$folder/site"
    mkdir "$folder/wheels"
    if [ "$system" = bookworm-armhf ]; then
        local pip=("$python" -m pip download -q --only-binary=:all: --python-version "$version"
            --platform manylinux_2_34_armv7l --platform any -d "$folder/wheels")
        "${pip[@]}" --no-deps tflite-runtime
        "${pip[@]}" "typer<0.29" fastjsonschema
    fi
    (cd "$folder/wheels" && "$python" - "$system" "$version" "${runtimes[@]}" << 'PYTHON'
import shutil
import sys
from pathlib import Path

from edgenet.remote.wheels import Platform, fetch, requirements, runner_wheel

system, version, *runtimes = sys.argv[1:]
if system == "trixie-arm64":
    platform = Platform(python=version, architecture="aarch64", glibc=(2, 41))
    for wheel in fetch(requirements(("board", *runtimes), version), platform):
        shutil.copy(wheel, ".")
wheel = runner_wheel(runtimes)
Path(wheel.name).write_bytes(wheel.data)
PYTHON
    )
    for wheel in "$folder"/wheels/*.whl; do
        python3 -m zipfile -e "$wheel" "$folder/site"
    done
}

[ -d "$root" ] || fetch_debian
fetch_wheels

libraries=$root/usr/lib/$triplet
# numpy's warnings are of the emulator's subnormal numbers.
run() {
    "${qemu[@]}" -L "$root" -E PYTHONHOME="$root/usr" -E PYTHONDONTWRITEBYTECODE=1 \
        -E PYTHONWARNINGS=ignore \
        -E PYTHONPATH="$folder/site:$root/usr/lib/python3/dist-packages" \
        -E LD_LIBRARY_PATH="$libraries/blas:$libraries/lapack:$libraries" \
        "$root/usr/bin/python$version" "$@"
}

run -c 'import platform; print(platform.machine(), platform.python_version())'
options=()
for runtime in "${runtimes[@]}"; do
    options+=(--runtime "$runtime")
done
run -m edgenet verify "$bundle" "${options[@]}" --precision int8
