"""Commands that labels start: real ones."""

import os
import time
from pathlib import Path

import pytest

from edgenet.errors import UsageError
from edgenet.stream.actions import Actions, parse_rule
from tests.stream.test_delivery import make_event, settle

LABELS = ("background", "tabby, tabby cat", "tiger cat", "Egyptian cat", "crane", "crane")


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("tabby=true", ["tabby, tabby cat"]),
        ("tabby cat=true", ["tabby, tabby cat"]),
        ("tabby, tabby cat=true", ["tabby, tabby cat"]),
        ("crane=true", ["crane"]),
        ("unknown=true", ["unknown"]),
        ("*=true", ["tabby, tabby cat", "tiger cat", "Egyptian cat", "crane", "unknown"]),
    ],
)
def test_which_labels_a_rule_meets(text, met):
    rule = parse_rule(text, LABELS)
    assert [label for label in (*LABELS[1:5], "unknown") if rule.meets(label)] == met


def test_the_command_may_hold_anything():
    rule = parse_rule("crane=env A=b 'c d' \"=\"", LABELS)
    assert rule.command == ("env", "A=b", "c d", "=")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tabby", "give LABEL=COMMAND"),
        ("=true", "give LABEL=COMMAND"),
        ("tabby=", "give LABEL=COMMAND"),
        ("tabby='", "No closing quotation"),
        ("tabby=no-such-program -x", "there is no program 'no-such-program'"),
        ("taby=true", "did you mean tabby"),
        ("zzz=true", "the bundle has no such label"),
    ],
)
def test_no_rules(text, told):
    with pytest.raises(UsageError, match=told):
        parse_rule(text, LABELS)


def actions_of(*texts):
    return Actions([parse_rule(text, LABELS) for text in texts])


def test_a_command_learns_what_happened(tmp_path):
    """No shell reads the label: it comes in the environment, whatever is in it."""
    out = tmp_path / "out"
    actions = actions_of(f"*=sh -c 'env >{out}.part; mv {out}.part {out}'")
    actions.deliver(make_event("$(reboot); `x` \"'", 7))
    settle(out.exists)
    actions.close()
    lines = out.read_text().splitlines()
    assert "EDGENET_LABEL=$(reboot); `x` \"'" in lines
    assert "EDGENET_SEQUENCE=7" in lines
    assert "EDGENET_PREVIOUS=" in lines
    assert "EDGENET_CLOCK=sensor" in lines
    assert (actions.started, actions.skipped, actions.failed) == (1, 0, 0)


def test_slow_commands_do_not_pile_up_and_do_not_wait():
    actions = actions_of("*=sleep 30", "crane=sleep 30")
    started = time.monotonic()
    for _ in range(50):
        actions.deliver(make_event("tiger cat"))
    actions.deliver(make_event("crane"))
    assert time.monotonic() - started < 2
    assert (actions.started, actions.skipped) == (2, 50)
    actions.close()
    assert time.monotonic() - started < 3


def test_a_command_runs_again_after_it_has_ended():
    actions = actions_of("*=true")
    for count in range(1, 4):
        actions.deliver(make_event())
        assert actions.started == count
        settle(lambda: not actions._running)
    actions.close()


def test_what_fails_is_counted():
    actions = actions_of("*=false", "*=true")
    actions.deliver(make_event())
    settle(lambda: actions.failed == 1)
    actions.close()


def test_a_command_that_is_gone_meanwhile(tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    actions = actions_of(f"*={program}", "*=true")
    program.unlink()
    with pytest.raises(FileNotFoundError):
        actions.deliver(make_event())
    assert (actions.started, actions.failed) == (1, 1)
    actions.close()


def group_members(leader):
    """Return the processes of a group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = stat.read_text().partition(" (")
        except OSError:
            continue
        state, _, group = rest.rpartition(") ")[2].split()[:3]
        if int(group) == leader and state not in "ZX":
            found.append(int(pid))
    return found


def test_the_end_leaves_no_process(tmp_path):
    """Neither what was started, nor what that has started, nor what does not obey."""
    ready = tmp_path / "ready"
    actions = actions_of(f"*=sh -c 'trap \"\" TERM; sleep 77 & touch {ready}; wait; sleep 78'")
    actions.deliver(make_event())
    settle(ready.exists)
    (process,) = actions._running.values()
    assert len(group_members(process.pid)) == 2
    started = time.monotonic()
    actions.close()
    assert time.monotonic() - started < 3
    assert not Path(f"/proc/{process.pid}").exists(), "a zombie is left"
    settle(lambda: not group_members(process.pid))  # what is killed takes a moment to be gone
    actions.deliver(make_event())
    assert actions.started == 1, "nothing starts after the end"


def test_what_a_command_prints_goes_to_stderr(tmp_path, capfd):
    actions = actions_of("*=echo hello")
    actions.deliver(make_event())
    settle(lambda: not actions._running)
    actions.close()
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "hello\n")


def test_a_terminal_is_not_shared():
    """Ctrl-C must reach us alone, so a command has a session of its own and no standard input."""
    actions = actions_of("*=sleep 30")
    actions.deliver(make_event())
    (process,) = actions._running.values()
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert Path(f"/proc/{process.pid}/fd/0").readlink() == Path("/dev/null")
    actions.close()
