"""Why a connection over the network does not come about, in words."""

from __future__ import annotations

import errno
import socket
import ssl

CONNECT_S = 3.0


def why_not(error: OSError | UnicodeError) -> str:
    """Return what a failed connection means and what to do about it.

    `UnicodeError` is what Python makes of a host's name that cannot be one.
    """
    if isinstance(error, TimeoutError):
        return f"no answer in {CONNECT_S:g} s; is the host on and in this network?"
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "no host of that name is known; check it, or give its address"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message}); use http://, or install it"
        )
    if isinstance(error, ssl.SSLError):
        return "it does not speak TLS there; use http:// or rtsp://"
    reasons = {
        errno.ECONNREFUSED: "connection refused; is the server running, and is the port right?",
        errno.EHOSTUNREACH: "the host cannot be reached; is it on and in this network?",
        errno.ENETUNREACH: "there is no network to that host; check this machine's network",
        errno.ECONNRESET: "the server closed the connection at once; does it let more clients in?",
    }
    return reasons.get(error.errno or 0, f"no connection ({error.strerror or error})")


NO_LOGIN = "wants a user and a password; write {scheme}://USER:PASSWORD@HOST/..."
WRONG_LOGIN = "refuses the user and password in the URL; check them (in them, @ is written %40)"


def why_unauthorised(scheme: str, *, had_login: bool) -> str:
    """Return what the answer 401 means."""
    return WRONG_LOGIN if had_login else NO_LOGIN.format(scheme=scheme)
