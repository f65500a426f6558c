"""Who asked for this run: somebody at this machine, or somebody elsewhere, over SSH.

`edgenet.remote.attended` says so to the command that it runs. What is printed and recorded then
names the command as it was typed there: that is the one which gives the same again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

VARIABLE = "EDGENET_ASKED_AS"
"""In the environment of a command that was asked for elsewhere: its words there, as JSON."""


def from_elsewhere() -> bool:
    """Tell whether whoever asked is at another machine, and takes care of the record."""
    return VARIABLE in os.environ


def asked_command() -> list[str]:
    """Return the command that asks for this run again, as it was typed."""
    if from_elsewhere():
        words: list[str] = json.loads(os.environ[VARIABLE])
        return words
    return ["edgenet", *sys.argv[1:]]


def asked_as(command: Sequence[str]) -> dict[str, str]:
    """Return what to add to the environment of a run that was asked for elsewhere."""
    return {VARIABLE: json.dumps(list(command))}
