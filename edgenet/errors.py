"""Everything that edgenet raises on purpose.

    EdgenetError                 one clear line for the user; exit code 1
    ├── UsageError               the command line alone is wrong; exit code 2
    ├── BadImage                 a file that does not decode to a whole picture
    ├── BadData                  a data set, manifest or label that does not fit
    │   └── MissingData          a built-in data set that another package brings is not installed
    ├── BadWeights               a checkpoint that does not fit the model, or is damaged
    ├── UnsupportedOperator      a network with an operator that edgenet's graph does not hold
    ├── BrokenBundle             a bundle that is incomplete, altered or too new
    ├── BadTarget                a file about a board that says what no such file may
    ├── BadTree                  a recorded or documented board that is damaged or too new
    ├── NotWritable              an output that cannot be written: no space, no permission
    ├── MissingExtra             an optional package is not installed
    ├── BadRecord                a stored measurement that is damaged, or of another schema
    ├── AddressUnavailable       an address that cannot be listened on
    ├── NotComparable            two measurements that were not taken alike
    ├── ConversionFailed         a writer or a check inside `convert` refused
    ├── RuntimeRefused           a runtime could not load or run an artefact
    ├── DeviceUnavailable        a camera, stream or display that gives nothing
    ├── BoardUnreachable         a host that SSH does not get into
    ├── ConnectionLost           a connection to a board that ended in the middle
    ├── NotDeployed              a board that lacks edgenet, or the bundle
    └── DeployRefused            a board that cannot take what is to be deployed

A message says what failed, the value, what would be right and what to do next. Anything else
that escapes is a bug: the command line says so and keeps its traceback for `--debug`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class EdgenetError(Exception):
    """A failure with a message meant for the user."""

    exit_code = 1


class UsageError(EdgenetError):
    """The command line alone is wrong: an unknown name, a value out of range, no such path."""

    exit_code = 2


class BadImage(EdgenetError):
    """A file that is missing, truncated or not a picture."""


class BadData(EdgenetError):
    """A data set, CSV or label that does not fit the bundle it is used with."""


class MissingData(BadData):
    """A built-in data set that another package brings is not installed."""


class BadWeights(EdgenetError):
    """A checkpoint that is damaged or belongs to another network."""


class UnsupportedOperator(EdgenetError):
    """A network with an operator, or a use of one, that edgenet's graph does not hold."""


class BrokenBundle(EdgenetError):
    """A bundle that is incomplete, was altered, or needs a newer edgenet."""


class BadTarget(EdgenetError):
    """A file that describes a board and says what no such file may say."""


class BadTree(EdgenetError):
    """A recorded or documented board that is damaged, or needs a newer edgenet."""


class NotWritable(EdgenetError):
    """An output that cannot be written: no space, no permission, a read-only disk."""


class MissingExtra(EdgenetError):
    """A package that an optional extra brings is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed; install it with: pip install 'edgenet[{extra}]'"
        )


class BadRecord(EdgenetError):
    """A file that holds no measurement which this edgenet reads."""


class AddressUnavailable(EdgenetError):
    """An address that cannot be listened on: in use, not this machine's, or not allowed."""


class NotComparable(EdgenetError):
    """Two stored measurements with nothing in common, or of unlike conditions."""


class ConversionFailed(EdgenetError):
    """A writer, or a check of what it wrote, refused to go on."""


class RuntimeRefused(EdgenetError):
    """A runtime is installed but could not load or run an artefact."""


class DeviceUnavailable(EdgenetError):
    """A camera, stream, broker or display that is not there, refuses us, or gives nothing."""


class BoardUnreachable(EdgenetError):
    """A board that SSH does not get into: not there, its key unknown, or it refuses us."""


class ConnectionLost(EdgenetError):
    """A connection to a board that ended in the middle of something."""


class NotDeployed(EdgenetError):
    """A board on which edgenet, or the bundle, is not installed."""


class DeployRefused(EdgenetError):
    """A board that cannot take what is to be deployed: no Python, no room, no wheels."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn the import of a package that `extra` would bring into `MissingExtra`.

    A module of our own that is missing stays what it is: a bug.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "edgenet":
            raise
        raise MissingExtra(error.name, extra) from error
