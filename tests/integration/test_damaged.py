"""Frames of both exchanges, damaged at random, through normalize, aggregate and store's judgement: nothing stops any of
them, what normalize lets pass store can keep, and a restart at any place changes nothing."""

import contextlib
import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregate.stage import Aggregate
from normalize.mapper import load
from pipeline.exchanges import EXCHANGES
from pipeline.frames import Frame, RawEntry, pack
from pipeline.steps import Entry, Step
from store.batch import Batch
from tests.normalize import golden
from tests.normalize.playing import KEYS, Played, go_on, play

ENTRIES = 150
CONNECTIONS = ("wss://a#1", "wss://a#2", "wss://a#3")
DAYS = 86_400 * 10**9
WRONG: list[Any] = [
    *("NaN", "Infinity", "-Infinity", "1e400", "-1", "0", "", " ", "٣", "1_000", "0x10", "\x00", "a\tb", "9" * 400),
    *(None, True, [], {}, 10**30, -(10**18), 2**63, 1.5, 1e308, "1" * 100 + "." + "1" * 100, "+1", "-0", ".5"),
]


def damaged(value: Any, chance: Random, share: float) -> Any:
    """The JSON value with about `share` of its parts replaced, left out or doubled."""
    if chance.random() < share:
        return chance.choice(WRONG)
    if isinstance(value, dict):
        return {name: damaged(part, chance, share) for name, part in value.items() if chance.random() > share / 3}
    if isinstance(value, list):
        return [
            damaged(part, chance, share)
            for part in value
            for _ in range(chance.choice([0, 2]) if chance.random() < share else 1)
        ]
    return value


def own(kind: Any, ts: int, conn: str, **data: Any) -> Frame:
    return Frame(ts, conn, "in", kind, json.dumps(data))


def told(exchange: str, chance: Random, ts: int) -> Frame:
    """A frame of ingest's own."""
    mapper, conn = load(EXCHANGES[exchange]), chance.choice(CONNECTIONS)
    name = chance.choice(["BTC-USDT", *golden.instruments(exchange, mapper)])
    match chance.randrange(5):
        case 0 | 1:
            heard = {conn: ts - chance.randrange(10**9) for conn in CONNECTIONS}
            return own("clock", ts, "clock", connections=heard, offset=chance.choice([0, None, 10**9, 3 * DAYS]))
        case 2:
            return own(chance.choice(["open", "close"]), ts, conn, url="x", reason="y")
        case 3:
            key = chance.choice([f"resync {name} {conn}", f"snapshot {name}", "", " "])
            state = chance.choice(["asked", "answered", "refused"])
            return own("request", ts, "rest", key=key, number=chance.randrange(3), state=state, permanent=True)
        case _:
            channel = chance.choice(sorted(mapper.trade_channels | mapper.book_channels))
            state = chance.choice(["requested", "subscribed", "refused", "unsubscribed"])
            frames = ("1s", "1m")
            return own("subscription", ts, conn, channel=channel, instrument=name, state=state, timeframes=frames)


def stream(exchange: str, seed: int) -> Iterator[RawEntry]:
    """The golden frames in any order, a third of them damaged, from three connections; now and then entries are lost
    or another writer takes over."""
    chance = Random(seed)
    known = [frame for topic in golden.TOPICS for frame in golden.frames(exchange, topic)]
    ts, writer, number = max(frame.ts or 0 for frame in known), 1, 0
    for _ in range(ENTRIES):
        frames = []
        for _ in range(chance.randint(1, 4)):
            ts += chance.choice([10**6, 10**7, 10**8, 10**9])
            if chance.random() < 0.35:
                frames.append(told(exchange, chance, ts))
                continue
            frame = chance.choice(known)
            data = frame.data
            if chance.random() < 0.35:
                # Some of them are no JSON to begin with.
                with contextlib.suppress(json.JSONDecodeError):
                    data = json.dumps(damaged(json.loads(data), chance, chance.choice([0.01, 0.05, 0.3])))
            conn = chance.choice(CONNECTIONS) if frame.kind == "ws" else frame.conn
            frames.append(Frame(ts, conn, frame.dir, frame.kind, data, frame.url, frame.key))
        if chance.random() < 0.02:
            writer, number = writer + 1, 0
        number += 1 + (chance.random() < 0.02)
        yield RawEntry(writer, number, tuple(frames))


def judged(written: Played) -> Batch:
    """What store makes of the streams, and of the candles that aggregate makes of the trades."""
    batch, aggregate, step = Batch("okx"), Aggregate(KEYS, written.exchange), Step(KEYS, "aggregate")
    for name, commands in written.streams.items():
        if name in (KEYS.dead, KEYS.request):
            continue
        entries = [Entry(b"1-%d" % place, _fields(command)) for place, command in enumerate(commands, start=1)]
        batch.take(name.removeprefix("md:").removesuffix(":{okx}"), name, "0-0", entries)
        if name == KEYS.trade:
            for entry in entries:
                aggregate.process(entry, step)
            aggregate.save(step)
            assert not any(command[1] == KEYS.dead for command in step.commands())
    for command in step.commands():
        if command[0] == "XADD":
            kind = str(command[1]).removeprefix("md:").removesuffix(":{okx}")
            batch.take(kind, str(command[1]), "0-0", [Entry(b"1-1", _fields(command[2:]))])
    return batch


def _fields(command: tuple[Any, ...]) -> dict[bytes, bytes]:
    _, label, value, name, data = command
    return {label: value, name.encode(): data}


@pytest.mark.parametrize("exchange", ["okx", "binance"])
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**9))
def test_nothing_a_venue_sends_stops_a_stage_and_a_restart_changes_nothing(exchange: str, seed: int) -> None:
    raw, chance = list(stream(exchange, seed)), Random(seed)
    expected = play(raw, exchange=exchange)
    assert judged(expected).letters == []
    restarted = Played(exchange)
    restarted.stage.restore({})
    entries = [Entry(b"%d-0" % place, pack(entry)) for place, entry in enumerate(raw, start=1)]
    start = 0
    while start < len(entries):
        if chance.random() < 0.2:
            restarted.restore(entries[:start])
        size = chance.choice([1, 1, 3, 9, 30])
        go_on(restarted, entries[start : start + size])
        start += size
    # A want that is set and taken back within a step wakes nobody.
    for name in {*expected.streams, *restarted.streams} - {KEYS.request}:
        assert restarted.streams.get(name) == expected.streams.get(name)
    assert (restarted.wants, restarted.last, restarted.faults) == (expected.wants, expected.last, [])


@pytest.mark.parametrize("exchange", ["okx", "binance"])
def test_the_frames_are_worth_the_trouble(exchange: str) -> None:
    written = [play(list(stream(exchange, seed)), exchange=exchange) for seed in range(5)]
    for kind in ("trade", "orderbook", "quote", "ticker", "kline:1m", "instrument", "dead"):
        assert any(run.stream(kind) for run in written), kind
