"""Parts come out whole, however the bytes are cut and whatever the server's dialect is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenet.stream.multipart import LARGEST_HEAD, LARGEST_PART, NotMultipart, Parts

BODIES = [b"\xff\xd8" + bytes(range(256)) * 3 + b"\xff\xd9", b"\xff\xd8--two\r\n\r\n\xff\xd9", b"3"]


def stream(bodies, boundary, *, lengths, close=b""):
    parts = []
    for body in bodies:
        length = f"Content-Length: {len(body)}\r\n" if lengths else ""
        parts.append(f"--{boundary}\r\nContent-Type: image/jpeg\r\n{length}\r\n".encode() + body)
    return b"\r\n".join(parts) + close


def cut(data, sizes):
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


@given(st.lists(st.integers(1, 80), max_size=40), st.booleans())
def test_in_any_pieces(sizes, lengths):
    data = stream(BODIES, "b0", lengths=lengths, close=b"\r\n--b0--\r\n")
    parts = Parts("b0")
    assert [body for piece in cut(data, sizes) for body in parts.feed(piece)] == BODIES


@pytest.mark.parametrize(
    ("said", "sent"), [("b0", "b0"), ("--b0", "b0"), ("--b0", "--b0"), ('"b0"', "b0")]
)
def test_dialects_of_boundaries(said, sent):
    data = stream(BODIES, sent, lengths=True) + f"\r\n--{sent}\r\n".encode()
    assert Parts(said).feed(data) == BODIES


@pytest.mark.parametrize("change", [-5, 5])
def test_a_wrong_length_costs_one_part(change):
    first, second = b"x" * 50, b"y" * 50
    data = stream([first, second, second], "b0", lengths=True)
    data = data.replace(b"Content-Length: 50", f"Content-Length: {50 + change}".encode(), 1)
    assert Parts("b0").feed(data)[-1] == second


def test_what_came_before_the_first_boundary_is_passed_over():
    assert Parts("b0").feed(b"junk\r\n" * 10 + stream([b"x"], "b0", lengths=True)) == [b"x"]


@pytest.mark.parametrize(
    "data",
    [
        b"--b0\r\n" + b"X: y\r\n" * LARGEST_HEAD,
        f"--b0\r\nContent-Length: {LARGEST_PART + 1}\r\n\r\n".encode(),
        b"--b0\r\n\r\n" + bytes(LARGEST_PART + 100),
    ],
)
def test_bytes_without_end_are_refused(data):
    with pytest.raises(NotMultipart):
        Parts("b0").feed(data)


def test_noise_without_a_boundary_does_not_fill_the_memory():
    parts = Parts("b0")
    for _ in range(100):
        assert parts.feed(bytes(10_000)) == []
    assert len(parts._bytes) < 10
