"""Five minutes of the simulator: 500 symbols, each with trades, order book and ticker. Does lag grow, is memory flat?

Ends with exit code 1 when a stage falls behind, a process goes on growing, or anything is lost. Only by its name:
`--only soak`.
"""

import json
import time
from collections.abc import Mapping, Sequence
from statistics import mean

import msgspec
import redis.exceptions

from bench.instance import Instance
from bench.part import Figures, Terms, WrongResult, expect, medians
from bench.product import NAMES, STAGES, SUBSCRIBING, VENUE
from pipeline.reports import read, read_all
from pipeline.settings import ExchangeSettings, RetentionSettings, SettingsFile, TradingPair
from pipeline.streams import READERS
from pipeline.timeframes import TIMEFRAMES

NAME = "soak"
SUMMARY = "five minutes of the simulator, 500 symbols with trades, order books and tickers"
FILLS = 500
"""A second, of all symbols together."""
KINDS = ("trade", "orderbook", "ticker")
MARKS = (1, 3, 5)
"""Minutes."""
LOOKS = 12
EVERY = 0.25
LAG = 2.0
"""Seconds' worth of entries by which a stage may be further behind at the end than at the beginning."""
GROWTH, ROOM = 1.1, 16.0
"""By which share and how many MiB more a process may have grown between the last two marks."""
MIB = 1024 * 1024
WINDOW = 1024 / MIB
"""What a window of aggregate may take, in its memory and as much in its state in Redis: it keeps those that closed
within ten minutes, so for ten minutes there are ever more of them."""
KEYS = {
    **{
        f"soak.{minute}m.{key}": meaning
        for minute in MARKS
        for key, meaning in {
            **{
                f"{stage}_behind": f"entries that {stage} has yet to read"
                for stage in ("normalize", "aggregate", "store")
            },
            **{f"{name}_mib": f"MiB of memory of {name}" for name in NAMES},
            "windows": "windows that aggregate keeps",
        }.items()
    },
    "soak.entries_per_s": "entries a second in all streams but the raw one",
    "soak.trades": "trades stored, of each symbol with consecutive numbers",
    "soak.cores": "cores, all processes and servers together",
    **{f"soak.{name}_cores": f"cores of {name}" for name in NAMES},
    "soak.simulator_cores": "cores of the simulator; not among the sum",
}

_TRADES = b"""
SELECT sum(rows)::bigint, sum(numbers)::bigint, sum(last - first + 1)::bigint
FROM (SELECT count(*) AS rows, count(DISTINCT (epoch, sequence)) AS numbers, min(sequence) AS first,
             max(sequence) AS last FROM trades GROUP BY instrument_id) AS each"""


class Mark(msgspec.Struct, frozen=True):
    """A moment: entries behind by stage, MiB by process, entries ever written by stream kind, windows kept."""

    at: float
    behind: Mapping[str, float]
    memory: Mapping[str, float]
    written: Mapping[str, int]
    windows: int


def measure(terms: Terms, instance: Instance) -> Figures:
    """See KEYS. Once, whatever the rounds."""
    symbols = [f"SIM{number:03d}-USDT" for number in range(1, terms.size(500, 20) + 1)]
    before = instance.settings.file
    instance.reset()
    instance.beside(
        "simulator", "-m", "pipeline", "simulate", "--json", "--rate", str(FILLS), "--symbols", str(len(symbols)),
        "--seed", str(terms.seed),
    )  # fmt: skip
    try:
        urls = _urls(instance)
        instance.change(lambda file: _collecting(file, symbols, urls))
        with instance.running(*STAGES):
            instance.until(lambda: _subscribed(instance, len(symbols)), "every subscription", SUBSCRIBING, 0.5)
            return _watch(instance, terms)
    finally:
        instance.stop("simulator")
        instance.change(lambda _: before)


def fallen_behind(first: Mark, last: Mark) -> list[str]:
    """Each stage that is further behind at the end than what comes in a few seconds explains, in words."""
    flow = {stage: _rate(stage, first, last) for stage in last.behind}
    return [
        f"{stage} was {first.behind[stage]:.0f} entries behind and is now {behind:.0f}"
        for stage, behind in last.behind.items()
        if behind > first.behind[stage] + LAG * flow[stage]
    ]


def grown(middle: Mark, last: Mark) -> list[str]:
    """Each process that is larger at the end than in the middle, in words. Postgres fills its buffers for hours."""
    more = max(0, last.windows - middle.windows) * WINDOW
    room = {"aggregate": ROOM + more, "redis": ROOM + more}
    return [
        f"{name} had {middle.memory[name]:.0f} MiB and has now {memory:.0f}"
        for name, memory in last.memory.items()
        if name != "postgres" and memory > GROWTH * middle.memory[name] + room.get(name, ROOM)
    ]


def _watch(instance: Instance, terms: Terms) -> Figures:
    minute = terms.size(60, 4)
    begun, marks, before = time.monotonic(), [], instance.cpu()
    for mark in MARKS:
        end = begun + mark * minute - LOOKS * EVERY
        while (left := end - time.monotonic()) > 0:
            instance.check()
            time.sleep(min(1.0, left))
        marks.append(_mark(instance))
    seconds, after = time.monotonic() - begun, instance.cpu()
    used = {name.partition("-")[0]: (after[name] - before[name]) / seconds for name in after}
    figures: dict[str, float] = {}
    for minutes, each in zip(MARKS, marks, strict=True):
        figures |= {f"soak.{minutes}m.{stage}_behind": behind for stage, behind in each.behind.items()}
        figures |= {f"soak.{minutes}m.{name}_mib": memory for name, memory in each.memory.items()}
        figures[f"soak.{minutes}m.windows"] = each.windows
    figures |= {f"soak.{name}_cores": cores for name, cores in used.items()}
    figures["soak.cores"] = sum(used[name] for name in NAMES)
    figures["soak.entries_per_s"] = sum(_flow(kind, marks[0], marks[-1]) for kind in READERS if kind != "raw")
    figures["soak.trades"] = _nothing_lost(instance)
    told = medians([figures])
    if faults := fallen_behind(marks[0], marks[-1]) + grown(marks[1], marks[-1]):
        raise WrongResult("; ".join((*faults, json.dumps(told))))
    return told


def _mark(instance: Instance) -> Mark:
    """Entries behind go up and down with every step: the mean of some looks."""
    looks = []
    for _ in range(LOOKS):
        looks.append(_behind(instance))
        time.sleep(EVERY)
    behind = {stage: mean(look[stage] for look in looks) for stage in looks[0]}
    memory = {name.partition("-")[0]: used / MIB for name, used in instance.memory().items() if name != "simulator"}
    kept = read(instance.settings.heartbeat_dir / "aggregate-0").details["partitions"][VENUE]["windows"]
    return Mark(time.monotonic(), behind, memory, _written(instance), kept)


def _behind(instance: Instance) -> dict[str, int]:
    """Entries that each stage has yet to read, of all its streams."""
    behind = {"normalize": 0, "aggregate": 0, "store": 0}
    for kind, readers in READERS.items():
        if not readers:
            continue
        try:
            groups = instance.redis.xinfo_groups(instance.keys(VENUE).stream(kind))
        except redis.exceptions.ResponseError:
            continue
        for group in groups:
            behind[group["name"].decode()] += group["lag"] or 0
    return behind


def _written(instance: Instance) -> dict[str, int]:
    """Stream kind to the entries it ever got."""
    written = {}
    for kind in READERS:
        try:
            written[kind] = int(instance.redis.xinfo_stream(instance.keys(VENUE).stream(kind))["entries-added"])
        except redis.exceptions.ResponseError:
            written[kind] = 0
    return written


def _flow(kind: str, first: Mark, last: Mark) -> float:
    return (last.written[kind] - first.written[kind]) / (last.at - first.at)


def _rate(stage: str, first: Mark, last: Mark) -> float:
    """Entries a second that come for the stage."""
    return sum(_flow(kind, first, last) for kind, readers in READERS.items() if stage in readers)


def _nothing_lost(instance: Instance) -> int:
    """The trades stored, counted. Raises WrongResult."""
    with instance.postgres() as database:
        rows, numbers, span = database.execute(_TRADES).fetchone() or (0, 0, 0)
        (gaps,) = database.execute(b"SELECT count(*) FROM trade_gaps").fetchone() or (0,)
    expect("different trades stored", numbers, rows)
    expect("trades between the first and the last of each symbol", rows, span)
    expect("gaps in the ledger", gaps, 0)
    report = read(instance.settings.heartbeat_dir / "ingest-okx")
    expect("frames that ingest dropped", report.counters.get("dropped", 0), 0)
    return int(rows)


def _subscribed(instance: Instance, symbols: int) -> bool:
    report = read_all(instance.settings.heartbeat_dir).get("ingest-okx")
    rows = report.details.get("subscriptions", {}).values() if report else ()
    return len(rows) == symbols * len(KINDS) and all(row["state"] == "subscribed" for row in rows)


def _urls(instance: Instance) -> dict[str, str]:
    """What the simulator said when it was ready."""
    log = instance.scratch / "simulator.log"
    instance.until(lambda: b"\n" in log.read_bytes(), "the simulator")
    return dict(json.loads(log.read_bytes().splitlines()[0]))


def _collecting(file: SettingsFile, symbols: Sequence[str], urls: Mapping[str, str]) -> SettingsFile:
    """Streams are kept for half a minute: else the minutes measured here would be the ones in which they fill."""
    pairs = tuple(TradingPair(symbol=symbol, data_types=KINDS, timeframes=TIMEFRAMES) for symbol in symbols)
    ours = ExchangeSettings(trading_pairs=pairs, ws_url=urls["ws_url"], rest_url=urls["rest_url"])
    retention = RetentionSettings(stream_seconds=30, stream_entries=1_000)
    return msgspec.structs.replace(file, exchanges={VENUE: ours}, retention=retention)
