"""Trades that follow each other in the stream, as columns: what nearly all need is worked out for all at once. Pure."""

from collections.abc import Sequence
from decimal import Decimal, DecimalException, localcontext
from itertools import chain
from operator import gt, mul
from typing import NamedTuple

from aggregate.summary import NOTHING, usable
from pipeline.instruments import EXACT
from pipeline.records import Trade

_decimal = EXACT.create_decimal


class Columns(NamedTuple):
    """Trades of one instrument stand together, in their order: `instruments` says where they begin and stop. `places`
    are those in the stream.

    `times` is -1 where a trade needs more than to be added. `firsts` … `nexts` (exclusive) are the numbers it covers.
    """

    instruments: dict[str, tuple[int, int]]
    places: list[int]
    trades: list[Trade]
    times: list[int]
    epochs: list[int]
    firsts: list[int]
    nexts: list[int]
    fills: list[int]
    bought: list[bool]
    sold: list[bool]
    prices: list[Decimal]
    sizes: list[Decimal]
    quotes: list[Decimal]
    contracts: list[Decimal | None] | None


def columns(trades: Sequence[Trade], ahead: int) -> Columns | None:
    """Of trades dated at most `ahead` ns after their arrival. None where any number is not as they usually are: then
    each trade has to be looked at by itself."""
    by_name: dict[str, list[int]] = {}
    for place, name in enumerate([trade.instrument for trade in trades]):
        if name in by_name:
            by_name[name].append(place)
        else:
            by_name[name] = [place]
    places = list(chain.from_iterable(by_name.values()))
    ordered = [trades[place] for place in places]
    numbers = [trade.sequence for trade in ordered]
    firsts = [trade.sequence if trade.first_sequence is None else trade.first_sequence for trade in ordered]
    if firsts != numbers and any(map(gt, firsts, numbers)):
        return None
    try:
        prices, sizes = _decimals([trade.price for trade in ordered]), _decimals([trade.size for trade in ordered])
        contracts = _contracts([trade.contracts for trade in ordered])
        with localcontext(EXACT):
            quotes = list(map(mul, prices, sizes))
            # Where a sum of what is not negative is usable, all of it is.
            if not usable(sum(sizes, NOTHING)) or not usable(sum(quotes, NOTHING)):
                return None
    except (DecimalException, ValueError):
        return None
    bought = [trade.side == "buy" for trade in ordered]
    return Columns(
        instruments=_extents(by_name),
        places=places,
        trades=ordered,
        times=[
            -1 if (time := trade.time) is None or trade.repaired or time - trade.received > ahead else time
            for trade in ordered
        ],
        epochs=[trade.epoch for trade in ordered],
        firsts=firsts,
        nexts=[number + 1 for number in numbers],
        fills=[trade.fills for trade in ordered],
        bought=bought,
        sold=[not buy for buy in bought],
        prices=prices,
        sizes=sizes,
        quotes=quotes,
        contracts=contracts,
    )


def _extents(by_name: dict[str, list[int]]) -> dict[str, tuple[int, int]]:
    extents, stop = {}, 0
    for name, places in by_name.items():
        start, stop = stop, stop + len(places)
        extents[name] = start, stop
    return extents


def _decimals(texts: list[str]) -> list[Decimal]:
    """Raises ValueError or DecimalException where one is not plain digits, or has too many; what has two points becomes
    NaN."""
    if not "".join(texts).replace(".", "").encode().isdigit():
        raise ValueError
    return list(map(_decimal, texts))


def _contracts(texts: list[str | None]) -> list[Decimal | None] | None:
    """None where no trade counts any. Raises as `_decimals`, and where sums are not exact."""
    if not any(texts) and "" not in texts:
        return None
    found = iter(_decimals([text for text in texts if text is not None]))
    contracts = [None if text is None else next(found) for text in texts]
    with localcontext(EXACT):
        if not usable(sum(filter(None, contracts), NOTHING)):
            raise ValueError
    return contracts
