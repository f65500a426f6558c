"""A deployed bundle as a systemd service of the board: a camera that starts at power-on.

The unit is a file of data, `targets/linux/edgenet-camera.service`. Nothing here copies a bundle or
installs packages: that is done before, below `SERVICE_ROOT`. All of it needs root on the board.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from edgenet.errors import DeployRefused, UsageError
from edgenet.remote.installed import SERVICE_ROOT
from edgenet.remote.ssh import Completed, Connection
from edgenet.stream.listening import Address, parse_listening

UNIT = "edgenet-camera.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
STATE = "/var/lib/edgenet-camera"
PRIVATE_STATE = "/var/lib/private/edgenet-camera"
"""Where systemd really keeps the state of a user that exists only while the service does."""
TOKEN = f"{STATE}/page-token"
RECORD = f"{STATE}/camera.json"
SUDO = ("sudo", "-n")
GROUPS = ("video", "render")
"""That cameras and processors of graphics belong to; a unit may only name those that exist."""
NEEDS_NEW_CODE = ("openvino",)
"""Runtimes that write machine code while they run, and do not load where that is forbidden."""
BACK_OFF_SINCE = 254
"""The systemd that knows how to wait longer each time."""
BACK_OFF = ("RestartSec=2", "RestartSteps=6", "RestartMaxDelaySec=60")
STEADY_PAUSE = ("RestartSec=10",)
FIRST_PORT = 1024
LOOK_TIMEOUT_S = 60.0
START_TIMEOUT_S = 300.0
"""More than the unit's own limits for an end and a start together."""

LOOK = f"""
[ -d /run/systemd/system ] && echo booted yes
systemctl --version 2>/dev/null | awk 'NR == 1 {{ print "version", $2 }}'
for group in {" ".join(GROUPS)}; do
    getent group "$group" >/dev/null && echo "group $group"
done
if [ "$(id -u)" -eq 0 ]; then echo root yes; fi
for path in {UNIT_FILE} {STATE} {SERVICE_ROOT}; do
    if [ -e "$path" ] || [ -L "$path" ]; then echo "there $path"; fi
done
set -- $SSH_CONNECTION
echo "address $3"
echo "user $(id -un)"
"""
WRITE = f"""
set -e
umask 022
cat >{UNIT_FILE}.new
grep -qsF "venvs/$1." {UNIT_FILE} || rm -rf {PRIVATE_STATE}/bytecode
mv {UNIT_FILE}.new {UNIT_FILE}
systemctl daemon-reload
systemctl enable --quiet {UNIT}
"""
"""Its argument is the environment: bytecode of another one is of no use any more. What is cut off
leaves the unit as it was."""
TELL = f"""
printf 'status '; systemctl show -P StatusText {UNIT}
printf 'token '; cat {TOKEN}
"""
REMOVE = f"""
if [ -e {UNIT_FILE} ]; then systemctl disable --quiet --now {UNIT}; fi
rm -rf {UNIT_FILE} {UNIT_FILE}.d {UNIT_FILE}.new {PRIVATE_STATE} {STATE}
systemctl daemon-reload
systemctl reset-failed --quiet {UNIT} 2>/dev/null
exit 0
"""


@dataclass(frozen=True, kw_only=True)
class ServiceWishes:
    """How the camera shall run."""

    view: Address
    """Where its page is."""
    options: tuple[str, ...] = ()
    """More words for `edgenet camera`."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a board offers a service."""

    host: str
    user: str
    is_root: bool
    """Whether the user is root."""
    booted: bool
    """Whether systemd runs the board."""
    version: int | None
    """Of systemd."""
    groups: tuple[str, ...]
    address: str
    """Of the board, as this connection found it."""
    there: tuple[str, ...]
    """What is there of a service already: unit, state, folder of programs and bundles."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service that has labelled its first frame."""

    unit: str
    command: tuple[str, ...]
    status: str
    """What it said of itself last, in words."""
    url: str
    """Of the page, with its token."""
    tunnel: str | None
    """The command without which nobody reaches the page; None where it is on the network."""


def service_wishes(view: str, options: Sequence[str]) -> ServiceWishes:
    """Return what `--view` and the words behind `--` ask for; raises `UsageError`."""
    address = parse_listening(view, option="--view")
    if address.port < FIRST_PORT:
        raise UsageError(
            f"--view {view}: a service has no rights beyond its own and needs the same port each "
            f"time: take one from {FIRST_PORT} on"
        )
    return ServiceWishes(view=address, options=tuple(options))


def look(connection: Connection) -> Place:
    """Return what the board offers, in one round trip; changes nothing."""
    done = connection.run(["sh", "-c", LOOK], timeout_s=LOOK_TIMEOUT_S)
    facts: dict[str, list[str]] = {}
    for line in done.stdout.decode(errors="replace").splitlines():
        kind, _, rest = line.partition(" ")
        facts.setdefault(kind, []).append(rest)
    version = facts.get("version", [""])[0]
    return Place(
        host=connection.host,
        user=facts.get("user", [""])[0],
        is_root="root" in facts,
        booted="booted" in facts,
        version=int(version) if version.isdecimal() else None,
        groups=tuple(facts.get("group", ())),
        address=facts.get("address", [""])[0],
        there=tuple(facts.get("there", ())),
    )


def require_root(connection: Connection, place: Place, doing: str) -> tuple[str, ...]:
    """Return the words that make a command root's; `doing` is what for.

    Only asked where root is needed: sudo leaves a file in the home of whoever calls it first.
    Raises `DeployRefused` that names the way to get there.
    """
    if place.is_root:
        return ()
    if connection.run([*SUDO, "true"], timeout_s=LOOK_TIMEOUT_S).status:
        sudoers = f"/etc/sudoers.d/{place.user}-edgenet"
        allow = f"echo '{place.user} ALL=(ALL) NOPASSWD: ALL' | sudo tee {sudoers}"
        raise DeployRefused(
            f"{place.host}: {doing} needs root there, and sudo asks {place.user} for a password; "
            f"allow it for the time being with: ssh -t {place.host} {shlex.quote(allow)} (and "
            f"afterwards: sudo rm {sudoers}), or log in as root"
        )
    return SUDO


def require_systemd(place: Place) -> None:
    """Raise `DeployRefused` where nothing would start a service."""
    if not place.booted:
        raise DeployRefused(
            f"{place.host}: is not run by systemd, so nothing there starts at power-on; leave out "
            "--service"
        )


def plan_line(place: Place, *, removing: bool = False) -> str:
    """Return in one line what will be done as root."""
    how = "as root" if place.is_root else "with sudo"
    if removing:
        return f"{place.host}: {how} the service is ended, and removed: {', '.join(place.there)}"
    return (
        f"{place.host}: {how} it fills {SERVICE_ROOT}, writes {UNIT_FILE} and starts it; its user, "
        f"which is made for it, writes {STATE} alone"
    )


def install(
    connection: Connection,
    place: Place,
    wishes: ServiceWishes,
    *,
    as_root: Sequence[str],
    bundle_folder: str,
    environment: str,
    runtimes: Sequence[str],
) -> Service:
    """Write the unit for a bundle that is deployed, start it and wait for its first label.

    `as_root` are the words of `require_root`. Raises `DeployRefused` where it does not come: what
    the camera said is in it, and the service goes on trying.
    """
    words = (
        *(f"{SERVICE_ROOT}/current/bin/edgenet", "camera", bundle_folder),
        *("--view", wishes.view.text, "--token-file", TOKEN, "--output", RECORD, *wishes.options),
    )
    text = unit_text(words, place, environment=environment, runtimes=runtimes)
    write = [*as_root, "sh", "-c", WRITE, "edgenet", environment]
    written = connection.run(write, stdin=text.encode())
    _require(written, f"{place.host}: {UNIT_FILE} cannot be written")
    started = connection.run([*as_root, "systemctl", "restart", UNIT], timeout_s=START_TIMEOUT_S)
    if started.status:
        raise DeployRefused(
            f"{place.host}: no label yet ({_last_words(connection, as_root)}); the service stays "
            f"and goes on trying: sudo systemctl status {UNIT}"
        )
    told = _told(connection, as_root)
    return Service(
        unit=UNIT_FILE,
        command=words,
        status=told.get("status", ""),
        url=_url(wishes.view, place.address, told.get("token", "")),
        tunnel=_tunnel(wishes.view, place.host),
    )


def remove(connection: Connection, place: Place, *, as_root: Sequence[str]) -> tuple[str, ...]:
    """End the service, remove its unit and its state; return what was there of them."""
    found = tuple(path for path in place.there if path != SERVICE_ROOT)
    if found:
        done = connection.run([*as_root, "sh", "-c", REMOVE], timeout_s=START_TIMEOUT_S)
        _require(done, f"{place.host}: the service cannot be removed")
    return found


def unit_text(
    words: Sequence[str], place: Place, *, environment: str, runtimes: Sequence[str]
) -> str:
    """Return the unit that runs `words` of an environment, for what the board offers."""
    template = (files("edgenet.targets") / "linux" / UNIT).read_text("utf-8")
    knows_back_off = place.version is not None and place.version >= BACK_OFF_SINCE
    return filled(
        template,
        {
            "ENVIRONMENT": environment,
            "COMMAND": " ".join(map(quoted, words)),
            "RESTART": "\n".join(BACK_OFF if knows_back_off else STEADY_PAUSE),
            "GROUPS": " ".join(place.groups),
            "NO_NEW_CODE": "no" if set(runtimes) & set(NEEDS_NEW_CODE) else "yes",
        },
    )


def filled(template: str, values: Mapping[str, str]) -> str:
    """Return a unit with what stands between @ replaced; comments stay as they are."""
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], template)


def quoted(word: str) -> str:
    """Return a word of a command as it stands in a unit: nothing in it means anything there."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    if re.search(r"[\x00-\x1f\x7f]", word):
        raise UsageError(f"{word!r}: has a character that no unit can hold; leave it out")
    return plain if re.fullmatch(r"[A-Za-z0-9_./:=,@+-]+", word) else f'"{plain}"'


def _told(connection: Connection, as_root: Sequence[str]) -> dict[str, str]:
    done = connection.run([*as_root, "sh", "-c", TELL], timeout_s=LOOK_TIMEOUT_S)
    lines = (line.partition(" ") for line in done.stdout.decode(errors="replace").splitlines())
    return {kind: rest for kind, _, rest in lines}


def _last_words(connection: Connection, as_root: Sequence[str]) -> str:
    """Return the last that the camera itself said, without what systemd said of it."""
    journal = ("journalctl", f"_SYSTEMD_UNIT={UNIT}", "-n", "1", "-o", "cat", "--no-pager")
    done = connection.run([*as_root, *journal], timeout_s=LOOK_TIMEOUT_S)
    said = done.stdout.decode(errors="replace").strip().splitlines()
    return said[-1].removeprefix("edgenet: ") if said else "it said nothing"


def _url(view: Address, address: str, token: str) -> str:
    shown = replace(view, host=address) if view.is_every and address else view
    return f"http://{shown.text}/?token={token}"


def _tunnel(view: Address, host: str) -> str | None:
    if not view.is_loopback:
        return None
    return f"ssh -N -L {view.port}:{view.text} {shlex.quote(host)}"


def _require(done: Completed, what: str) -> None:
    if done.status:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DeployRefused(f"{what} ({said})")
