"""What the server needs of an exchange's dialect. Sans-I/O: text and time go in, text and verdicts come out."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from simulator.market import Market, Order

Topic = tuple[str, str]
"""(channel, instrument id): what a session can be subscribed to."""


class Close(msgspec.Struct, frozen=True):
    """End the connection with this WebSocket close code."""

    code: int
    reason: str = ""


Reply = str | Close


class Frame(msgspec.Struct, frozen=True):
    """One data frame for every session subscribed to `topic`; `ids` are the fills in it (empty: not trades)."""

    topic: Topic
    text: str
    ids: tuple[int, ...] = ()


class Response(msgspec.Struct, frozen=True):
    """An HTTP answer."""

    status: int
    body: str


class Session(Protocol):
    """One WebSocket connection as the exchange sees it."""

    name: str
    topics: set[Topic]

    def receive(self, text: str, now: int) -> list[Reply]:
        """Answer one text frame of the client's at `now` (ns)."""

    def sent(self, now: int) -> None:
        """Something was pushed to the client at `now`."""

    def tick(self, now: int) -> list[Reply]:
        """What is due by time alone."""

    def notice(self) -> str:
        """The frame that announces a planned close."""


class Dialect(Protocol):
    """One exchange: its paths, its sessions, its frames and its REST answers."""

    market: Market
    ws_prefix: str
    paths: frozenset[str]

    def instrument(self, symbol: str) -> str:
        """The exchange's own id of a listing."""

    def symbol(self, instrument: str) -> str | None:
        """The listing an id names, or None."""

    def connect(self, address: str, now: int) -> bool:
        """May this address open one more connection now?"""

    def open(self, path: str, now: int) -> Session:
        """A new session on one of `paths`."""

    def printed(self, order: Order, wanted: Iterable[Topic]) -> list[Frame]:
        """Take note of an order and give its frames, in order, for the topics somebody wants."""

    def due(self, wanted: Iterable[Topic], now: int) -> list[Frame]:
        """Frames due by time alone (bars)."""

    def corrupt(self, frame: Frame, variant: str) -> str:
        """The frame's text made wrong in one of the ways `simulator.faults.VARIANTS` names."""

    def respond(self, path: str, query: Mapping[str, str], address: str, now: int) -> Response:
        """Answer one GET request."""
