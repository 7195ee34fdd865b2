"""How long a trade takes at a paced load: from the frame's arrival to aggregate's commit, to the committed row, and
from a second's end to its candle."""

import contextlib
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.instance import Instance
from bench.observer import Plan, Sample, Seen
from bench.part import Figure, Figures, Terms, medians
from bench.product import VENUE, Product, collecting
from bench.proof import prove
from pipeline.probes.redis import call
from pipeline.steps import StreamId, stream_id
from pipeline.timeframes import SECOND

NAME = "latency"
SUMMARY = "at a paced load, every process running and an observer beside it"
SYMBOLS = 40
RATES = (1_000, 5_000, 20_000)
WINDOWS_AT = 5_000
PAGE = 10_000
MILLISECOND = 1_000_000
ENDING = 30.0
KEYS = {
    **{
        f"latency.{rate}.{key}": meaning
        for rate in RATES
        for key, meaning in {
            "row_p50_ms": f"ms from frame to committed row at {rate:,} trades a second: median",
            "row_p99_ms": "the same, 99th percentile",
            "step_p50_ms": f"ms from frame to aggregate's commit at {rate:,} trades a second: median",
            "step_p99_ms": "the same, 99th percentile",
            "venue_late_ms": "ms by which the exchange itself was late with a trade, at most",
            "observer_cores": "cores that observing took",
        }.items()
    },
    "latency.window_to_candle_p50_ms": "ms from the first trade behind a second's end to its candle: median",
    "latency.window_to_candle_p99_ms": f"the same, 99th percentile, at {WINDOWS_AT:,} trades a second",
}


class Arrival(msgspec.Struct, frozen=True):
    """What of a trade counts here (ns UTC)."""

    instrument: str
    time: int
    received: int


class Closed(msgspec.Struct, frozen=True):
    """What of a candle counts here."""

    instrument: str
    close_time: int
    revision: int = 0


class Passed(NamedTuple):
    """An entry of the trade stream."""

    id: StreamId
    trade: Arrival


_ARRIVAL = msgspec.json.Decoder(Arrival)
_CLOSED = msgspec.json.Decoder(Closed)


def measure(terms: Terms, instance: Instance) -> Figures:
    """See KEYS."""
    return medians(
        {key: figure for rate in RATES for key, figure in _once(terms, instance, rate).items()}
        for _ in range(terms.rounds)
    )


def delays(passed: Sequence[Passed], samples: Sequence[Sample]) -> list[float]:
    """Milliseconds from each trade's arrival until a cursor was seen at or behind it, ascending."""
    cursors = [stream_id(cursor.encode()) for _, cursor in samples]
    found = [(samples[bisect_left(cursors, entry)][0] - trade.received) / MILLISECOND for entry, trade in passed]
    return sorted(found)


def waits(passed: Sequence[Passed], closed: Sequence[tuple[StreamId, Closed]]) -> list[float]:
    """Milliseconds from the arrival of the first trade at or behind a candle's end to the candle, ascending. The id of
    an entry tells its time in whole ms: counted as if it were written at their end. Windows that the clock closed
    before a trade came are left out."""
    trades: dict[str, list[Arrival]] = {}
    for _, trade in passed:
        trades.setdefault(trade.instrument, []).append(trade)
    found: list[float] = []
    for (written, _), candle in closed:
        behind = trades.get(candle.instrument, [])
        place = bisect_left(behind, candle.close_time, key=lambda trade: trade.time)
        if 0 < place < len(behind) and candle.revision == 0:
            found.append(written + 1 - behind[place].received / MILLISECOND)
    return sorted(wait for wait in found if wait > 0)


def percentile(ascending: Sequence[float], share: float) -> float:
    """The value that this share of all do not exceed."""
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def _once(terms: Terms, instance: Instance, rate: int) -> Figures:
    seconds, warm_up = (terms.size(20, 2), terms.size(5, 1))
    with collecting(terms, instance, SYMBOLS) as product:
        with _observer(product) as seen:
            product.pace(rate * (seconds + warm_up), rate)
            late = product.exchange.told().latest
            prove(product)
        passed = list(_trades(product))
        closed = [(entry, _CLOSED.decode(data)) for entry, data in _entries(product, "candle:1s")]
    began = passed[0].trade.received + warm_up * SECOND
    warm = [each for each in passed if each.trade.received >= began]
    steps, rows = delays(warm, seen[0].steps), delays(warm, seen[0].rows)
    figures: dict[str, Figure] = {
        f"latency.{rate}.row_p50_ms": percentile(rows, 0.5),
        f"latency.{rate}.row_p99_ms": percentile(rows, 0.99),
        f"latency.{rate}.step_p50_ms": percentile(steps, 0.5),
        f"latency.{rate}.step_p99_ms": percentile(steps, 0.99),
        f"latency.{rate}.venue_late_ms": 1_000 * late,
        f"latency.{rate}.observer_cores": seen[0].cpu / seen[0].seconds,
    }
    if rate == WINDOWS_AT:
        found = waits(warm, closed)
        figures["latency.window_to_candle_p50_ms"] = percentile(found, 0.5)
        figures["latency.window_to_candle_p99_ms"] = percentile(found, 0.99)
    return figures


@contextlib.contextmanager
def _observer(product: Product) -> Iterator[list[Seen]]:
    """Watches until the end; then the list holds what it saw."""
    settings, keys = product.instance.settings, product.instance.keys(VENUE)
    plan = Plan(
        redis=str(settings.run_dir / "redis.sock"),
        state=keys.state("aggregate"),
        database=settings.database_address(),
        stream=keys.trade,
    )
    words = [sys.executable, "-P", "-m", "bench.observer", msgspec.json.encode(plan).decode()]
    seen: list[Seen] = []
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
    ) as process:
        try:
            yield seen
            told, _ = process.communicate(timeout=ENDING)
        finally:
            process.kill()
    seen.append(msgspec.json.decode(told, type=Seen))


def _trades(product: Product) -> Iterator[Passed]:
    for entry, data in _entries(product, "trade"):
        yield Passed(entry, _ARRIVAL.decode(data))


def _entries(product: Product, kind: str) -> Iterator[tuple[StreamId, bytes]]:
    """Id and record of every entry but control records."""
    stream, after = product.instance.keys(VENUE).stream(kind), b"-"
    while page := call(product.instance.redis, "XRANGE", stream, after, "+", "COUNT", PAGE):
        for entry, fields in page:
            if b"symbol" in fields:
                yield stream_id(entry), fields[b"data"]
        after = b"(" + page[-1][0]
