#!/usr/bin/env bash
# Check the TFLite runner on 32-bit Arm: edgenet, Debian's numpy and OpenCV and tflite-runtime for
# armhf, under QEMU's user mode emulation, hold against a bundle's golden vectors.
#
#     tools/check_armhf.sh BUNDLE [FOLDER]
#
# FOLDER (default ~/.cache/edgenet/armhf, 0.7 GB) keeps what was fetched. Packages are unpacked, not
# installed; root is not needed. Needs qemu-arm (Debian's qemu-user), apt, dpkg, pip and the
# checkout's .venv. EDGENET_BOARD_SOURCES names another apt sources file than the machine's own.
set -euo pipefail

bundle=$(realpath "${1:?give a bundle with a TFLite int8 file}")
folder=${2:-$HOME/.cache/edgenet/armhf}
checkout=$(cd "$(dirname "$0")/.." && pwd)
root=$folder/root
mkdir -p "$folder"

fetch_debian() {
    local state=$folder/apt partial=$folder/partial
    rm -rf "$state" "$partial"
    mkdir -p "$state"/lists/partial "$state"/archives/partial "$partial/usr"
    touch "$state/status"
    local apt=(apt-get -qq -o APT::Architecture=armhf -o APT::Architectures=armhf
        -o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Acquire::Languages=none
        -o Acquire::Retries=3 -o Dir::State="$state" -o Dir::State::lists="$state/lists"
        -o Dir::State::status="$state/status" -o Dir::Cache="$state"
        -o Dir::Cache::archives="$state/archives")
    if [ -n "${EDGENET_BOARD_SOURCES:-}" ]; then
        mkdir "$state/parts"
        cp "$EDGENET_BOARD_SOURCES" "$state/parts/"
        apt+=(-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$state/parts")
    fi
    "${apt[@]}" update
    "${apt[@]}" install --yes --download-only base-files libc-bin coreutils dash \
        python3 python3-numpy python3-opencv libgomp1 libatomic1
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
    mv "$partial" "$root"
}

fetch_wheels() {
    rm -rf "$folder/wheels" "$folder/site"
    "$checkout/.venv/bin/python" -m pip download -q --only-binary=:all: --python-version 3.11 \
        --platform manylinux_2_34_armv7l --platform any --no-deps tflite-runtime -d "$folder/wheels"
    "$checkout/.venv/bin/python" -m pip download -q --only-binary=:all: --python-version 3.11 \
        --platform manylinux_2_34_armv7l --platform any "typer<0.29" fastjsonschema -d "$folder/wheels"
    (cd "$folder/wheels" && "$checkout/.venv/bin/python" - <<'PYTHON'
from pathlib import Path

from edgenet.remote.wheels import runner_wheel

wheel = runner_wheel(("litert",))
Path(wheel.name).write_bytes(wheel.data)
PYTHON
    )
    for wheel in "$folder"/wheels/*.whl; do
        python3 -m zipfile -e "$wheel" "$folder/site"
    done
}

[ -d "$root" ] || fetch_debian
fetch_wheels

libraries=$root/usr/lib/arm-linux-gnueabihf
# numpy's warnings are of the emulator's subnormal numbers.
run() {
    qemu-arm -L "$root" -E PYTHONHOME="$root/usr" -E PYTHONDONTWRITEBYTECODE=1 \
        -E PYTHONWARNINGS=ignore \
        -E PYTHONPATH="$folder/site:$root/usr/lib/python3/dist-packages" \
        -E LD_LIBRARY_PATH="$libraries/blas:$libraries/lapack:$libraries" \
        "$root/usr/bin/python3.11" "$@"
}

run -c 'import platform; print(platform.machine())'
run -m edgenet verify "$bundle" --runtime litert --precision int8
