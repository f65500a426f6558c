"""Make the bundle that `edgenet camera` runs where none is given.

    python tools/make_shipped_bundle.py [-o FOLDER]

The embedded ImageNet network in INT8, as `edgenet convert` makes it with every default, for the two
runtimes that every board family can install (docs/decisions/0011-shipped-bundle.md). The default
FOLDER is the one in the package; tests/system/test_shipped_bundle.py makes another and compares.
Needs the `convert` extra and takes half a minute.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgenet.bundle import shipped_bundle
from edgenet.cli import run

WHAT = ("--runtime", "litert,onnxruntime", "--precision", "int8")


def main() -> int:
    """Convert, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=shipped_bundle())
    output = parser.parse_args().output
    return run(["convert", *WHAT, "--force", "-o", str(output)])


if __name__ == "__main__":
    sys.exit(main())
