"""Order books by hand that are live already, of a venue that sends snapshots and of one that is asked for them."""

from typing import Any

from pipeline.wants import snapshot_key
from tests.normalize.booking import SPOT, Binance, Okx, Play, change, ns, snapshot

SNAPSHOT = snapshot_key("BTC-USDT")
ladder = " ".join


def okx(previous: int, last: int, bids: str = "", asks: str = "", **fields: Any) -> Any:
    return change(bids, asks, previous=previous, last=last, **fields)


def begun(rule: Any = None, instrument: Any = SPOT, **fields: Any) -> Play:
    """A book of OKX that is live at 10 since second 0."""
    play = Play(rule or Okx(), instrument)
    play.update(snapshot(previous=-1, last=10, time=ns(0), **fields), 0)
    return play


def joined(asked: int = 1000, bids: str = "100@1 99@1", asks: str = "101@1 102@1") -> Play:
    """A book of Binance that is live at 10 since second 0."""
    play = Play(Binance())
    play.update(spot(5, 10, "90@1"), 0)
    play.request("asked", 0)
    play.answer(snapshot(bids, asks, last=10, asked=asked), 0)
    assert play.wants == {}
    return play


def spot(first: int, last: int, bids: str = "", asks: str = "", **fields: Any) -> Any:
    return change(bids, asks, first=first, last=last, **fields)
