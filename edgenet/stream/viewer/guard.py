"""Who may ask for what: host, method, path and token, before anything else looks at a request."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgenet.stream.listening import Address

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
NOT_KNOWN = "no token, or a wrong one; open the address that edgenet printed, with its ?token="


class Guard:
    """Lets requests through to `app` that may be answered, and marks every answer as private.

    The Host header has to be one of this machine, so that no page of another site reaches it under
    a name of its own (DNS rebinding). On the network any bare address will do as well: behind it
    there is no name that somebody else could point here.
    """

    def __init__(
        self, app: ASGIApp, *, address: Address, names: Sequence[str], token: str | None
    ) -> None:
        self._app = app
        own = ["127.0.0.1", "::1", "[::1]", "localhost"]
        self._named = TrustedHostMiddleware(
            self._authorised,
            allowed_hosts=own if address.is_loopback else [*own, *names, address.host],
            www_redirect=False,
        )
        self._any_bare_address = not address.is_loopback
        self._token = token
        self._cookie_name = f"edgenet_{address.port}"
        self._session = secrets.token_urlsafe(16)
        """In the browser's cookie, so that the token itself is stored nowhere."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        if scope["type"] != "http":
            return
        refusal = _refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, marked)
        elif self._any_bare_address and _is_bare_address(_header(scope, b"host")):
            await self._authorised(scope, receive, marked)
        else:
            await self._named(scope, receive, marked)

    async def _authorised(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._token is None or self._knows_session(scope):
            await self._app(scope, receive, send)
        elif self._knows_token(scope, self._token):
            await self._app(scope, receive, self._with_cookie(send))
        else:
            await PlainTextResponse(NOT_KNOWN, 401, {"WWW-Authenticate": "Bearer"})(
                scope, receive, send
            )

    def _knows_session(self, scope: Scope) -> bool:
        try:
            cookie = SimpleCookie(_header(scope, b"cookie")).get(self._cookie_name)
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, self._session)

    def _knows_token(self, scope: Scope, token: str) -> bool:
        """Tell whether the token is in the URL or, as Prometheus sends it, in a header."""
        kind, _, bearer = _header(scope, b"authorization").partition(" ")
        if kind.lower() == "bearer" and _same(bearer.strip(), token):
            return True
        query = parse_qs(scope["query_string"].decode("latin-1"))
        return any(_same(value, token) for value in query.get("token", []))

    def _with_cookie(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Not a redirect: a browser that comes from elsewhere would follow it without the
                # cookie. The page takes the token out of its address by itself.
                MutableHeaders(scope=message).append(
                    "Set-Cookie",
                    f"{self._cookie_name}={self._session}; Path=/; HttpOnly; SameSite=Strict",
                )
            await send(message)

        return sending


def _refusal(scope: Scope) -> PlainTextResponse | None:
    if scope["method"] != "GET":
        return PlainTextResponse("only GET", 405, {"Allow": "GET"})
    path, raw = scope["path"], scope.get("raw_path", b"").decode("latin-1")
    if ".." in path or ".." in raw or "\\" in path or "\0" in path:
        return PlainTextResponse("no such path", 400)
    if _header(scope, b"sec-fetch-site") == "cross-site" and (
        _header(scope, b"sec-fetch-mode") != "navigate"
    ):
        return PlainTextResponse("not for pages of other sites", 403)
    return None


def _header(scope: Scope, name: bytes) -> str:
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _is_bare_address(host: str) -> bool:
    """Tell whether a Host header is an IP address, with or without a port."""
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        if rest and not (rest[0] == ":" and rest[1:].isdigit()):
            return False
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
        if not port.isdigit():
            return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _same(given: str, expected: str) -> bool:
    """Compare without telling by the time it takes how much was right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())
