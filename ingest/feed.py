"""What ingest needs of an exchange: what to subscribe, how to answer, what to poll. Sans-I/O.

A Feed is text in, text out. It never parses market data: of a data frame it reads no more than
the prefix that says which subscription it belongs to, of a list of instruments no more than their names.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple, Protocol

import msgspec

from pipeline.wants import Want

JSON_FAULTS = (msgspec.DecodeError, UnicodeEncodeError, RecursionError)
"""What decoding JSON that an exchange sent may raise."""


class Subscription(NamedTuple):
    """One channel of one instrument, in the exchange's own words."""

    channel: str
    instrument: str


class Rate(msgspec.Struct, frozen=True):
    """At most `count` in any `period` (ns)."""

    count: int
    period: int


class Keepalive(msgspec.Struct, frozen=True):
    """After `silence` (ns) without a frame `ping` is sent as text; another `deadline` (ns) without one and
    the connection is dead. Where `ping` is None, WebSocket pings are used."""

    ping: str | None
    silence: int
    deadline: int


class Route(msgspec.Struct, frozen=True):
    """The kind of connection a subscription needs: the path below the exchange's WebSocket URL, and at most `most`
    subscriptions on it. Subscriptions of one route share connections. `greeting` is sent first."""

    path: str
    group: str
    most: int
    greeting: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """One connection wanted."""

    route: Route
    subscriptions: tuple[Subscription, ...]


class Request(msgspec.Struct, frozen=True):
    """One REST request: path and query below the REST URL, the name of the allowance it draws on, and how much."""

    path: str
    allowance: str
    weight: int = 1


class Listed(NamedTuple):
    """One line of a list of instruments. `symbol` is canonical, the same that normalize gives it."""

    instrument: str
    symbol: str
    trading: bool


class Data(msgspec.Struct, frozen=True):
    """Market data; of which subscription, where the prefix says so."""

    subscription: Subscription | None = None


class Pong(msgspec.Struct, frozen=True):
    """The answer to our ping: proof of life, not data."""


class Ask(msgspec.Struct, frozen=True):
    """The exchange wants `answer` now."""

    answer: str


class Accepted(msgspec.Struct, frozen=True):
    """A subscription is in force, or all of a request where only that is named. Where the exchange answers
    subscribing and unsubscribing alike, the request tells which it was."""

    subscription: Subscription | None = None
    request: str | None = None


class Ended(msgspec.Struct, frozen=True):
    """A subscription is no longer in force, as we asked."""

    subscription: Subscription


class Refused(msgspec.Struct, frozen=True):
    """A request, or one subscription of it, was turned down. `temporary`: worth asking again soon, but not before
    `pause` (ns) where the exchange demands one. `unknown`: the exchange has no such instrument."""

    reason: str
    request: str | None = None
    subscription: Subscription | None = None
    temporary: bool = False
    pause: int = 0
    unknown: bool = False


class Notice(msgspec.Struct, frozen=True):
    """The exchange will soon close this connection."""

    reason: str


class Other(msgspec.Struct, frozen=True):
    """Anything else; it goes into the raw stream like all the rest."""


Event = Data | Pong | Ask | Accepted | Ended | Refused | Notice | Other


class Numbers(msgspec.Struct, frozen=True):
    """The lowest and the highest number on a page of trades, and how many there are; None on an empty one."""

    lowest: int | None
    highest: int | None
    count: int

    def reaches(self, first: int, last: float) -> bool:
        """Whether it goes into these."""
        return self.lowest is not None and self.highest is not None and self.lowest <= last and self.highest >= first


class Row(NamedTuple):
    """One trade of a page, or of a daily file. `time` in ns."""

    number: int
    time: int


class Archive(msgspec.Struct, frozen=True):
    """The daily files of trades of an exchange: each a zip of one CSV, oldest trade first, with its SHA-256 beside it,
    as `sha256sum` writes it. `path(instrument, day)` and that of its `checksum` are below the root of files; `read`
    gives the trade of a line, raises ValueError. Days begin at midnight UTC. `delay` (ns): how long after its day a
    file is worth asking for."""

    path: Callable[[str, date], str]
    checksum: Callable[[str, date], str]
    read: Callable[[bytes], Row]
    delay: int


class History(Protocol):
    """Trades wanted, fetched page by page: says what to ask next, and what the pages so far cover of them."""

    behind: int
    """How often in a row the exchange did not list what it must have: each time wait longer before `next`."""

    def next(self) -> Request | None:
        """The next request, the same until `take` has its answer; None when there is nothing more to ask."""

    def take(self, body: str) -> Numbers:
        """Reads the answer to `next`; no numbers where they cannot be those wanted. Raises ExchangeError for what is
        no page; it may be asked again."""

    def cover(self, first: int, last: int) -> None:
        """These numbers came in another way, each of them: no page needs to have them."""

    @property
    def spans(self) -> tuple[int, int] | None:
        """First and last of the numbers wanted that the pages cover, whether the exchange had them all or not."""


def counted(prefixes: Iterable[str], topics: Mapping[str, Data]) -> list[tuple[Subscription | None, int]] | None:
    """How often each subscription is named, by the prefixes of its data; None where one is not known."""
    counts: dict[str, int] = {}
    for prefix in prefixes:
        counts[prefix] = counts.get(prefix, 0) + 1
    try:
        return [(topics[prefix].subscription, count) for prefix, count in counts.items()]
    except KeyError:
        return None


class Feed(Protocol):
    """One exchange. Times are ns, sizes bytes."""

    name: str
    keepalive: Keepalive
    connects: Rate
    """New connections, per address of ours."""
    requests: Rate
    """Subscribe and unsubscribe requests, per connection."""
    allowances: Mapping[str, Rate]
    """REST requests, by the name a Request gives: one for each limit of the exchange."""
    lifetime: int | None
    """The age at which a connection is replaced, before the exchange ends it; None where it does not."""
    clock_step: int
    """How coarse the exchange tells its time."""
    strict: bool
    """Whether the exchange itself refuses instruments it does not have. Where it accepts them and stays silent,
    nothing is subscribed before the list has it."""
    book_channels: frozenset[str]
    """The channels that carry order books."""
    horizon: int | None
    """How long after a trade it can surely be fetched by REST; None: for ever."""
    fetches: Rate
    """How many trades can be fetched so, at best."""
    archive: Archive | None
    """Its daily files of trades, where they have the same trades to the last digit."""

    def native(self, symbol: str) -> str:
        """The exchange's own id of a symbol, canonical or native, in either case, as far as spelling tells."""

    def channels(self, data_type: str, timeframes: Sequence[str]) -> tuple[str, ...]:
        """The channels that give a data type (a kind of pipeline.exchanges); none for time frames it lacks."""

    def route(self, subscription: Subscription) -> Route:
        """The connection it needs."""

    def batches(self, wanted: Sequence[Subscription]) -> list[tuple[Subscription, ...]]:
        """Groups that fit into one request each."""

    def subscribe(self, request: str, batch: Sequence[Subscription]) -> str:
        """The text of a subscribe request; `request` (letters and digits) is echoed in its answers."""

    def unsubscribe(self, request: str, batch: Sequence[Subscription]) -> str:
        """The text of an unsubscribe request, as `subscribe`."""

    def classify(self, text: str) -> Event:
        """What a text frame is. Never raises."""

    def counts(self, texts: Sequence[str]) -> list[tuple[Subscription | None, int]] | None:
        """How many of the texts are data of which subscription; None where `classify` has to look at them, for it does
        not know the prefix of one yet, or it is no data."""

    def listings(self, symbols: Iterable[str]) -> list[Request]:
        """The requests whose answers list these instruments, native ids or patterns (`*`: all there is)."""

    def listed(self, body: str) -> list[Listed]:
        """The instruments in the answer to one of `listings`; lines that cannot be read are left out.
        Raises ExchangeError for what is no list."""

    def time(self) -> Request:
        """The request that asks the exchange's clock."""

    def read_time(self, body: str) -> int:
        """The exchange's clock (ns UTC) in the answer to `time`, at the middle of its step. Raises ExchangeError."""

    def snapshot(self, instrument: str) -> Request:
        """The request whose answer is the order book."""

    def history(self, want: Want, now: int) -> History:
        """How to fetch the trades wanted, at `now` (ns UTC); `want` names `first`, and `last` where that is known."""

    def fault(self, status: int, body: str) -> Refused | None:
        """What is wrong with a REST answer, or None."""

    def used(self, headers: Mapping[str, str]) -> Mapping[str, int]:
        """Allowance to how much of it the exchange says is used now; of those it tells. Keys in either case."""
