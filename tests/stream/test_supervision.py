"""What a service manager hears of a run, through a real socket as systemd's is."""

import os
import socket
import threading
import time

import pytest
from runs import result

from edgenet.board.target import load_target
from edgenet.errors import AddressUnavailable, DeviceUnavailable
from edgenet.measure.profile import null_artifact
from edgenet.stream.sources import open_source
from edgenet.stream.supervision import Supervision, supervision_of
from edgenet.stream.watch import Plan, watch


class Manager:
    """The manager's socket."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{self.path[1:]}" if self.path[0] == "@" else self.path)
        self.socket.setblocking(False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def heard(self):
        """Return the lines of every message since."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return messages


class Source:
    """What the run's reader would say."""

    def __init__(self, trouble=None, rounds=0):
        self.trouble, self.rounds = trouble, rounds


class HandClock:
    def __init__(self):
        self.s = 100.0

    def __call__(self):
        return self.s


@pytest.fixture
def manager(tmp_path):
    with Manager(tmp_path / "notify") as manager:
        yield manager


@pytest.fixture
def clock():
    return HandClock()


def see(supervision, found, source, *, fault=None, rate=9.5):
    supervision.see(found, source, page_fault=lambda: fault, rate=lambda: rate)


def test_the_first_label_makes_it_ready(manager, clock):
    supervision, source = Supervision(manager.path, watchdog_s=4, now=clock), Source()
    for _ in range(20):
        clock.s += 0.25
        see(supervision, None, source)
    assert manager.heard() == []
    see(supervision, result(0), source)
    ((ready, ping, status),) = manager.heard()
    assert (ready, ping) == ("READY=1", "WATCHDOG=1")
    assert status.startswith("STATUS=red 90 %, age ")
    assert status.endswith(" ms, 9.5 labels/s")
    clock.s += 10
    see(supervision, result(1), source)
    assert all("READY=1" not in lines for lines in manager.heard())


def test_the_watchdog_hears_of_labels_and_of_nothing_else(manager, clock):
    supervision, source = Supervision(manager.path, watchdog_s=4, now=clock), Source()
    for sequence in range(80):
        clock.s += 0.1
        see(supervision, result(sequence), source)
    pings = [lines for lines in manager.heard() if "WATCHDOG=1" in lines]
    assert 6 <= len(pings) <= 9, "four in four seconds, whatever the rate of the labels"
    for _ in range(40):  # the loop goes on and no frame comes, though nothing is said to be wrong
        clock.s += 0.25
        see(supervision, None, source)
    assert sum("WATCHDOG=1" in lines for lines in manager.heard()) <= 1, "for the labels before"


def test_a_source_that_is_tried_again_counts_as_alive_and_one_that_hangs_does_not(manager, clock):
    supervision, source = Supervision(manager.path, watchdog_s=4, now=clock), Source()
    see(supervision, result(0), source)
    manager.heard()
    source.trouble = "no picture for 3.0 s: unplugged"
    for _ in range(40):
        clock.s += 0.25
        source.rounds += 1
        see(supervision, None, source)
    heard = manager.heard()
    assert sum("WATCHDOG=1" in lines for lines in heard) == 10
    assert any("STATUS=no picture for 3.0 s: unplugged" in lines for lines in heard)
    for _ in range(40):  # its thread is stuck in the driver
        clock.s += 0.25
        see(supervision, None, source)
    assert sum("WATCHDOG=1" in lines for lines in manager.heard()) <= 1


def test_without_its_page_it_is_not_alive(manager, clock):
    supervision, source = Supervision(manager.path, watchdog_s=4, now=clock), Source()
    see(supervision, result(0), source)
    manager.heard()
    for sequence in range(1, 40):
        clock.s += 0.25
        see(supervision, result(sequence), source, fault="its process was ended by SIGKILL")
    heard = manager.heard()
    assert all("WATCHDOG=1" not in lines for lines in heard)
    assert ["STATUS=the page is gone: its process was ended by SIGKILL"] in heard


def test_nobody_is_pinged_who_has_set_no_watchdog(manager, clock):
    supervision, heard = Supervision(manager.path, now=clock), []
    for sequence in range(100):
        clock.s += 1
        see(supervision, result(sequence), Source(), rate=None)
        heard += manager.heard()
    assert "READY=1" in heard[0]
    assert len(heard) == 50, "a status every two seconds"
    assert all("WATCHDOG=1" not in lines for lines in heard)
    assert heard[-1][0].endswith(" ms"), "no rate is known"


def test_its_end(manager):
    supervision = Supervision(manager.path)
    supervision.ending("it was asked to end")
    assert manager.heard() == [["STOPPING=1", "STATUS=it was asked to end"]]
    watched = Supervision(manager.path, watchdog_s=4)
    watched.ending("the source ended")
    assert manager.heard() == [["STOPPING=1", "WATCHDOG=1", "STATUS=the source ended"]]
    supervision.ending("again")
    see(supervision, result(0), Source())
    assert manager.heard() == []


def test_a_manager_that_does_not_listen_does_not_fail_the_run(tmp_path, clock):
    """Ready is told again until it is heard."""
    path = tmp_path / "later"
    supervision = Supervision(str(path), now=clock)
    see(supervision, result(0), Source())
    with Manager(path) as manager:
        see(supervision, result(1), Source())
        assert "READY=1" in manager.heard()[0]
    see(supervision, result(2), Source())
    supervision.ending("it was asked to end")


def test_an_abstract_name_and_what_is_none(clock):
    with Manager(f"@edgenet-test-{os.getpid()}") as manager:
        see(Supervision(manager.path, now=clock), result(0), Source())
        assert "READY=1" in manager.heard()[0]
    with pytest.raises(AddressUnavailable, match="NOTIFY_SOCKET=vsock:2:1: a service"):
        Supervision("vsock:2:1")


@pytest.mark.parametrize(
    ("named", "pinged"),
    [
        ({"WATCHDOG_USEC": "4000000"}, True),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({}, False),
    ],
)
def test_what_the_environment_says(manager, named, pinged):
    environment = {"NOTIFY_SOCKET": manager.path, "HOME": "/", **named}
    see(supervision_of(environment), result(0), Source())
    (lines,) = manager.heard()
    assert ("WATCHDOG=1" in lines) is pinged
    assert environment == {"HOME": "/"}, "no command that the run starts may speak for it"


def test_without_a_manager_nothing_is_asked():
    def never():
        raise AssertionError

    supervision = supervision_of({})
    supervision.see(result(0), Source(), page_fault=never, rate=never)
    supervision.ending("it was asked to end")


class Unplugged:
    """A live source that is there for some frames, then gone for good or for ever in `read`."""

    def __init__(self, frames, then):
        self._inner, self._left, self._then = open_source("synthetic://?fps=50"), frames, then

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def read(self):
        if self._left == 0:
            return self._then()
        self._left -= 1
        return self._inner.read()


def run(bundle, manager, source, stopped):
    class Quiet:
        def begun(self, *_): ...
        def went_on(self, *_): ...
        def failed(self, *_): ...
        def alarmed(self, *_): ...

    plan = Plan(
        source=source,
        preprocessing=bundle.preprocessing,
        supervision=Supervision(manager.path, watchdog_s=0.4),
    )
    target = load_target("x86")
    return watch(
        bundle, [null_artifact(bundle)], plan, target=target, stopped=stopped, told=Quiet()
    )


def pings_late_in(bundle, manager, then, *, finished=lambda: None):
    """Return what is heard from two seconds after it was ready until four, and what after that."""
    ready_at, late = None, []

    def stopped():
        nonlocal ready_at
        heard = manager.heard()
        if ready_at is None:
            ready_at = time.monotonic() if heard else None
            return False
        late.extend(heard if time.monotonic() > ready_at + 2 else [])
        if time.monotonic() < ready_at + 4:
            return False
        finished()
        return True

    openings = iter([lambda: Unplugged(30, then)])

    def opened():
        return next(openings, gone)()

    assert run(bundle, manager, opened, stopped).labelled >= 1
    return late, manager.heard()


def gone():
    raise DeviceUnavailable("unplugged")


def test_a_run_whose_camera_is_gone_stays_alive(small_bundle, manager):
    late, last = pings_late_in(small_bundle, manager, gone)
    assert any("WATCHDOG=1" in lines for lines in late)
    assert any(line.startswith("STATUS=no picture for") for lines in late for line in lines)
    assert last == [["STOPPING=1", "WATCHDOG=1", "STATUS=it was asked to end"]]


def test_a_run_whose_reader_hangs_does_not(small_bundle, manager):
    let_go = threading.Event()

    def hang():
        let_go.wait(30)
        return gone()

    late, _ = pings_late_in(small_bundle, manager, hang, finished=let_go.set)
    assert late == []
