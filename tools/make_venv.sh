#!/bin/sh
# Make a virtual environment and install into it: make_venv.sh PYTHON FOLDER PIP-INSTALL-ARGUMENTS...
# An OpenCV that is there already is kept: opencv-python and opencv-python-headless overwrite each
# other, so `board` (headless) gives way to an opencv-python that was installed by hand.
set -eu
python=$1
folder=$2
shift 2
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
if "$folder/bin/python" -m pip show --quiet opencv-python 2>/dev/null; then
    for argument in "$@"; do
        shift
        case $argument in .*\[*) argument=$(echo "$argument" | sed 's/board/desktop/') ;; esac
        set -- "$@" "$argument"
    done
fi
"$folder/bin/python" -m pip install "$@"
