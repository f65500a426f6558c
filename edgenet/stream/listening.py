"""Where this machine listens: the page's address, and a playlist's. Knows neither.

Every function takes the option that the address was given with, for its messages.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass

from edgenet.errors import AddressUnavailable, UsageError

LOOPBACK = "127.0.0.1"
ANY_PORT = f"{LOOPBACK}:0"
"""Any that is free, on this machine alone."""
LARGEST_PORT = 65535
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


def parse_listening(text: str, *, option: str) -> Address:
    """Return the address that `text` names: HOST:PORT, [IPv6]:PORT, or PORT on this machine alone.

    Raises `UsageError` for anything else. A port without a host but with its colon is none: half of
    all programs mean every address by it.
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        host = LOOPBACK
    elif host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not (port.isascii() and port.isdigit()) or int(port) > LARGEST_PORT:
        raise UsageError(
            f"{option} {text!r} is no address to listen on; write HOST:PORT, such as "
            f"{LOOPBACK}:8080, or 0.0.0.0:8080 for every address of this machine; a port is 0 to "
            f"{LARGEST_PORT}"
        )
    return Address(host=host, port=int(port))


def listen(address: Address, *, option: str) -> socket.socket:
    """Return a socket that listens; `AddressUnavailable` says why it cannot."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, name = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressUnavailable(
            f"cannot listen on {address.text}: no such host ({error.strerror}); give {option} an "
            "address of this machine"
        ) from None
    try:
        # Connections of a run before, on their way out, are no reason to refuse.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(name)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressUnavailable(_refusal(address, error, option)) from None
    return listener


def _refusal(address: Address, error: OSError, option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {address.port} on {address.host} is in use by another program; choose another "
            f"port with {option} (port 0 takes any that is free)"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{address.host} is no address of this machine, so port {address.port} cannot be "
            f"listened on; give {option} {LOOPBACK}:{address.port}, or 0.0.0.0:{address.port} for "
            "all that it has"
        )
    if error.errno == errno.EACCES:
        return f"port {address.port} is for the system alone; choose one above 1023 with {option}"
    return f"cannot listen on {address.text}: {error.strerror}; choose another with {option}"
