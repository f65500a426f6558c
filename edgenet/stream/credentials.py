"""User and password of a URL, and how to answer a server that asks for them (RFC 7616, 7617)."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
"""Cameras offer MD5 to this day; it is their choice and not ours."""


@dataclass(frozen=True, kw_only=True)
class Login:
    """What a URL says before the @."""

    user: str
    password: str = field(repr=False)


def login_of(url: str) -> Login | None:
    """Return user and password of a URL; None where it has none."""
    parts = urlsplit(url)
    if parts.username is None:
        return None
    return Login(user=unquote(parts.username), password=unquote(parts.password or ""))


def authorization(challenges: Iterable[str], login: Login, method: str, uri: str) -> str | None:
    """Return the value of `Authorization` for what a server asked; None where we cannot answer.

    Digest is preferred: the password itself does not cross the network.
    """
    asked = list(challenges)
    for challenge in asked:
        scheme, _, rest = challenge.strip().partition(" ")
        if scheme.lower() == "digest" and (answer := _digest(rest, login, method, uri)):
            return f"Digest {answer}"
    if any(re.match(r"(?i)\s*basic\b", challenge) for challenge in asked):
        pair = f"{login.user}:{login.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"
    return None


def _digest(challenge: str, login: Login, method: str, uri: str) -> str | None:
    said_once = [one for one in parse_http_list(challenge) if re.match(r".+=.", one)]
    asked = parse_keqv_list(said_once)
    algorithm = asked.get("algorithm", "MD5").upper()
    offered = [one.strip() for one in asked.get("qop", "").split(",") if one.strip()]
    if algorithm not in HASHES or "nonce" not in asked or (offered and "auth" not in offered):
        return None

    def hashed(*parts: str) -> str:
        return HASHES[algorithm](":".join(parts).encode()).hexdigest()

    realm, nonce = asked.get("realm", ""), asked["nonce"]
    who, what = hashed(login.user, realm, login.password), hashed(method, uri)
    said = {"username": login.user, "realm": realm, "nonce": nonce, "uri": uri}
    plain = {}
    if "algorithm" in asked:
        plain["algorithm"] = asked["algorithm"]
    if offered:
        once = secrets.token_hex(8)
        said |= {"cnonce": once, "response": hashed(who, nonce, "00000001", once, "auth", what)}
        plain |= {"qop": "auth", "nc": "00000001"}
    else:
        said["response"] = hashed(who, nonce, what)
    if "opaque" in asked:
        said["opaque"] = asked["opaque"]
    quoted = {key: '"' + value.replace('"', '\\"') + '"' for key, value in said.items()}
    return ", ".join(f"{key}={value}" for key, value in (quoted | plain).items())
