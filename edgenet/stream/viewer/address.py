"""Where the page listens, and by which names it is reached. Knows no page."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from edgenet.errors import AddressUnavailable, UsageError

DEFAULT = "127.0.0.1:8080"
SIOCGIFADDR = 0x8915
BACKLOG = 64


@dataclass(frozen=True, kw_only=True)
class Address:
    """A host and a port to listen on."""

    host: str
    port: int
    """0 takes any that is free."""

    @property
    def text(self) -> str:
        """Return it as one writes it in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Tell whether nobody beyond this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_every(self) -> bool:
        """Tell whether it stands for every address of this machine."""
        return self.host in ("0.0.0.0", "::")  # noqa: S104 - asked for by the user


def parse_address(text: str) -> Address:
    """Return the address that `text` names: HOST:PORT, [IPv6]:PORT, or PORT on this machine alone.

    Raises `UsageError` for anything else.
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        host = "127.0.0.1"
    elif host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(
            f"--view {text!r} is no address to listen on; write HOST:PORT, such as {DEFAULT}, or "
            "0.0.0.0:8080 for every address of this machine"
        )
    return Address(host=host, port=int(port))


def listen(address: Address) -> socket.socket:
    """Return a socket that listens; `AddressUnavailable` names the port where that fails."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, name = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressUnavailable(
            f"cannot listen on {address.text}: no such host ({error.strerror}); "
            "give an address of this machine"
        ) from None
    try:
        # Connections of a run before, on their way out, are no reason to refuse.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(name)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressUnavailable(_refusal(address, error)) from None
    return listener


def _refusal(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {address.port} on {address.host} is in use by another program; "
            "choose another port with --view (port 0 takes any that is free)"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{address.host} is no address of this machine, so port {address.port} cannot be "
            "listened on; use 127.0.0.1, or 0.0.0.0 for all that it has"
        )
    if error.errno == errno.EACCES:
        return f"port {address.port} is for the system alone; choose one above 1023 with --view"
    return f"cannot listen on {address.text}: {error.strerror}"


def reachable_hosts(address: Address) -> tuple[str, ...]:
    """Return under which hosts a browser finds the address, the likeliest first."""
    if not address.is_every:
        return (address.host,)
    others = [host for host in _own_addresses() if not ipaddress.ip_address(host).is_loopback]
    return (*others, "127.0.0.1") if others else ("127.0.0.1",)


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
