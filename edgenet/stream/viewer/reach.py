"""By which addresses and names a browser reaches the page. Knows no page."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

from edgenet.stream.listening import LOOPBACK, Address

SIOCGIFADDR = 0x8915


def reachable_hosts(address: Address) -> tuple[str, ...]:
    """Return under which hosts a browser finds the address, the likeliest first."""
    if not address.is_every:
        return (address.host,)
    others = [host for host in _own_addresses() if not ipaddress.ip_address(host).is_loopback]
    return (*others, LOOPBACK)


def names_of_this_machine() -> tuple[str, ...]:
    """Return the names that a browser on the network may put into its Host header."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return tuple(dict.fromkeys(["localhost", name, short, f"{short}.local"]))


def _own_addresses() -> list[str]:
    """Return the addresses of this machine, that of the route to the world first."""
    found = [
        *_towards(socket.AF_INET, "192.0.2.1"),
        *(host for _, name in socket.if_nameindex() for host in _of_interface(name)),
        *_towards(socket.AF_INET6, "2001:db8::1"),
    ]
    return list(dict.fromkeys(found))


def _towards(family: socket.AddressFamily, documentation_address: str) -> list[str]:
    """Return the address that packets would leave from; a UDP socket that connects sends none."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((documentation_address, 9))
            return [probe.getsockname()[0]]
    except OSError:
        return []


def _of_interface(name: str) -> list[str]:
    """Return the IPv4 address of a network interface that has one and is a real device."""
    if not Path("/sys/class/net", name, "device").exists():
        return []  # bridges of containers, which no browser comes through
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        except OSError:
            return []
    return [socket.inet_ntoa(answer[20:24])]
