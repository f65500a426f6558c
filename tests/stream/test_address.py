"""URIs of sources: what they mean, what is refused, and that no password is ever shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenet.errors import UsageError
from edgenet.stream.address import parse_address, shown


@pytest.mark.parametrize(
    ("uri", "kind", "target"),
    [
        ("0", "v4l2", "/dev/video0"),
        ("/dev/video3", "v4l2", "/dev/video3"),
        ("v4l2://1", "v4l2", "/dev/video1"),
        ("v4l2:///dev/video0?size=1280x720&fps=30&fourcc=MJPG", "v4l2", "/dev/video0"),
        ("csi://", "csi", "0"),
        ("csi://1", "csi", "1"),
        ("rtsp://h/s", "rtsp", "rtsp://h/s"),
        ("HTTP://h:81/s.mjpg?fps=3", "mjpeg", "HTTP://h:81/s.mjpg?fps=3"),
        ("synthetic://", "synthetic", ""),
    ],
)
def test_what_a_uri_means(uri, kind, target):
    address = parse_address(uri)
    assert (address.kind, address.target) == (kind, target)


def test_options_are_read():
    options = parse_address("v4l2:///dev/video0?size=1280x720&fps=29.97&fourcc=MJPG").options
    assert (options.size, options.fps, options.fourcc) == ((1280, 720), 29.97, "MJPG")


def test_paths(tmp_path):
    file = tmp_path / "what?.mp4"
    file.write_bytes(b"")
    assert parse_address(str(file)).kind == "file"
    assert parse_address(f"{file}?loop=1").options.loop
    assert parse_address(f"file://{tmp_path}").kind == "folder"
    assert parse_address(f"{tmp_path}?fps=5").options.fps == 5


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("nothing/here.mp4", "no such file or folder"),
        ("", "is an empty word"),
        ("gopher://h/s", "unknown source"),
        ("synthetic://?size=640", "WIDTHxHEIGHT"),
        ("synthetic://?size=4x4", "WIDTHxHEIGHT"),
        ("synthetic://?fps=0", "a rate above 0"),
        ("synthetic://?fps=nan", "a rate above 0"),
        ("synthetic://?frames=-1", "a number from 1 on"),
        ("synthetic://?fps=3&fps=4", "twice"),
        ("synthetic://?rate=3", "unknown option 'rate'; this source takes size, fps, frames"),
        ("v4l2:///dev/video0?fourcc=MJPEG", "four letters"),
        ("csi://front", "csi://0"),
        ("synthetic://front", "takes options alone"),
        ("rtsp://", "has no host"),
        ("rtsp://u:secret@h:x/s", "is no address"),
    ],
)
def test_what_is_refused(uri, words):
    with pytest.raises(UsageError, match=r".") as caught:
        parse_address(uri)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("rtsp://u:secret@h:554/s", "rtsp://h:554/s"),
        ("rtsp://u:se/c@ret@h/s", "rtsp://h/s"),
        ("http://h/v.cgi?user=u&pwd=secret&q=1", "http://h/v.cgi?user=...&pwd=...&q=1"),
        ("rtsp://h/user=u&password=secret&channel=1", "rtsp://h/user=...&password=...&channel=1"),
        ("http://h/s?access_token=secret", "http://h/s?access_token=..."),
        ("/home/u@h/x.mp4", "/home/u@h/x.mp4"),
    ],
)
def test_what_is_shown(uri, expected):
    assert shown(uri) == expected


@given(user=st.text("ab:/?#@%", max_size=5), password=st.text("SECRT/@:%&= ", min_size=6))
def test_no_password_is_shown(user, password):
    """Even where somebody forgot to encode it."""
    assert password not in shown(f"rtsp://{user}:{password}@host/path").removeprefix("rtsp:/")
