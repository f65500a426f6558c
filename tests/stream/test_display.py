"""Whether windows can be had; the screen itself is in test_window and test_playlist."""

import pytest

from edgenet.errors import DeviceUnavailable
from edgenet.stream.display import require_display, says_windows


def test_build_information():
    assert says_windows("  GUI:                           QT5\n")
    assert not says_windows("  GUI:                           NONE\n")
    assert not says_windows("  GUI: \n")
    assert says_windows("")


@pytest.mark.parametrize(("name", "why"), [("", "no display here"), (":987", "without windows")])
def test_why_there_is_none(monkeypatch, name, why):
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", name)
    with pytest.raises(DeviceUnavailable, match=rf"{why}.*; .*do without$"):
        require_display("do without")
