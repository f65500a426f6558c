"""A bundle goes to a board: look at it, install the light runner, copy what it runs, verify there.

Every step can be cut off and taken up again. What was in use stays in use until the new is whole.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from edgenet import __version__
from edgenet.board.target import Target
from edgenet.bundle import Artifact, Bundle, Precision
from edgenet.errors import DeployRefused
from edgenet.manifest import part_document
from edgenet.remote import service as services
from edgenet.remote.installed import DIGITS, HOME_FOLDER, SERVICE_ROOT, bundle_folder
from edgenet.remote.sending import (
    Content,
    PipFailed,
    Receiving,
    content_of,
    content_of_bytes,
    receiving,
)
from edgenet.remote.service import Service, ServiceWishes
from edgenet.remote.ssh import Connection
from edgenet.remote.survey import BoardPython, Survey, survey
from edgenet.remote.wheels import (
    BOARD_EXTRAS,
    NoWheel,
    Platform,
    RunnerWheel,
    board_files,
    fetch,
    requirements,
    runner_wheel,
    runtime_extras,
    unpacked_bytes,
    why_pip_failed,
)

SCHEMA_VERSION = "1.0"
SPARE_BYTES = 50 * 10**6
"""A system whose disk is full to the last byte works no more."""
PIP_ROOM_BYTES = 400 * 10**6
"""For what the board's pip fetches and unpacks, which is known only afterwards."""
VERIFY_TIMEOUT_S = 900.0
OLD_NUMPY = "numpy<2"
"""What a system's own compiled packages, Picamera2's for one, work with where its numpy is 1."""
INDEX_TIMEOUT_S = "10"


class Progress(Protocol):
    """Shows what is being done."""

    def step(self, description: str, *, total: int = 1) -> Callable[[], None]:
        """Begin a step of so many parts; the function returned marks one as done."""

    def warn(self, message: str) -> None:
        """Show one line of warning."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a deployment was asked to do."""

    runtimes: tuple[str, ...] = ()
    """None: the first that the board's target prefers and that can be had."""
    precisions: tuple[Precision, ...] = ()
    offline: bool = False
    """Carry wheels along even where the board has a network."""
    root: str = HOME_FOLDER
    through: tuple[str, ...] = ()
    """Words in front of the board's Python that let it write there as another user."""
    target: Target | None = None
    service: ServiceWishes | None = None
    """None for no service; else `root` and `through` are its own."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One part of a deployment, and how long it took."""

    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Package:
    """One distribution on the board."""

    name: str
    version: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What a deployment did, and what the board answered at its end."""

    host: str
    survey: Survey
    python: BoardPython
    root: str
    environment: str
    way: str
    """Where the packages come from, in words."""
    runtimes: tuple[str, ...]
    packages: tuple[Package, ...]
    left_out: Mapping[str, int]
    """Bytes of edgenet that stayed here, by what it is."""
    folder: str
    """The bundle's on the board."""
    artifacts: tuple[Artifact, ...]
    sent_bytes: int
    """Over SSH, without what it adds."""
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    verification: Mapping[str, Any]
    """The document of `edgenet verify` on the board."""
    service: Service | None = None
    """None where nobody asked for it, or where the verification does not hold."""

    @property
    def holds(self) -> bool:
        """Tell whether every artefact answers there as on the host."""
        return bool(self.verification["holds"])


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """One way to give the board its runtimes."""

    runtimes: tuple[str, ...]
    wanted: tuple[str, ...]
    """Requirements without conditions."""
    key: str
    """Over these and what they are for: the same key is the same packages."""


@dataclass(frozen=True, kw_only=True)
class _Installed:
    """The environment that the board has now."""

    choice: _Choice
    way: str
    packages: tuple[Package, ...]
    runner: RunnerWheel

    @property
    def environment(self) -> str:
        return _environment_name(self.choice, self.runner)


@dataclass(kw_only=True)
class _Steps:
    """Times the steps and shows them."""

    host: str
    progress: Progress
    done: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, *, total: int = 1) -> Iterator[Callable[[], None]]:
        started = time.monotonic()
        try:
            yield self.progress.step(f"{self.host}: {name}", total=total)
        finally:  # what failed took its time as well
            self.done.append(Step(name=name, seconds=time.monotonic() - started))


def deploy(
    connection: Connection,
    bundle: Bundle,
    wishes: Wishes,
    progress: Progress,
    *,
    connecting_s: float = 0.0,
) -> Deployment:
    """Return what was done to bring `bundle` to a board, verified there.

    `connecting_s` is how long the connection took to come about. Raises `DeployRefused` where the
    board cannot take it, `UsageError` where the bundle has nothing for the runtimes asked for.
    """
    steps = _Steps(host=connection.host, progress=progress)
    steps.done.append(Step(name="connect", seconds=connecting_s))
    place = None
    if wishes.service is not None:
        place = services.look(connection)
        services.require_systemd(place)
        through = services.require_root(connection, place, "a service")
        wishes = replace(wishes, root=SERVICE_ROOT, through=through)
        progress.warn(services.plan_line(place))
    with steps.step("look at the board") as done:
        found = survey(connection, root=wishes.root, target=wishes.target)
        python = found.python()
        done()
    notes: list[str] = []
    if python.picamera2:
        notes.append("the environment sees the system's packages, for its Picamera2")
    _check_writable(found, wishes)
    with receiving(connection, python.executable, found.root, through=wishes.through) as board:
        installing = _Installing(
            board=board, found=found, python=python, wishes=wishes, steps=steps, notes=notes
        )
        installed = installing.run(bundle)
        artifacts = bundle.select(installed.choice.runtimes, wishes.precisions)
        with steps.step("copy the bundle") as done:
            folder = _copy(board, found.host, bundle, artifacts)
            done()
        board.ask("switch", name=installed.environment)
        board.ask("tidy")
    with steps.step("verify there") as done:
        program = f"{board.root}/venvs/{installed.environment}/bin/edgenet"
        verification = _verify(connection, program, folder)
        done()
    service = None
    if wishes.service is not None and place is not None and verification["holds"]:
        with steps.step("start the service") as done:
            service = services.install(
                connection,
                place,
                wishes.service,
                as_root=wishes.through,
                bundle_folder=folder,
                environment=installed.environment,
                runtimes=installed.choice.runtimes,
            )
            done()
    return Deployment(
        host=connection.host,
        survey=found,
        python=python,
        root=board.root,
        environment=installed.environment,
        way=installed.way,
        runtimes=installed.choice.runtimes,
        packages=installed.packages,
        left_out=installed.runner.left_out,
        folder=folder,
        artifacts=artifacts,
        sent_bytes=connection.sent_bytes,
        steps=tuple(steps.done),
        notes=tuple(notes),
        verification=verification,
        service=service,
    )


def uninstall(
    connection: Connection, wishes: Wishes, *, tell: Callable[[str], None]
) -> tuple[str, ...]:
    """Remove everything that was deployed, the service too; return what was there of it.

    `tell` is told before anything is done as root. Raises `DeployRefused` where that is needed and
    not to be had: then the rest is removed.
    """
    removed = _remove_folder(connection, wishes)
    place = services.look(connection)
    if place.there:
        through = services.require_root(connection, place, "removing the service")
        tell(services.plan_line(place, removing=True))
        removed += services.remove(connection, place, as_root=through)
        removed += _remove_folder(connection, replace(wishes, root=SERVICE_ROOT, through=through))
    return removed


def _remove_folder(connection: Connection, wishes: Wishes) -> tuple[str, ...]:
    found = survey(connection, root=wishes.root)
    if not found.root_exists:
        return ()
    python = found.any_python().executable
    with receiving(connection, python, found.root, through=wishes.through) as board:
        board.ask("remove")
        return (board.root,)


def _why_carried(found: Survey, python: BoardPython) -> str | None:
    """Return why the board cannot fetch its packages itself; None where it may."""
    if found.clock_is_off:
        days = abs(found.clock_ahead_s) / 86400
        way = "ahead of" if found.clock_ahead_s > 0 else "behind"
        return (
            f"the board's clock is {days:.0f} days {way} this machine's: secure connections fail "
            "there, so wheels are carried along; set it (sudo date -s, or a time server)"
        )
    if not found.has_route or python.names_resolve is False:
        return "the board is on no network that resolves names, so wheels are carried along"
    if python.pip is None:
        return "the board has no pip, so wheels are carried along"
    return None


def _check_writable(found: Survey, wishes: Wishes) -> None:
    if not found.writable and not wishes.through:
        raise DeployRefused(
            f"{found.host}: user {found.user} may not write {found.root}; give it that folder, or "
            "log in as another user"
        )


@dataclass(kw_only=True)
class _Installing:
    """The packages of a deployment: which, from where, and whether they are there already."""

    board: Receiving
    found: Survey
    python: BoardPython
    wishes: Wishes
    steps: _Steps
    notes: list[str]

    def run(self, bundle: Bundle) -> _Installed:
        """Install what the board needs for the bundle, or find that it is there."""
        choices = self._choices(bundle)
        described = self.found.installation
        choice = next((it for it in choices if it.key == described.get("packages_key")), None)
        if choice is None:
            return self._first_that_can_be_had(choices)
        runner = runner_wheel(choice.runtimes)
        if _environment_name(choice, runner) == self.found.environment:
            way, packages = "there already", _packages(described)
        else:
            way = "those that were there"
            packages = self._install(choice, runner, like=self.found.environment)
        return _Installed(choice=choice, way=way, packages=packages, runner=runner)

    def _choices(self, bundle: Bundle) -> tuple[_Choice, ...]:
        """Return the ways to give the board a runtime for the bundle, the best first."""
        if self.wishes.runtimes:
            bundle.select(self.wishes.runtimes, self.wishes.precisions)
            sets = _combined([runtime_extras(name) for name in self.wishes.runtimes])
            made = [self._choice(self.wishes.runtimes, extras) for extras in sets]
        else:
            made = [
                self._choice((name,), (extra,))
                for name in self._preferred(bundle)
                for extra in runtime_extras(name)
            ]
        if not made:
            asked = ", ".join(self.wishes.runtimes)
            raise DeployRefused(f"{self.found.host}: edgenet installs no {asked}; choose another")
        return tuple(made)

    def _preferred(self, bundle: Bundle) -> list[str]:
        """Return the runtimes of the board's target for which the bundle has an artefact."""
        target = self.found.board.target
        held = {
            artifact.runtime
            for artifact in bundle.artifacts
            if not artifact.variant
            and (not self.wishes.precisions or artifact.precision in self.wishes.precisions)
        }
        names = [it.name for it in target.runtimes if it.name in held and runtime_extras(it.name)]
        if not names:
            raise DeployRefused(
                f"{self.found.host}: {bundle.root} has artefacts for {', '.join(sorted(held))}, "
                f"{target.title} runs {', '.join(it.name for it in target.runtimes)}; convert "
                "again with one of those"
            )
        return names

    def _choice(self, runtimes: tuple[str, ...], extras: Sequence[str]) -> _Choice:
        wanted = requirements((*BOARD_EXTRAS, *extras), self.python.short)
        if self._keeps_old_numpy:
            wanted = (*wanted, OLD_NUMPY)
        what = [wanted, self._platform.tags, self.python.short, self.python.picamera2]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:DIGITS]
        return _Choice(runtimes=runtimes, wanted=wanted, key=key)

    @property
    def _keeps_old_numpy(self) -> bool:
        return self.python.picamera2 and (self.python.numpy or "2").startswith("1.")

    @property
    def _platform(self) -> Platform:
        if self.python.glibc is None:
            raise DeployRefused(
                f"{self.found.host}: its C library is not glibc, and no runtime has wheels for "
                "another; take a system with glibc, such as Debian"
            )
        return Platform(
            python=self.python.short,
            architecture=self.found.wheel_architecture(self.python),
            glibc=self.python.glibc,
        )

    def _first_that_can_be_had(self, choices: Sequence[_Choice]) -> _Installed:
        missing: list[str] = []
        for choice in choices:
            runner = runner_wheel(choice.runtimes)
            try:
                way, packages = self._from_somewhere(choice, runner)
            except NoWheel as fault:
                missing.append(fault.package)
                continue
            if missing:
                self.notes.append(f"no wheel here for {', '.join(dict.fromkeys(missing))}")
            return _Installed(choice=choice, way=way, packages=packages, runner=runner)
        platform = self._platform
        raise DeployRefused(
            f"{self.found.host}: no wheel of {', '.join(dict.fromkeys(missing))} for Python "
            f"{platform.python} on {platform.architecture} with glibc "
            f"{'.'.join(map(str, platform.glibc))}; choose another runtime with --runtime"
        )

    def _from_somewhere(
        self, choice: _Choice, runner: RunnerWheel
    ) -> tuple[str, tuple[Package, ...]]:
        """Install from the board's index, or else carry wheels along."""
        why_carried = _why_carried(self.found, self.python)
        if not self.wishes.offline and why_carried is None:
            try:
                return "the board's own index", self._install(
                    choice, runner, pip=self._pip_words(choice), room_bytes=PIP_ROOM_BYTES
                )
            except PipFailed as failed:
                why = why_pip_failed(str(failed), "pip on the board")
                if isinstance(why, NoWheel):
                    raise why from None
                why_carried = f"{why}; wheels were carried along"
        with self.steps.step("fetch wheels") as done:
            wheels = fetch(choice.wanted, self._platform)
            done()
        if not self.wishes.offline and why_carried is not None:
            self.notes.append(why_carried)
        return "wheels carried along", self._install(choice, runner, wheels=wheels)

    def _pip_words(self, choice: _Choice) -> list[str]:
        assert self.python.pip is not None
        return [
            *(self.python.executable, *self.python.pip, "install", "--quiet", "--no-compile"),
            *("--only-binary=:all:", "--retries", "1", "--timeout", INDEX_TIMEOUT_S),
            *choice.wanted,
        ]

    def _install(
        self,
        choice: _Choice,
        runner: RunnerWheel,
        *,
        wheels: Sequence[Path] = (),
        like: str | None = None,
        pip: Sequence[str] | None = None,
        room_bytes: int = 0,
    ) -> tuple[Package, ...]:
        """Make the environment of `choice` and return what is in it."""
        own = content_of_bytes(runner.data)
        contents = {**{wheel.name: content_of(wheel) for wheel in wheels}, runner.name: own}
        left = sum(it.size_bytes - there for it, there in self.board.lacks(list(contents.values())))
        unpacked = sum(map(unpacked_bytes, wheels))
        _check_free(self.found.host, self.board, left + unpacked + room_bytes)
        _send(self.board, self.steps, "send packages", tuple(contents.values()))
        with self.steps.step("install packages") as done:
            made = self.board.ask(
                "environment",
                name=_environment_name(choice, runner),
                wheels={name: content.sha256 for name, content in contents.items()},
                like=like,
                pip=pip,
                system_site=self.python.picamera2,
                installation={
                    "schema_version": SCHEMA_VERSION,
                    "edgenet": __version__,
                    "runtimes": choice.runtimes,
                    "packages_key": choice.key,
                },
            )
            done()
        return _packages(made)


def _environment_name(choice: _Choice, runner: RunnerWheel) -> str:
    return hashlib.sha256(f"{choice.key} {runner.sha256}".encode()).hexdigest()[:DIGITS]


def _combined(alternatives: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Return each choice of one extra a runtime; none where a runtime has no extra."""
    made: list[tuple[str, ...]] = [()]
    for extras in alternatives:
        made = [(*chosen, extra) for chosen in made for extra in extras]
    return made


def _packages(described: Mapping[str, Any]) -> tuple[Package, ...]:
    return tuple(Package(**entry) for entry in described.get("packages", ()))


def _check_free(host: str, board: Receiving, new_bytes: int) -> None:
    """Raise `DeployRefused` with both figures where there is no room for so much more."""
    needed_bytes = new_bytes + SPARE_BYTES
    if needed_bytes > board.free_bytes:
        raise DeployRefused(
            f"{host}: {board.free_bytes / 1e6:.0f} MB are free at {board.root}, "
            f"{needed_bytes / 1e6:.0f} MB are needed; make room there"
        )


def _send(board: Receiving, steps: _Steps, name: str, contents: Sequence[Content]) -> None:
    """Send what the board lacks, as a step in megabytes."""
    left = sum(content.size_bytes - there for content, there in board.lacks(contents))
    parts = max(1, left // 10**6)
    shown = 0
    sent = 0
    with steps.step(name, total=parts) as advance:

        def on_bytes(count: int) -> None:
            nonlocal sent, shown
            sent += count
            while shown < min(sent // 10**6, parts - 1):
                advance()
                shown += 1

        board.send(contents, on_bytes=on_bytes)
        advance()


def _copy(board: Receiving, host: str, bundle: Bundle, artifacts: Sequence[Artifact]) -> str:
    """Bring the files of these artefacts, and what every bundle has, to the board."""
    paths = {name: content_of(_inside(bundle, name)) for name in board_files(bundle, artifacts)}
    lacking = board.lacks(tuple(paths.values()))
    _check_free(host, board, sum(content.size_bytes - there for content, there in lacking))
    board.send(tuple(paths.values()))
    at = bundle_folder("", bundle.sha256).lstrip("/")
    return board.place(at, paths, notes={"part.json": part_document(bundle, artifacts)})


def _inside(bundle: Bundle, name: str) -> Path:
    """Return a file of the bundle; raises `DeployRefused` for a link that leads out of it."""
    path = bundle.root / name
    if not path.resolve().is_relative_to(bundle.root.resolve()):
        raise DeployRefused(f"{path}: is a link out of the bundle; put the file itself there")
    return path


def _verify(connection: Connection, edgenet: str, folder: str) -> Mapping[str, Any]:
    """Return what the installed edgenet says of the bundle on the board."""
    done = connection.run([edgenet, "verify", folder, "--json"], timeout_s=VERIFY_TIMEOUT_S)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise DeployRefused(
            f"{connection.host}: everything is there, but edgenet does not run: {said}"
        ) from None
    assert isinstance(found, dict)
    return found
