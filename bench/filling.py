"""Filling the streams before a stage is measured, by real means: raw entries as ingest packs them, then the product's
own processes up to the stage."""

from collections.abc import Callable, Iterable, Sequence

from bench.frames import Market, raw_entries, raw_frames
from bench.instance import Instance
from bench.part import expect
from pipeline.probes.redis import call
from pipeline.steps import Command
from pipeline.timeframes import TIMEFRAMES

TRADE = b'"tradeId":'
"""In every trade frame of OKX, and in no other."""
PIPELINED = 200
LONG = 300.0
"""Seconds a stage may take for all of it."""


def fill(instance: Instance, market: Market, trades: int, timeframes: Sequence[str] = TIMEFRAMES) -> int:
    """Puts `trades` trades of the market into its raw stream; the number of entries they make."""
    stream = instance.keys(market.exchange).raw
    send(instance, raw_entries(stream, raw_frames(market, trades, timeframes=timeframes)))
    instance.quiet()
    return int(call(instance.redis, "XLEN", stream))


def send(instance: Instance, commands: Iterable[Command]) -> None:
    """Sends commands some at a time."""
    batch = instance.redis.pipeline(transaction=False)
    for number, command in enumerate(commands, start=1):
        batch.execute_command(*command)  # type: ignore[no-untyped-call]
        if number % PIPELINED == 0:
            batch.execute()
    batch.execute()


def read_to_the_end(instance: Instance, partition: str, stage: str, source: str) -> None:
    """Waits until the stage's cursor stands at the source's last entry."""
    keys = instance.keys(partition)

    def done() -> bool:
        newest = call(instance.redis, "XREVRANGE", source, "+", "-", "COUNT", 1)
        return bool(call(instance.redis, "HGET", keys.state(stage), "cursor") == newest[0][0])

    instance.until(done, f"{stage} to read all of {source}", LONG)


def normalized(instance: Instance, exchange: str, trades: int) -> None:
    """Runs normalize over the raw stream and counts its trades."""
    keys = instance.keys(exchange)
    with instance.running(f"normalize-{exchange}"):
        read_to_the_end(instance, exchange, "normalize", keys.raw)
    instance.quiet()
    expect("trades normalized", trades_in(instance, exchange), trades)


class Count:
    """Trade frames in the raw stream of OKX, counted as they come, in their packing: that costs next to nothing.
    `first`, `last`: the entries with the oldest and the newest of them."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._stream = instance.keys("okx").raw
        self._after = b"-"
        self.frames = 0
        self.first = self.last = b""

    def more(self) -> int:
        """Counts what came since; how many there are now."""
        while page := call(self._instance.redis, "XRANGE", self._stream, self._after, "+", "COUNT", 500):
            for entry, fields in page:
                if trades := fields[b"frames"].count(TRADE):
                    self.frames, self.first, self.last = self.frames + trades, self.first or entry, entry
            self._after = b"(" + page[-1][0]
        return self.frames


def trades_in(instance: Instance, partition: str) -> int:
    """Trades in the trade stream, without its control records."""
    stream, after, found = instance.keys(partition).trade, b"-", 0
    while page := call(instance.redis, "XRANGE", stream, after, "+", "COUNT", 10_000):
        found += sum(b"symbol" in fields for _, fields in page)
        after = b"(" + page[-1][0]
    return found


def entries_read(instance: Instance, partition: str, stage: str) -> Callable[[], int]:
    """Tells, each time it is called, how many entries the stage has committed."""
    state = instance.keys(partition).state(stage)
    return lambda: int(call(instance.redis, "HGET", state, "entries_read") or 0)


def nothing_dead(instance: Instance, partition: str) -> None:
    """Raises WrongResult when there is a dead letter."""
    expect("dead letters", int(call(instance.redis, "XLEN", instance.keys(partition).dead)), 0)
