"""What ingest needs of an exchange: what to subscribe, how to answer, what to poll. Sans-I/O.

A Feed is text in, text out. It never parses market data: of a data frame it reads no more than
the prefix that says which subscription it belongs to.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec


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


class Plan(msgspec.Struct, frozen=True):
    """One connection wanted: the path below the exchange's WebSocket URL and what to subscribe there.
    `greeting` is sent first."""

    path: str
    subscriptions: tuple[Subscription, ...]
    greeting: tuple[str, ...] = ()


class Request(msgspec.Struct, frozen=True):
    """One REST request: path and query below the REST URL, and the name of the allowance it draws on."""

    path: str
    allowance: str


class Data(msgspec.Struct, frozen=True):
    """Market data; of which subscription, where the prefix says so."""

    subscription: Subscription | None = None


class Pong(msgspec.Struct, frozen=True):
    """The answer to our ping: proof of life, not data."""


class Ask(msgspec.Struct, frozen=True):
    """The exchange wants `answer` now."""

    answer: str


class Accepted(msgspec.Struct, frozen=True):
    """A subscription is in force."""

    subscription: Subscription


class Refused(msgspec.Struct, frozen=True):
    """A request, or one subscription of it, was turned down. `temporary`: worth asking again soon."""

    reason: str
    request: str | None = None
    subscription: Subscription | None = None
    temporary: bool = False


class Notice(msgspec.Struct, frozen=True):
    """The exchange will soon close this connection."""

    reason: str


class Other(msgspec.Struct, frozen=True):
    """Anything else; it goes into the raw stream like all the rest."""


Event = Data | Pong | Ask | Accepted | Refused | Notice | Other


class Feed(Protocol):
    """One exchange. Times are ns, sizes bytes."""

    name: str
    keepalive: Keepalive
    connects: Rate
    """New connections, per address of ours."""
    requests: Rate
    """Subscribe requests, per connection."""
    allowances: Mapping[str, Rate]
    """REST requests, by the name a Request gives."""
    clock_step: int
    """How coarse the exchange tells its time."""

    def native(self, symbol: str) -> str:
        """The exchange's own id of a symbol, canonical or native, in either case."""

    def subscriptions(self, instrument: str, data_types: Iterable[str]) -> tuple[Subscription, ...]:
        """What to subscribe for the data types of an instrument."""

    def plans(self, wanted: Sequence[Subscription]) -> list[Plan]:
        """The connections that carry these subscriptions."""

    def batches(self, wanted: Sequence[Subscription]) -> list[tuple[Subscription, ...]]:
        """Groups that fit into one request each."""

    def subscribe(self, request: str, batch: Sequence[Subscription]) -> str:
        """The text of a subscribe request; `request` (letters and digits) is echoed in its answers."""

    def classify(self, text: str) -> Event:
        """What a text frame is. Never raises."""

    def listings(self, instruments: Iterable[str]) -> list[Request]:
        """The requests whose answers list these instruments."""

    def time(self) -> Request:
        """The request that asks the exchange's clock."""

    def read_time(self, body: str) -> int:
        """The exchange's clock (ns UTC) in the answer to `time`, at the middle of its step. Raises ExchangeError."""

    def fault(self, status: int, body: str) -> Refused | None:
        """What is wrong with a REST answer, or None."""
