"""What normalize wants of ingest: state in the hash `md:want:{p}`, written in normalize's transactions. [contract]

ingest reads the hash whole at start, each 30 s and when `md:request:{p}` wakes it, does each (key, number) once,
and tells the end of it in the raw stream (`RequestData`). normalize alone decides what it was worth: it takes the
want back, or wants it anew under the next number.
"""

from typing import Literal, NamedTuple

import msgspec


class Want(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`what`: snapshot (the order book by REST), resync (subscribe to the order book anew on `connection`), trades
    (those of the numbers `first` … `last` of `epoch`, inclusive, printed between `from_time` and `to_time` in ns;
    without `last` up to the newest that the exchange has, of which it is asked for no more than one page).

    A want of trades may shrink under the same number while their pages come. `number` rises each time it is wanted
    anew; `since` is the stream's `received` (ns) at which it was first wanted; `reason` is for people: first, gap,
    checksum, crossed, exhausted ….
    """

    what: Literal["snapshot", "resync", "trades"]
    instrument: str
    number: int
    since: int
    reason: str
    connection: str | None = None
    epoch: int = 0
    first: int | None = None
    last: int | None = None
    from_time: int | None = None
    to_time: int | None = None


def snapshot_key(instrument: str) -> str:
    """`snapshot BTCUSDT`."""
    return f"snapshot {instrument}"


def trades_key(instrument: str, epoch: int, first: int) -> str:
    """`trades BTC-USDT 0 123`: `first` is the number at which the gap began, for as long as it is open."""
    return f"trades {instrument} {epoch} {first}"


def newest_key(instrument: str, epoch: int, first: int) -> str:
    """`newest BTC-USDT 0 123`: whether there are trades from number `first` on."""
    return f"newest {instrument} {epoch} {first}"


class TradesKey(NamedTuple):
    """What the key of a want of trades says, of a gap or of the newest."""

    instrument: str
    epoch: int
    first: int


def trades_of(key: str | None) -> TradesKey | None:
    """What the key says, or None when it is not that of a want of trades."""
    return _read("trades", key)


def newest_of(key: str | None) -> TradesKey | None:
    """What the key says, or None when it is not that of a want of the newest trades."""
    return _read("newest", key)


def resync_key(instrument: str, connection: str) -> str:
    """`resync BTC-USDT wss://…#3`."""
    return f"resync {instrument} {connection}"


def _read(word: str, key: str | None) -> TradesKey | None:
    parts = (key or "").split(" ")
    if len(parts) != 4 or parts[0] != word or not (parts[2].isdecimal() and parts[3].isdecimal()):
        return None
    return TradesKey(parts[1], int(parts[2]), int(parts[3]))
