"""Addresses to listen on: what is one, who reaches it, and why it cannot be had."""

import socket

import pytest

from edgenet.errors import AddressUnavailable, UsageError
from edgenet.stream.listening import Address, listen, parse_listening


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("9000", ("127.0.0.1", 9000)),
        ("[::1]:80", ("::1", 80)),
        ("raspberrypi.local:1", ("raspberrypi.local", 1)),
    ],
)
def test_addresses(text, expected):
    found = parse_listening(text, option="--view")
    assert (found.host, found.port) == expected


@pytest.mark.parametrize("text", ["", ":80", "host:", "host:x", "::1:80", "h:70000", "h:-1", "h:٣"])
def test_no_addresses(text):
    with pytest.raises(UsageError, match=r"^--listen "):
        parse_listening(text, option="--listen")


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("pi", False)],
)
def test_what_nobody_else_reaches(host, alone):
    assert Address(host=host, port=1).is_loopback == alone


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_it_listens_on_a_free_port(host):
    with listen(Address(host=host, port=0), option="--view") as listener:
        socket.create_connection(listener.getsockname()[:2], timeout=5).close()


def test_a_port_in_use_is_one_line_with_the_port_and_the_option():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressUnavailable) as caught:
            listen(Address(host="127.0.0.1", port=port), option="--listen")
    assert f"port {port} on 127.0.0.1 is in use" in str(caught.value)
    assert "with --listen" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_of_another_machine():
    with pytest.raises(AddressUnavailable, match=r"192\.0\.2\.7 is no address of this machine"):
        listen(Address(host="192.0.2.7", port=8080), option="--view")
    with pytest.raises(AddressUnavailable, match=r"no such host .* give --view an address"):
        listen(Address(host="no-such-host.invalid", port=8080), option="--view")
