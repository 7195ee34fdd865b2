"""The simulator's control endpoint: ask for faults, pause the market, print a last trade, ask what it sees."""

import json
import urllib.error
import urllib.request
from typing import Any

from pipeline.errors import ServerAway

TIMEOUT = 5.0


class Market:
    """The simulator at `url` (its control endpoint). Every call raises ServerAway when it does not answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        # Loopback never goes through a proxy of the environment.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def state(self) -> dict[str, Any]:
        return self._ask(f"{self._url}/state", None)

    def cut(self) -> int:
        """Cuts every connection without a word; how many there were."""
        return len(self._command({"fault": "disconnect"}, before=True))

    def books(self, depth: int) -> dict[str, Any]:
        """Instrument to its order book now: `bids` and `asks`, [price, size] best first."""
        return dict(self._ask(f"{self._url}/books?depth={depth}", None)["books"])

    def pause(self) -> None:
        self._command({"pause": True})

    def fault(self, name: str, **arguments: Any) -> None:
        """A fault of docs/simulator.md, now."""
        self._command({"fault": name, **arguments})

    def print_one(self, instrument: str) -> None:
        """One more order on the instrument, now."""
        self.print_orders(instrument, 1)

    def print_orders(self, instrument: str, count: int) -> None:
        """So many more orders on the instrument, now."""
        self._command({"print": count, "instrument": instrument})

    def _command(self, asked: dict[str, Any], *, before: bool = False) -> list[Any]:
        connections = self.state()["connections"] if before else []
        self._ask(self._url, asked)
        return list(connections)

    def _ask(self, url: str, body: dict[str, Any] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return dict(json.load(answer))
        except (OSError, urllib.error.URLError) as error:
            raise ServerAway(f"the simulator does not answer: {error}") from error
