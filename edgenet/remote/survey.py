"""What a board is, before anything is put on it: one POSIX shell program, one round trip.

Needs no Python there, so that it can say that there is none. Changes nothing.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenet.board.detect import COMPATIBLE, CPUINFO, MODEL_FILES, OS_RELEASE, Board, detect
from edgenet.board.machine import Machine, Unreadable
from edgenet.board.target import Target, load_target, targets
from edgenet.errors import DeployRefused
from edgenet.remote.installed import HOME_FOLDER, INSTALLATION, json_object
from edgenet.remote.ssh import Connection

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
PYTHONS = ("python3", *(f"python3.{minor}" for minor in range(13, 8, -1)))
"""The system's own first: what the system brings, Picamera2 for one, is for that one."""
CLOCK_DAYS = 1.0
"""A clock that is further off lets certificates look expired, or not valid yet."""
SURVEY_TIMEOUT_S = 120.0

ASK_PYTHON = r"""
import glob, json, os, socket, sys
from importlib.util import find_spec
def has(name):
    try: return find_spec(name) is not None
    except Exception: return False
def version(name):
    try:
        from importlib.metadata import version
        return version(name)
    except Exception: return None
def resolver():
    heard = None
    try: words = [line.split() for line in open("/etc/resolv.conf")]
    except Exception: return None
    servers = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    for server in servers[:2]:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.settimeout(2)
            try:
                asking.connect((server, 53))
                asking.send(b"ed\1\0\0\1\0\0\0\0\0\0" b"\0\0\2\0\1")  # who serves the root?
                return bool(asking.recv(512))
            except OSError: heard = False
    return heard
bundled = os.path.join(os.path.dirname(os.__file__), "ensurepip", "_bundled", "pip-*.whl")
wheels = sorted(glob.glob(bundled) + glob.glob("/usr/share/python-wheels/pip-*.whl"))
try: libc = os.confstr("CS_GNU_LIBC_VERSION")
except (ValueError, OSError): libc = None
print(json.dumps({
    "version": list(sys.version_info[:3]),
    "executable": sys.executable,
    "bits": 64 if sys.maxsize > 2**32 else 32,
    "libc": libc,
    "resolver": resolver(),
    "pip": ["-m", "pip"] if has("pip") else [wheels[-1] + "/pip"] if wheels else None,
    "picamera2": has("picamera2"),
    "opencv": has("cv2"),
    "numpy": version("numpy") if has("numpy") else None,
}))
"""
"""Run by each Python there: quick, for a board's first start of Python is slow. It takes any
exception for a no: a broken package of the system must not hide the Python that it is in."""

PROGRAM = """
root=$1 code=$2; shift 2
printf 'user %s\\nhome %s\\narchitecture %s\\nclock %s\\n' \\
    "$(id -un)" "$HOME" "$(uname -m)" "$(date +%s)"
case $root in /*) ;; *) root=$HOME/$root ;; esac
printf 'root %s\\n' "$root"
[ -d "$root" ] && printf 'there yes\\n'
if venv=$(cd -P "$root/current" 2>/dev/null && pwd) && [ -r "$venv/INSTALLATION" ]; then
    printf 'venv %s\\ninstallation %s\\n' "$venv" "$(cat "$venv/INSTALLATION")"
fi
above=$root
while [ ! -d "$above" ]; do above=$(dirname "$above"); done
[ -w "$above" ] && printf 'writable yes\\n'
printf 'free %s\\n' "$(df -Pk "$above" | awk 'NR == 2 { print $4 }')"
awk '$2 == "00000000" { print "route yes"; exit }' /proc/net/route 2>/dev/null
systemctl --version 2>/dev/null | awk 'NR == 1 { print "systemd", $2 }'
for file in "$@"; do
    [ -r "$file" ] || continue
    printf 'file %s\\n' "$file"
    tr '\\000' '\\n' < "$file" | sed 's/^/|/'
    echo
done
[ -e /sys/bus/virtio/devices/virtio0 ] && echo 'virtio yes'
asked=
for python in PYTHONS; do
    program=$(command -v "$python" 2>/dev/null) || continue
    program=$(readlink -f "$program")
    case " $asked " in *" $program "*) continue ;; esac
    asked="$asked $program"
    printf 'python %s\\n' "$("$python" -I -c "$code" 2>/dev/null)"
done
exit 0
""".replace("INSTALLATION", INSTALLATION).replace("PYTHONS", " ".join(PYTHONS))
"""Arguments: our folder, what to ask a Python, then the files to show."""


@dataclass(frozen=True, kw_only=True)
class BoardPython:
    """One Python of a board's system."""

    executable: str
    version: tuple[int, int, int]
    bits: int
    glibc: tuple[int, int] | None
    """None where it is built on another C library."""
    names_resolve: bool | None
    """Whether a name server answers it; None where none is known."""
    pip: tuple[str, ...] | None
    """What starts pip there, behind the executable; None where there is none."""
    picamera2: bool
    opencv: bool
    numpy: str | None
    """The system's numpy."""

    @property
    def short(self) -> str:
        """Return major and minor version: "3.11"."""
        return f"{self.version[0]}.{self.version[1]}"


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a board said about itself."""

    host: str
    user: str
    home: str
    board: Board
    pythons: tuple[BoardPython, ...]
    root: str
    """Where our folder is or would be, absolute."""
    root_exists: bool
    writable: bool
    free_bytes: int
    clock_ahead_s: float
    """Of this machine's clock; below 0 where it is behind."""
    has_route: bool
    """Whether it knows a way out of its own network."""
    systemd: int | None
    """Version; None where systemd is not there."""
    environment: str | None
    """Name of the environment in use; None where nothing is installed."""
    installation: Mapping[str, Any]
    """What the environment says of itself."""

    @property
    def clock_is_off(self) -> bool:
        """Tell whether the clock is so wrong that secure connections fail there."""
        return abs(self.clock_ahead_s) > CLOCK_DAYS * 86400

    def python(self) -> BoardPython:
        """Return the Python to install for; raises `DeployRefused` where none fits."""
        fit = [it for it in self.pythons if OLDEST_PYTHON <= it.version[:2] <= NEWEST_PYTHON]
        if fit:
            return fit[0]
        needs = f"edgenet needs Python {_dotted(OLDEST_PYTHON)} to {_dotted(NEWEST_PYTHON)}"
        if not self.pythons:
            raise DeployRefused(
                f"{self.host}: has no Python 3; {needs} there (on Debian and Raspberry Pi OS: "
                "sudo apt install python3)"
            )
        found = ", ".join(".".join(map(str, it.version)) for it in self.pythons)
        raise DeployRefused(f"{self.host}: has Python {found}; {needs}: upgrade its system")

    def any_python(self) -> BoardPython:
        """Return a Python that runs the receiver, to remove what is there."""
        return self.pythons[0] if self.pythons else self.python()

    def wheel_architecture(self, python: BoardPython) -> str:
        """Return the architecture of wheels: a 32-bit system may run on a 64-bit kernel."""
        narrow = {"aarch64": "armv7l", "x86_64": "i686"}
        known = self.board.architecture or "unknown"
        return narrow.get(known, known) if python.bits == 32 else known


def survey(
    connection: Connection, *, root: str = HOME_FOLDER, target: Target | None = None
) -> Survey:
    """Return what a board is; `root` is below the home there unless it is absolute."""
    words = ["sh", "-c", PROGRAM, "edgenet", root, ASK_PYTHON, *_shown_files()]
    done = connection.run(words, timeout_s=SURVEY_TIMEOUT_S)
    here_s = time.time()
    facts, files, pythons = _parse(done.stdout.decode(errors="replace"))
    missing = [
        name for name in ("home", "architecture", "clock", "root", "free") if name not in facts
    ]
    if missing:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise DeployRefused(
            f"{connection.host}: does not tell its {missing[0]} ({said}); is its shell POSIX?"
        )
    venv = facts.get("venv")
    return Survey(
        host=connection.host,
        user=facts.get("user", ""),
        home=facts["home"],
        board=_board(files, facts["architecture"], virtio="virtio" in facts, target=target),
        pythons=pythons,
        root=facts["root"],
        root_exists="there" in facts,
        writable="writable" in facts,
        free_bytes=int(facts["free"]) * 1024,
        clock_ahead_s=int(facts["clock"]) - here_s,
        has_route="route" in facts,
        systemd=_number(facts.get("systemd", "")),
        environment=None if venv is None else Path(venv).name,
        installation=json_object(facts.get("installation", "")),
    )


def _shown_files() -> tuple[str, ...]:
    """Return the files by which boards are recognised."""
    recognised = (file for name in targets() for file in load_target(name).recognised.files)
    return (*MODEL_FILES, COMPATIBLE, CPUINFO, OS_RELEASE, *dict.fromkeys(recognised))


def _parse(
    text: str,
) -> tuple[dict[str, str], dict[str, str], tuple[BoardPython, ...]]:
    """Return single facts, files by their path, and the Pythons."""
    facts: dict[str, str] = {}
    files: dict[str, str] = {}
    pythons: list[BoardPython] = []
    path = None
    for line in text.splitlines():
        if line.startswith("|") and path is not None:
            files[path] += line[1:] + "\n"
            continue
        kind, _, rest = line.partition(" ")
        if kind == "file":
            path = rest
            files[path] = ""
        elif kind == "python" and (said := json_object(rest)):
            pythons.append(_python(said))
        elif rest:
            facts[kind] = rest
    return facts, files, tuple(pythons)


def _python(said: Mapping[str, Any]) -> BoardPython:
    numbers = re.match(r"glibc (\d+)\.(\d+)", said["libc"] or "")
    major, minor, patch = said["version"]
    return BoardPython(
        executable=said["executable"],
        version=(major, minor, patch),
        bits=said["bits"],
        glibc=(int(numbers[1]), int(numbers[2])) if numbers else None,
        names_resolve=said["resolver"],
        pip=None if said["pip"] is None else tuple(said["pip"]),
        picamera2=said["picamera2"],
        opencv=said["opencv"],
        numpy=said["numpy"],
    )


def _board(
    files: Mapping[str, str], architecture: str, *, virtio: bool, target: Target | None
) -> Board:
    """Return the board that these files are of."""

    def run(argv: Sequence[str], _timeout_s: float) -> str:
        if tuple(argv) == ("uname", "-m"):
            return architecture
        raise Unreadable(" ".join(argv), "was not asked")

    shown = dict(files)
    if virtio:
        shown["/sys/bus/virtio/devices/virtio0"] = ""
    with tempfile.TemporaryDirectory(prefix="edgenet-survey-") as folder:
        for path, text in shown.items():
            copy = Path(folder) / path.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text, "utf-8")
        return detect(Machine(Path(folder), run), target)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
