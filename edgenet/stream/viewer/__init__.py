"""The page for boards without a screen, served by a process of its own. Needs the extra `viewer`.

    with Viewer("0.0.0.0:8080") as viewer:
        print(viewer.urls[0])
        ...
        viewer.offer(result, status)

Nobody but this machine reaches it unless another address is asked for, and then only with a token.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import TracebackType

from edgenet.errors import AddressUnavailable, MissingExtra, UsageError
from edgenet.stream.listening import LOOPBACK, Address, listen, parse_listening
from edgenet.stream.onlooker import Onlooker, Times
from edgenet.stream.result import Result
from edgenet.stream.status import Status
from edgenet.stream.viewer.reach import names_of_this_machine, reachable_hosts
from edgenet.stream.viewer.token import SHORTEST_TOKEN, new_token

OPTION = "--view"
DEFAULT = f"{LOOPBACK}:8080"
PACKAGES = ("starlette", "uvicorn", "prometheus_client", "segno")
"""What the extra `viewer` brings; the child imports them."""
MOST_CLIENTS = 8


class Viewer:
    """A page with the newest result. Use it in a `with`: the block begins when it is served."""

    def __init__(
        self, address: str = DEFAULT, *, token: str | None = None, most_clients: int = MOST_CLIENTS
    ) -> None:
        """Listen on `address`, HOST:PORT; beyond this machine a token is made if none is given.

        Raises `UsageError` for what is no address, `AddressUnavailable` for one that is in use,
        `MissingExtra` where the packages of the extra are not installed.
        """
        asked = parse_listening(address, option=OPTION)
        if token is not None and len(token) < SHORTEST_TOKEN:
            raise UsageError(f"a token has {SHORTEST_TOKEN} characters or more, not {len(token)}")
        if token is None and not asked.is_loopback:
            token = new_token()
        for package in PACKAGES:
            if find_spec(package) is None:
                raise MissingExtra(package, "viewer")
        with listen(asked, option=OPTION) as listener:
            self._address = Address(host=asked.host, port=listener.getsockname()[1])
            self._token = token
            self._onlooker = Onlooker(
                "edgenet.stream.viewer.server",
                {
                    "host": asked.host,
                    "port": self._address.port,
                    "token": token,
                    "names": names_of_this_machine(),
                    "most_clients": most_clients,
                },
                inherit=[listener.fileno()],
            )

    def __enter__(self) -> Viewer:
        self._onlooker.__enter__()
        if self._onlooker.fault is not None:
            self.close()
            raise AddressUnavailable(
                f"the page at {self._address.text} is not served: {self._onlooker.fault}"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def urls(self) -> tuple[str, ...]:
        """Return where the page is found, with its token, the likeliest first."""
        query = "" if self._token is None else f"?token={self._token}"
        return tuple(
            f"http://{Address(host=host, port=self._address.port).text}/{query}"
            for host in reachable_hosts(self._address)
        )

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return where the page is found, without its token, the likeliest first."""
        return tuple(url.partition("?")[0] for url in self.urls)

    @property
    def on_network(self) -> bool:
        """Tell whether others than this machine can reach it."""
        return not self._address.is_loopback

    @property
    def wanted(self) -> bool:
        """Tell whether anybody looks on just now, so that a status is worth its making."""
        return self._onlooker.wanted

    @property
    def fault(self) -> str | None:
        """Return why the page is gone, in words; None while it is served."""
        return self._onlooker.fault

    @property
    def times(self) -> Times:
        """Return what drawing and encoding took so far, in the page's process."""
        return self._onlooker.times

    @property
    def pid(self) -> int:
        """Return the number of the process that serves it."""
        return self._onlooker.pid

    def offer(self, result: Result | None, status: Status) -> None:
        """Show the newest result; never waits and never fails the run.

        None where there is no new result, such as while the source stalls: the status still goes.
        """
        self._onlooker.offer(result, status)

    def close(self) -> None:
        """Stop serving; may be called twice."""
        self._onlooker.close()
