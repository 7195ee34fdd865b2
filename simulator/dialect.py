"""What the server needs of an exchange's dialect. Sans-I/O: text and time go in, text and verdicts come out."""

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

import msgspec

from simulator.market import Market, Order

Topic = tuple[str, str]
"""(channel, instrument id): what a session can be subscribed to."""


class Close(msgspec.Struct, frozen=True):
    """End the connection with this WebSocket close code."""

    code: int
    reason: str = ""


class Ping(msgspec.Struct, frozen=True):
    """A WebSocket ping frame; the client is to echo the payload."""

    payload: bytes


Reply = str | Close | Ping


class Frame(msgspec.Struct, frozen=True):
    """One data frame for every session subscribed to `topic`; `ids` are the fills in it (empty: not trades).

    `update` marks an increment of an order book: (number the book had before, number it has after), as the
    exchange numbers it. Equal: nothing changed.
    """

    topic: Topic
    text: str
    ids: tuple[int, ...] = ()
    update: tuple[int, int] | None = None


class BookView(msgspec.Struct, frozen=True):
    """A book as its subscribers have it; `version` is the exchange's own number of it, [price, size] its texts."""

    version: int
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


class Response(msgspec.Struct, frozen=True):
    """An HTTP answer; `content`, where there is one, is sent as it is, instead of the text."""

    status: int
    body: str
    headers: dict[str, str] = {}
    content: bytes | None = None


class Session(Protocol):
    """One WebSocket connection as the exchange sees it."""

    name: str
    topics: set[Topic]

    def receive(self, text: str, now: int) -> list[Reply]:
        """Answer one text frame of the client's at `now` (ns)."""

    def heard(self, kind: Literal["ping", "pong"], payload: bytes, now: int) -> list[Reply]:
        """Answer a control frame of the client's, beyond the pong every ping gets."""

    def spelled(self, frame: Frame) -> str:
        """A frame of a topic as this connection is sent it."""

    def sent(self, now: int) -> None:
        """Something was pushed to the client at `now`."""

    def tick(self, now: int) -> list[Reply]:
        """What is due by time alone."""

    def notice(self) -> str:
        """The frame that announces a planned close."""


class Dialect(Protocol):
    """One exchange: its paths, its sessions, its frames and its REST answers. `channels` are what a topic may name.

    Its module also gives `dialect(market, spells, limits)`, `instrument_id(listing)`, `lists(listing)`: whether
    the exchange has such an instrument at all, and `terms(listing)`: the listing with the exchange's own steps.
    """

    market: Market
    ws_prefix: str
    channels: frozenset[str]

    def instrument(self, symbol: str) -> str:
        """The exchange's own id of a listing."""

    def symbol(self, instrument: str) -> str | None:
        """The listing an id names, or None."""

    def connect(self, address: str, now: int) -> bool:
        """May this address open one more connection now?"""

    def serves(self, path: str) -> bool:
        """Is there a WebSocket at this path?"""

    def open(self, path: str, now: int, query: str = "") -> Session:
        """A new session on a path it serves; `query` is the URL's, not decoded."""

    def printed(self, order: Order, wanted: Iterable[Topic]) -> list[Frame]:
        """Take note of an order and give its frames, in order, for the topics somebody wants."""

    def due(self, wanted: Iterable[Topic], now: int, flush: bool = False) -> list[Frame]:
        """Frames due by time: bars, books, quotes, tickers. `flush`: book changes do not wait for their cadence."""

    def books(self, depth: int | None) -> dict[str, BookView]:
        """By instrument, the best `depth` levels (all without it) of the book that a client has who applied all
        that was pushed so far on the incremental channel; what waits for its cadence is not in it."""

    def reset(self, instrument: str) -> None:
        """Let the numbers of the instrument's book begin anew; SettingsError where the exchange does no such thing."""

    def corrupt(self, frame: Frame, variant: str) -> str:
        """The frame's text made wrong in one of the ways `simulator.faults.VARIANTS` names."""

    def respond(self, path: str, query: Mapping[str, str], address: str, now: int) -> Response:
        """Answer one GET request."""
