"""Order books in the stage: records, wants and settings; saved now and then, and brought up to date from raw."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normalize.checkpoints import EVERY, MOST_BYTES, Checkpoint
from normalize.saving import save
from pipeline.frames import Frame, RawEntry, pack
from pipeline.steps import REREAD_FROM, Entry, Step
from tests.normalize.playing import (
    KEYS,
    SECOND,
    SPOT,
    T0,
    A,
    B,
    Played,
    book,
    clock,
    closed,
    depth,
    entries,
    exchange_info,
    go_on,
    opened,
    play,
    request,
    run,
    snapshot,
    subscription,
    trade,
)
from tests.normalize.test_okx import INVERSE, SWAP
from tests.normalize.test_okx import SPOT as SPOT_LISTING
from tests.normalize.test_stage import listing

BTC = "BTCUSDT"


def subscribed(at: float, conn: str = A, instrument: str = SPOT, **fields: Any) -> Frame:
    known = {"channel": "books", "instrument": instrument, "timeframes": ()}
    return subscription(fields.pop("state", "subscribed"), at, conn, **(known | fields))


def started(*frames: Frame, **fields: Any) -> list[Frame]:
    return [clock(0), opened(0), subscribed(0, **fields), *frames]


def books(played: Played) -> list[dict[str, Any]]:
    """Order books shown, but for those of the grid."""
    return [record for record in played.stream("orderbook") if "snapshot_time" not in record]


def verdicts(played: Played) -> list[str | None]:
    """Reason of each record, null where it is valid."""
    return [record.get("reason") for record in books(played)]


def row(played: Played, instrument: str = SPOT) -> dict[str, Any]:
    report: Any = played.stage.report()["books"]
    found: dict[str, Any] = report[instrument]
    return found


def test_books_are_shown_as_deep_as_the_subscription_asks() -> None:
    played = run(*started(book(1, 5, bids="100@1 99@2 98@3", asks="101@1 102@2"), depth=2))
    (record,) = books(played)
    assert (record["bids"], record["asks"]) == ([["100", "1"], ["99", "2"]], [["101", "1"], ["102", "2"]])
    assert (record["depth"], record["sequence"], record.get("unit", "base")) == (2, 5, "base")
    assert played.last["orderbook"] == {SPOT: record}
    assert row(played)["levels"] == [3, 2]
    assert (row(played)["valid"], row(played)["connection"], row(played)["symbol"]) == (True, A, SPOT)
    assert played.stage.last_data == T0 + SECOND


def test_settings_told_before_the_instrument_is_known_hold() -> None:
    told = subscribed(0, instrument="BTC-USDT-SWAP", depth=1)
    played = run(told, listing(SWAP, at=1), book(2, 5, bids="9@100 8@1", asks="10@50", instrument="BTC-USDT-SWAP"))
    (record,) = books(played)
    assert (record["bids"], record["asks"], record["symbol"]) == ([["9", "1.00"]], [["10", "0.50"]], "BTC-USDT-PERP")


def test_inverse_books_stay_in_contracts() -> None:
    (record,) = books(run(listing(INVERSE), book(1, 5, bids="9@100", asks="10@50", instrument="BTC-USD-SWAP")))
    assert (record["bids"], record["unit"]) == ([["9", "100"]], "contracts")


def gap_and_resync() -> list[Frame]:
    key = f"resync {SPOT} {A}"
    return started(
        book(1, 5, bids="100@1", asks="101@1"),
        book(2, 9, 7, bids="100@2"),
        request(key, 1, "asked", 2.5),
        subscribed(2.6, state="unsubscribed"),
        subscribed(2.7),
        request(key, 1, "answered", 2.7),
        book(3, 20, bids="100@3", asks="101@3"),
        clock(4, a=3.9),
    )


def test_a_break_is_shown_at_once_and_heals_by_a_resync() -> None:
    frames = gap_and_resync()
    broken = run(*frames[:5])
    assert verdicts(broken) == [None, "gap"]
    want = broken.wants[f"resync {SPOT} {A}"]
    assert (want["what"], want["instrument"], want["number"], want["connection"]) == ("resync", SPOT, 1, A)
    assert broken.stage.report()["wants"] == {
        f"resync {SPOT} {A}": {
            "what": "resync",
            "instrument": SPOT,
            "number": 1,
            "since": T0 + 2 * SECOND,
            "reason": "gap",
        }
    }
    assert [command[-1] for command in broken.streams[KEYS.request]] == [f"resync {SPOT} {A}"]
    healed = run(*frames)
    assert verdicts(healed) == [None, "gap", None]
    assert healed.wants == {}
    assert healed.stage.report()["wants"] == {}
    assert healed.stage.report()["control"] == {"request asked": 1, "request answered": 1}
    assert (row(healed)["resyncs"], row(healed)["invalid"], row(healed)["valid"]) == (1, 1, True)
    assert healed.stream("dead") == []


def test_a_closed_connection_ends_its_books_and_another_goes_on() -> None:
    first = [book(1, 5, bids="100@1", asks="101@1"), book(1.5, 5, bids="100@1", asks="101@1", conn=B)]
    alone = run(*started(first[0], closed(2)))
    assert verdicts(alone) == [None, "closed"]
    both = run(*started(*first, closed(2), book(3, 6, 5, bids="100@2", conn=B)))
    assert verdicts(both) == [None, None]
    assert both.wants == {}
    assert verdicts(run(*started(first[0], opened(2)))) == [None, "reopened"]


def test_a_subscription_that_ended_ends_its_book_only() -> None:
    ended = subscribed(2, state="unsubscribed")
    played = run(*started(book(1, 5, bids="100@1", asks="101@1"), ended, trade(5, 3)))
    assert verdicts(played) == [None, "unsubscribed"]
    assert played.of("coverage")[-1]["state"] == "covered"


def test_lost_entries_and_another_writer_break_every_book() -> None:
    frames = started(book(1, 5, bids="100@1", asks="101@1"))
    first = entries(frames)
    jump = entries([clock(2, a=1.9)], first=len(first) + 2)
    assert verdicts(play([*first, *jump])) == [None, "lost"]
    goes_on = entries([book(2, 6, 5, bids="100@2")], first=len(first) + 2)
    assert verdicts(play([*first, *goes_on]))[-1] is None
    other = entries([clock(0.5)], writer=2)
    played = play([*first, *other])
    assert verdicts(played) == [None, "writer"]
    assert played.wants == {}


def test_a_book_leaves_with_its_instrument() -> None:
    dated = SWAP | {
        "instType": "FUTURES",
        "instId": "BTC-USDT-261225",
        "expTime": str(T0 // 1_000_000),
    }
    frames = [listing(dated), opened(0), book(1, 7, 6, bids="9@1", instrument="BTC-USDT-261225"), clock(8)]
    before = run(*frames, clock(20))
    assert list(before.wants) == [f"resync BTC-USDT-261225 {A}"]
    after = run(*frames, clock(20), listing(SWAP, at=7 * 86_400 + 1))
    assert after.wants == {}
    assert not any(b"261225" in field or b"261225" in value for field, value in after.state.items())
    assert REREAD_FROM.encode() not in after.state


# Checkpoints.


def seconds_of_book(seconds: int, each: int = 10) -> list[Frame]:
    frames = [listing(SPOT_LISTING), *started(book(0.5, 1, bids="100@1 99@1", asks="101@1 102@1"))]
    for number in range(2, seconds * each):
        at = 0.5 + number / each
        frames.append(book(at, number, number - 1, bids=f"{90 + number % 9}@{number % 3}"))
        if number % 4 == 0:
            frames.append(clock(at, a=at))
    return frames


def places(played: Played) -> dict[str, str]:
    """Instrument to the raw entry behind which its book was saved."""
    found = {}
    for field, value in played.state.items():
        if field.startswith(b"book:"):
            found[field.decode().removeprefix("book:")] = msgspec.msgpack.decode(value, type=Checkpoint).place.after
    return found


def test_a_book_is_saved_as_it_begins_and_every_ten_seconds() -> None:
    raw = entries(seconds_of_book(24))
    played, saves = Played(), list[tuple[int, str]]()
    played.stage.restore({})
    for number, entry in enumerate(raw, start=1):
        go_on(played, [Entry(b"%d-0" % number, pack(entry))])
        if (now := places(played).get(SPOT)) != (saves[-1][1] if saves else None):
            saves.append((entry.frames[0].ts or 0, str(now)))
            assert played.state[REREAD_FROM.encode()] == str(now).encode()
    at = [ts - T0 for ts, _ in saves]
    assert saves[0][1] == "3-0", "the subscription made it; it stands behind the entry before"
    assert [later - earlier >= EVERY for earlier, later in itertools.pairwise(at)] == [True, True]
    assert len(saves) == 3


def test_a_step_saves_a_bounded_part_of_the_books_and_the_rest_later() -> None:
    names = [f"COIN{number}-USDT" for number in range(40)]
    levels = " ".join(f"{100 - number / 100:.2f}@{number}.123456" for number in range(1, 400))
    frames = [clock(0), opened(0)]
    frames += [book(1, 5, bids=levels, asks="101@1", instrument=name) for name in names]
    frames += [clock(1 + tick / 4, a=1 + tick / 4) for tick in range(1, 100)]
    played, largest, stand = Played(), 0, set()
    played.stage.restore({})
    for number, entry in enumerate(entries(frames), start=1):
        step = Step(KEYS, "normalize")
        played.stage.process(Entry(b"%d-0" % number, pack(entry)), step)
        played.stage.save(step)
        fields: Any = next(c[2:] for c in step.commands() if c[0] == "HSET" and c[1] == KEYS.state("normalize"))
        size = sum(
            len(value) for name, value in zip(fields[::2], fields[1::2], strict=True) if name.startswith("book:")
        )
        largest = max(largest, size)
        played.take(step)
        stand.add(min(places(played).values(), key=lambda place: int(place[:-2]), default=""))
        assert played.state.get(REREAD_FROM.encode(), b"").decode() in stand
    assert 0.8 * MOST_BYTES < largest <= MOST_BYTES + 40 * 200
    assert set(places(played)) == set(names)
    assert min(int(place[:-2]) for place in places(played).values()) > len(frames) - 50


def same_but_places(found: dict[bytes, bytes], expected: dict[bytes, bytes]) -> None:
    """Small state is a function of the raw stream; when a book was saved depends on where steps end."""
    assert {k: v for k, v in found.items() if not k.startswith(b"book")} == {
        k: v for k, v in expected.items() if not k.startswith(b"book")
    }
    assert {k for k in found if k.startswith(b"book:")} == {k for k in expected if k.startswith(b"book:")}


def assert_same(found: Played, expected: Played) -> None:
    # A want that is taken back in the step that made it wakes nobody: not an output, md:want is.
    for stream in {*expected.streams, *found.streams} - {KEYS.request}:
        assert found.streams.get(stream) == expected.streams.get(stream), stream
    assert (found.wants, found.last) == (expected.wants, expected.last)
    same_but_places(found.state, expected.state)
    one, other = found.stage._shelf.books, expected.stage._shelf.books
    assert {name: save(kept) for name, kept in one.items()} == {name: save(kept) for name, kept in other.items()}
    assert found.stage.report() == expected.stage.report()


@pytest.mark.parametrize("batch", [1, 13])
def test_a_restored_book_stands_where_it_would_have_stood(batch: int) -> None:
    raw = entries(seconds_of_book(12), size=3)
    found = play(raw, batch=batch, restore=True)
    assert_same(found, play(raw))
    assert found.reread > 20
    assert found.faults == []


def storm(seed: int) -> list[RawEntry]:
    """Books of two instruments over two connections that overlap: gaps, resets, keepalives, resyncs, losses, cuts, a
    listing that comes late and changes, frames without a time, entries of many frames, other writers."""
    chance = random.Random(seed)
    swap = "BTC-USDT-SWAP"
    frames: list[Frame] = [clock(0), opened(0), subscribed(0), subscribed(0, instrument=swap, depth=3)]
    raw: list[RawEntry] = []
    writer, first, at, at_end = 1, 1, 0.0, {SPOT: 10, swap: 10}
    for _ in range(chance.randrange(50, 200)):
        at += chance.random() * chance.choice([0.2, 0.2, 2])
        name, conn = chance.choice([SPOT, swap]), chance.choice([A, A, A, B])
        last = at_end[name]
        levels = " ".join(f"{chance.randrange(95, 101)}@{chance.randrange(3)}" for _ in range(3))
        match chance.randrange(20):
            case 0:
                frames.append(closed(at, conn))
            case 1:
                frames += [opened(at, conn), subscribed(at, conn), subscribed(at, conn, swap)]
            case 2:
                frames.append(listing(SWAP | {"ctVal": chance.choice(["0.01", "0.1"])}, at=at))
            case 3:
                raw += entries(frames, writer=writer, first=first, size=chance.randrange(1, 5))
                first, frames = raw[-1].n + 1 if raw else 1, []
                if chance.random() < 0.3:
                    writer, first = writer + 1, 1
                elif chance.random() < 0.5:
                    first += chance.choice([1, -2])
            case 4:
                key = f"resync {name} {conn}"
                frames.append(request(key, chance.randrange(1, 4), chance.choice(["asked", "answered", "refused"]), at))
            case 5:
                states = ["unsubscribed", "subscribed", "refused"]
                frames.append(subscribed(at, conn, name, state=chance.choice(states), depth=chance.choice([3, 20])))
            case 6:
                frames.append(msgspec.structs.replace(book(at, last, last, conn=conn, instrument=name), ts=None))
            case 7:
                frames.append(book(at, last + 3, last + 1, conn=conn, instrument=name, bids=levels))
                at_end[name] = last + 3
            case 8:
                frames.append(Frame(T0 + round(at * SECOND), conn, "in", "ws", "{"))
            case 9 | 10 | 11:
                frames.append(clock(at, chance.choice([0, 5 * SECOND, None]), a=at - 0.1, b=at - 0.2))
            case 12 | 13:
                frames.append(book(at, last, bids="99@1 98@1", asks="101@2 102@2", conn=conn, instrument=name))
            case _:
                for each in (A, B) if chance.random() < 0.5 else (conn,):
                    frames.append(book(at, last + 2, last, conn=each, instrument=name, bids=levels, asks="103@1"))
                at_end[name] = last + 2
    return [*raw, *entries(frames, writer=writer, first=max(1, first), size=chance.randrange(1, 4))]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_the_same_bytes_however_the_stream_is_cut_or_the_stage_restored(seed: int) -> None:
    raw = storm(seed)
    expected = play(raw)
    for batch, restore in ((1, True), (7, False), (7, True), (1000, False)):
        found = play(raw, batch=batch, restore=restore)
        assert_same(found, expected)
        assert found.faults == []


def test_the_storm_is_worth_the_trouble() -> None:
    reasons: set[str | None] = set()
    reread = wanted = 0
    for seed in range(30):
        played = play(storm(seed), batch=7, restore=True)
        reasons.update(verdicts(played))
        reread += played.reread
        wanted += len(played.streams.get(KEYS.request, []))
    assert {None, "gap", "closed", "lost", "writer"} <= reasons
    assert reread > 1_000
    assert wanted > 20


def restored(oldest: bytes | None = None, broken: bool = False) -> tuple[Played, Sequence[RawEntry]]:
    """A book with a want, restored from what is left; then its connection goes on."""
    frames = started(book(1, 5, bids="100@1", asks="101@1"), book(2, 9, 7, bids="100@2"), clock(3, a=2.9))
    raw = entries(frames)
    played = play(raw)
    assert list(played.wants) == [f"resync {SPOT} {A}"]
    if broken:
        played.state[f"book:{SPOT}".encode()] = b"\x00"
    every = [Entry(b"%d-0" % number, pack(entry)) for number, entry in enumerate(raw, start=1)]
    played.restore(every, oldest)
    return played, raw


@pytest.mark.parametrize(("oldest", "broken"), [(b"4-0", False), (None, True)])
def test_a_book_that_cannot_be_restored_starts_anew_and_says_so(oldest: bytes | None, broken: bool) -> None:
    played, raw = restored(oldest, broken)
    (fault,) = played.faults
    assert fault.startswith(f"order book {SPOT} starts anew: ")
    go_on(played, [Entry(b"90-0", pack(RawEntry(1, len(raw) + 1, (clock(4, a=3.9),))))])
    last = books(played)[-1]
    assert (last["valid"], last["reason"], last["bids"]) == (False, "waiting", [])
    assert played.last["orderbook"][SPOT] == last
    assert played.wants == {}
    go_on(played, [Entry(b"91-0", pack(RawEntry(1, len(raw) + 2, (book(4, 12, 9, bids="100@1"),))))])
    (want,) = played.wants.values()
    assert want["number"] > 1, "numbers only rise: ingest does each once"
    go_on(played, [Entry(b"92-0", pack(RawEntry(1, len(raw) + 3, (book(5, 20, bids="7@1", asks="8@1"),))))])
    assert books(played)[-1].get("valid", True)
    assert played.wants == {}
    played.restore([Entry(b"91-0", {}), Entry(b"92-0", {})])
    assert len(played.faults) == 1, "once"


def test_what_is_still_there_is_enough_where_nothing_needed_is_gone() -> None:
    played, _ = restored(oldest=b"2-0")
    assert played.faults == []
    assert (row(played)["reason"], list(played.wants)) == ("gap", [f"resync {SPOT} {A}"])


# Binance: the first book comes by REST.


def binance(*frames: Frame) -> Played:
    asked = {"channel": "depth@100ms", "instrument": BTC}
    return run(exchange_info(0, BTC), clock(0), opened(0), subscribed(0, **asked), *frames, exchange="binance")


def test_a_snapshot_is_wanted_by_rest_and_joined_by_its_key() -> None:
    key = f"snapshot {BTC}"
    first = depth(1, 101, 103, bids="100@1")
    assert binance(first).wants[key]["what"] == "snapshot"
    joined = [request(key, 1, "asked", 1.5), snapshot(2, 102, "100@9 99@9", "101@9", key=key)]
    played = binance(first, *joined, request(key, 1, "answered", 2), depth(3, 104, 104, bids="99@0"))
    assert [(record["sequence"], record["bids"]) for record in books(played)] == [
        (103, [["100", "1"], ["99", "9"]]),
        (104, [["100", "1"]]),
    ]
    assert played.wants == {}
    assert row(played, BTC)["snapshots"] == 1


def test_a_snapshot_that_is_too_old_or_refused_is_wanted_again() -> None:
    key = f"snapshot {BTC}"
    old = [snapshot(2, 90, "100@9", "101@9", key=key), request(key, 1, "answered", 2)]
    refused = [request(key, 2, "refused", 4, reason="429"), clock(6), clock(8)]
    frames = [depth(1, 101, 103, bids="100@1"), request(key, 1, "asked", 1.5), *old, clock(3), clock(3.5)]
    assert binance(*frames).wants[key]["number"] == 2
    played = binance(*frames, request(key, 2, "asked", 3.6), *refused)
    assert played.wants[key]["number"] == 3
    assert books(played) == []


def test_a_recorded_depth_reply_without_a_key_joins_too() -> None:
    recorded = [depth(1, 101, 103, bids="100@1"), snapshot(2, 102, "100@9", "101@9"), depth(3, 104, 104, bids="99@1")]
    for frames in (recorded, [recorded[1], recorded[0], recorded[2]]):
        played = run(exchange_info(0, BTC), *frames, exchange="binance")
        assert verdicts(played)[-1] is None
        assert books(played)[-1]["sequence"] == 104
        assert played.wants == {}


def test_a_change_that_comes_after_its_connection_closed_begins_nothing() -> None:
    """The book of a connection that tells nothing more would be shown for ever."""
    begun = [depth(1, 101, 103, bids="100@1"), snapshot(2, 102, "100@9 99@9", "101@9"), opened(2.5, B)]
    asked = {"channel": "depth@100ms", "instrument": BTC}
    both = [*begun, subscribed(2.5, B, **asked), depth(3, 104, 104, bids="99@2", conn=B)]
    late = [closed(3.1), depth(3.2, 104, 105, bids="98@2"), subscribed(3.25, **asked)]
    goes_on = [depth(3.3, 105, 106, bids="97@2", conn=B), depth(3.5, 107, 107, bids="96@2", conn=B)]
    played = binance(*both, *late, *goes_on)
    assert books(played)[-1]["sequence"] == 107
    assert set(verdicts(played)) == {None}
    assert row(played, BTC)["connection"] == B
    assert row(played, BTC)["chains"] == 1
    assert played.wants == {}
    okx = run(*started(book(1, 5, bids="100@1", asks="101@1"), closed(2), book(2.1, 6, 5, bids="100@2"), clock(20)))
    assert verdicts(okx) == [None, "closed"]
    assert okx.wants == {}, "nobody could subscribe again there"


# Rotation.


def okx_rotation(names: list[str]) -> list[Frame]:
    frames = [clock(0), opened(0), *(subscribed(0, instrument=name) for name in names)]
    frames += [book(1, 10, bids="100@1", asks="101@1", instrument=name) for name in names]
    last = 10
    for tick in range(1, 60):
        at = 1 + tick / 10
        new = {20: [opened(at, B), *(subscribed(at, B, name) for name in names)], 40: [closed(at, A)]}.get(tick, [])
        frames += new
        if tick == 21:
            frames += [book(at, last, bids="100@1", asks="101@1", instrument=name, conn=B) for name in names]
        live = [conn for conn, begin, end in ((A, 0, 40), (B, 21, 99)) if begin <= tick < end]
        for name in names[tick % 3 :: 3]:
            # The younger connection is sometimes ahead and sometimes behind.
            for conn in live if tick % 2 else reversed(live):
                frames.append(
                    book(at + 0.01, last + 1, last, bids=f"{90 + tick % 9}@{tick}", instrument=name, conn=conn)
                )
        for name in names:
            if name not in names[tick % 3 :: 3]:
                frames += [book(at + 0.02, last + 1, last, instrument=name, conn=conn) for conn in live]
        last += 1
        frames.append(clock(at + 0.03, 0, **{name: at for name in ("a", "b") if {"a": A, "b": B}[name] in live}))
    return frames


def binance_rotation(names: list[str]) -> list[Frame]:
    frames = [exchange_info(0, *names), clock(0), opened(0)]
    frames += [subscribed(0, instrument=name, channel="depth@100ms") for name in names]
    frames += [depth(1, 10, 11, instrument=name, bids="100@1", asks="101@1") for name in names]
    for name in names:
        key = f"snapshot {name}"
        frames += [request(key, 1, "asked", 1.1), snapshot(1.2, 10, "100@1", "101@1", name, key)]
        frames.append(request(key, 1, "answered", 1.2))
    last = 11
    for tick in range(1, 60):
        at = 1.2 + tick / 10
        if tick == 20:
            frames.append(opened(at, B))
            frames += [subscribed(at, B, name, channel="depth@100ms") for name in names]
        if tick == 40:
            frames.append(closed(at, A))
        live = [conn for conn, begin, end in ((A, 0, 40), (B, 21, 99)) if begin <= tick < end]
        for name in names:
            for conn in live if tick % 2 else reversed(live):
                level = f"{90 + tick % 9}@{tick}"
                frames.append(depth(at + 0.01, last + 1, last + 2, instrument=name, conn=conn, bids=level))
        last += 2
        frames.append(clock(at + 0.03, 0, **{name: at for name in ("a", "b") if {"a": A, "b": B}[name] in live}))
    return frames


@pytest.mark.parametrize("exchange", ["okx", "binance"])
def test_rotating_fifty_symbols_wants_nothing_and_breaks_nothing(exchange: str) -> None:
    if exchange == "okx":
        frames = okx_rotation([f"COIN{number}-USDT" for number in range(50)])
    else:
        frames = binance_rotation([f"COIN{number}USDT" for number in range(50)])
    played = play(entries(frames, size=20), batch=3, exchange=exchange)
    assert played.stream("dead") == []
    assert len(books(played)) > 1_000
    assert set(verdicts(played)) == {None}
    wanted = played.streams.get(KEYS.request, [])
    assert len(wanted) == (0 if exchange == "okx" else 50), "only the first snapshots"
    rows: Any = played.stage.report()["books"]
    assert {(found["connection"], found["valid"], found["invalid"]) for found in rows.values()} == {(B, True, 0)}
    assert played.wants == {}
