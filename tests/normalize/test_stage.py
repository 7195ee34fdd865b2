"""The stage: order, dead letters, gaps, instruments, and the same bytes however the stream is cut."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normalize.outlet import MOST_LETTERS, Outlet
from normalize.state import State
from pipeline.errors import ContractBroken, DecodeError
from pipeline.frames import Frame, RawEntry, pack
from pipeline.steps import Entry, Step
from tests.normalize.playing import (
    KEYS,
    SECOND,
    SPOT,
    T0,
    A,
    B,
    clock,
    closed,
    data,
    entries,
    fill,
    go_on,
    opened,
    play,
    run,
    stage,
    subscription,
    trade,
)
from tests.normalize.test_okx import INVERSE, OPTION, SWAP, UM, rest
from tests.normalize.test_okx import SPOT as SPOT_LISTING


def listing(*elements: dict[str, Any], at: float = 0.0) -> Frame:
    frame = rest({"code": "0", "data": elements})
    return Frame(T0 + round(at * SECOND), frame.conn, "in", "rest", frame.data, frame.url)


def started(*frames: Frame) -> list[Frame]:
    return [clock(0), opened(0), subscription("subscribed", 0), *frames]


def test_a_gap_is_told_before_the_clock_that_found_it_in_both_streams() -> None:
    frames = started(trade(5, 1), trade(9, 2), clock(2.5, a=2.4), clock(4.25, a=4.2), trade(7, 1.5, delay=3))
    played = run(*frames, clock(4.75), *(trade(n, 1.6, delay=3.5) for n in (6, 8)), clock(5.25))
    gaps = played.of("gap")
    assert [(g["state"], g["from_sequence"], g["to_sequence"], g.get("remaining", [])) for g in gaps] == [
        ("opened", 6, 8, [[6, 8]]),
        ("shrunk", 6, 8, [[6, 6], [8, 8]]),
        ("closed", 6, 8, []),
    ]
    assert [g.get("repaired", 0) for g in gaps] == [0, 1, 3]
    assert [(g["time"] - T0) / SECOND for g in gaps] == [4.25, 4.75, 5.25]
    assert gaps[2]["reason"] == "reordered"
    assert gaps == played.stream("gap")
    labels = [label for label, _ in played.ordered()]
    assert labels[labels.index("gap") + 1] == "clock"


def test_reordering_within_two_seconds_leaves_no_record() -> None:
    played = run(*started(trade(5, 1), trade(7, 2), trade(6, 1.5, delay=1), clock(9, a=9)))
    assert played.of("gap") == []
    assert played.trades() == [(0, 5), (0, 7), (0, 6)]


def test_a_new_epoch_is_a_ledger_entry_in_front_of_its_trades() -> None:
    frames = started(trade(1000, 1), *(trade(n, 10 + n) for n in (1, 2, 3)))
    played = run(*frames)
    labels = [label for label, _ in played.ordered() if label in ("trade", "gap")]
    assert labels == ["trade", "gap", "trade", "trade", "trade"]
    (gap,) = played.of("gap")
    assert (gap["cause"], gap["state"], gap["epoch"], gap["from_sequence"]) == ("epoch", "closed", 1, 1)
    assert gap["reason"] == "numbers began again"
    assert played.trades() == [(0, 1000), (1, 1), (1, 2), (1, 3)]


def test_a_changed_listing_time_makes_one_trade_enough() -> None:
    relisted = SPOT_LISTING | {"listTime": "1789999999000"}
    frames = started(listing(SPOT_LISTING), trade(1000, 1), listing(relisted, at=5), trade(1, 10))
    assert run(*frames).trades() == [(0, 1000), (1, 1)]


def test_trades_held_in_vain_become_dead_letters_with_the_trade_inside() -> None:
    frames = started(trade(1000, 1), trade(5, 10), *(clock(11 + 86_400 * day) for day in range(8)))
    played = run(*frames)
    (letter,) = played.stream("dead")
    assert letter["reason"] == "known number with a newer time"
    assert '"sequence":5' in letter["frame"]
    assert played.stage.report()["dead"] == {"known number with a newer time": 1}


def test_repeated_and_stale_entries_are_dropped_and_counted() -> None:
    raw = entries(started(trade(5, 1), trade(6, 2)))
    older = entries([trade(7, 3)], writer=0, first=1)
    played = play([*raw, *raw[2:], *older])
    assert played.trades() == [(0, 5), (0, 6)]
    report = played.stage.report()
    assert (report["repeated"], report["stale"], report["breaks"]) == (len(raw) - 2, 1, 0)
    rows: Any = report["subscriptions"]
    assert rows[SPOT]["duplicates"] == 0


def test_undecoded_frames_become_dead_letters_and_the_rest_goes_on() -> None:
    others = Frame(T0, A, "in", "ws", '{"arg":{"channel":"option-trades","instId":"X"},"data":[]}')
    broken = Frame(T0, A, "in", "ws", '{"arg"')
    strange = Frame(T0, "clock", "in", "clock", "{}")
    played = run(*started(others, broken, strange, data(fill(5, 1), fill(6, 1, px="x"), fill(7, 1), at=1.1)))
    letters = played.stream("dead")
    assert [letter["reason"] for letter in letters] == [
        "channel option-trades is not collected yet",
        "not JSON",
        "not a clock frame of ours",
        "px is not a decimal above zero",
    ]
    assert letters[1]["frame"] == broken.data
    assert letters[1]["length"] == len(broken.data)
    assert played.trades() == [(0, 5), (0, 7)]


def test_a_list_that_nobody_can_read_is_one_dead_letter_not_as_many_copies_of_it() -> None:
    rows = [SPOT_LISTING | {"instId": f"X{n}-USDT", "listTime": "soon", "note": "." * 100} for n in range(2_000)]
    (letter,) = run(listing(*rows, SPOT_LISTING)).streams[KEYS.dead]
    step = Step(KEYS, "normalize")
    normalize = stage()
    normalize.process(Entry(b"1-1", pack(RawEntry(1, 1, (listing(*rows, SPOT_LISTING),)))), step)
    assert step.bytes < 100_000
    assert normalize.report()["dead"] == {letter[5]: 2_000}
    assert normalize.report()["instruments"] == 1


def test_a_frame_is_buried_for_its_first_few_reasons_only() -> None:
    state, step = State({}), Step(KEYS, "normalize")
    outlet = Outlet("okx", "normalize", step)
    outlet.turn(step, state, b"1-1")
    outlet.bury_elements([DecodeError(f"reason {n % 50}") for n in range(100)], "x" * 1_000, T0, A)
    assert step.records == MOST_LETTERS
    assert state.stream.dead == {f"reason {n}": 2 for n in range(50)}


def test_an_entry_somebody_else_wrote_is_buried_and_one_of_another_version_stops() -> None:
    normalize, step = stage(), Step(KEYS, "normalize")
    normalize.process(Entry(b"1-1", {b"hello": b"\xff"}), step)
    assert normalize.report()["dead"] == {"entry is not ours": 1}
    fields = pack(RawEntry(1, 1, ())) | {b"v": b"99"}
    with pytest.raises(ContractBroken):
        normalize.process(Entry(b"1-2", fields), step)


def test_control_frames_are_counted_by_name() -> None:
    pong = Frame(T0, A, "in", "ws", "pong")
    out = Frame(T0, A, "out", "ws", '{"op":"subscribe","args":[]}')
    assert run(opened(0), pong, pong, out).stage.report()["control"] == {"pong": 2, "out subscribe": 1}


def test_instruments_are_emitted_at_first_sight_and_on_change_only() -> None:
    frames = [listing(SWAP, INVERSE), listing(SWAP, INVERSE, at=3600), listing(SWAP | {"tickSz": "0.2"}, at=7200)]
    found = run(*frames).stream("instrument")
    assert [(i["instrument"], i["tick_size"]) for i in found] == [
        ("BTC-USDT-SWAP", "0.1"),
        ("BTC-USD-SWAP", "0.1"),
        ("BTC-USDT-SWAP", "0.2"),
    ]


def test_a_symbol_belongs_to_the_first_that_has_it() -> None:
    twin = UM | {"instId": "BTC-USD_UM-SWAP2"}
    symbols = [
        i["symbol"] for i in run(listing(UM, twin), listing(twin | {"state": "suspend"}, at=1)).stream("instrument")
    ]
    assert symbols == ["BTC-USD_UM-PERP", "BTC-USD_UM-SWAP2", "BTC-USD_UM-SWAP2"]


def test_dated_contracts_leave_the_state_a_week_after_their_end() -> None:
    expired = OPTION | {"expTime": str(T0 // 1_000_000)}
    early, late = listing(expired, SWAP), listing(SWAP, at=7 * 86_400 + 1)
    traded = data(fill(5, 1, "BTC-USD-261225-90000-C"), at=1.1)
    before, after = run(early, *started(traded)), run(early, *started(traded), late)
    assert sum(b"261225" in field for field in before.state) == 3
    assert not any(b"261225" in field for field in after.state)
    assert any(b"BTC-USDT-SWAP" in field for field in after.state)
    contract = "BTC-USD-261225-90000-C"
    assert (after.of("coverage")[-1]["cause"], after.of("coverage")[-1]["instrument"]) == ("ended", contract)
    assert all(contract in before.last[kind] for kind in ("trade", "instrument"))
    assert not any(contract in hashed for hashed in after.last.values())
    assert "BTC-USDT-SWAP" in after.last["instrument"]


def test_a_contract_that_ended_long_ago_is_no_news_however_often_it_is_listed() -> None:
    expired = OPTION | {"expTime": str(T0 // 1_000_000)}
    days = [listing(expired, SWAP, at=day * 86_400) for day in range(8, 12)]
    played = run(listing(expired), *days)
    assert [record["symbol"] for record in played.stream("instrument")] == ["BTC-USD-260921-90000-C", "BTC-USDT-PERP"]
    assert not any(b"261225" in field for field in played.state)


def test_trades_of_derivatives_need_their_instrument() -> None:
    swap = data(fill(5, 1, "BTC-USDT-SWAP", sz="3"), at=1.1)
    unknown = run(*started(swap))
    assert [letter["reason"] for letter in unknown.stream("dead")] == ["unknown instrument"]
    known = run(listing(SWAP), *started(swap))
    (record,) = known.of("trade")
    assert (record["symbol"], record["size"], record["contracts"]) == ("BTC-USDT-PERP", "0.03", "3")


def test_spot_traded_before_any_list_is_emitted_as_instrument_only_when_listed() -> None:
    played = run(*started(trade(5, 1)))
    assert played.stream("instrument") == []
    assert [i["status"] for i in run(*started(trade(5, 1), listing(SPOT_LISTING))).stream("instrument")] == ["live"]


def test_clock_records_are_in_exchange_time() -> None:
    played = run(opened(0), clock(1, None, a=0.5), clock(2, -SECOND, a=1.5))
    unknown, known = played.of("clock")
    assert unknown["time"] is None
    assert "connections" not in unknown
    assert ((known["time"] - T0) / SECOND, (known["received"] - T0) / SECOND) == (1.0, 2.0)
    assert known["connections"] == {A: T0 + SECOND // 2}


@pytest.mark.parametrize("days", [2, -401])
def test_clocks_further_apart_than_any_time_may_be_count_as_unknown(days: int) -> None:
    """One wrong answer of the venue's would close days of candles and books that store refuses, more than it may."""
    played = run(*started(trade(5, 1), clock(2, days * 86_400 * SECOND, a=1.9), clock(3, 0, a=2.9)))
    assert [(c.get("time"), "connections" in c) for c in played.of("clock")][1:] == [
        (None, False),
        (T0 + 3 * SECOND, True),
    ]


def test_the_report_says_what_status_needs() -> None:
    played = run(*started(trade(5, 1), trade(5, 1), trade(9, 2), trade(7, 1.5), clock(9, a=9)))
    rows: Any = played.stage.report()["subscriptions"]
    row = rows[SPOT]
    assert (row["symbol"], row["kind"], row["connection"], row["covered"]) == (SPOT, "trade", A, True)
    assert (row["trades"], row["duplicates"], row["reordered"]) == (3, 1, 1)
    assert (row["open_gaps"], row["missing"]) == (1, 2)
    assert row["since"] == T0 + 2 * SECOND
    assert row["last_trade"] == T0 + 2 * SECOND


def test_a_subscription_without_data_is_in_the_report() -> None:
    rows: Any = run(*started()).stage.report()["subscriptions"]
    assert rows[SPOT]["covered"] is False
    assert rows[SPOT]["last_message"] is None


def test_the_end_tells_young_gaps_and_uncovers() -> None:
    played = run(*started(trade(5, 1), trade(9, 2)), end=True)
    assert [label for label, _ in played.ordered()][-2:] == ["coverage", "gap"]


def test_state_is_saved_by_what_changed() -> None:
    normalize = stage()
    steps = []
    for number, entry in enumerate(entries(started(trade(5, 1), clock(2, a=1.9)))):
        step = Step(KEYS, "normalize")
        normalize.process(Entry(b"%d-0" % number, pack(entry)), step)
        normalize.save(step)
        steps.append(next(c[2::2] for c in step.commands() if c[0] == "HSET" and c[1] == KEYS.state("normalize")))
    assert steps[0] == ("stream",)
    assert steps[3] == ("stream", f"connection:{A}", f"cover:{SPOT}", f"continuity:{SPOT}", f"instrument:{SPOT}")
    assert steps[4] == ("stream", f"connection:{A}")


def test_a_closed_connection_leaves_the_state() -> None:
    played = run(*started(trade(5, 1), closed(2)))
    assert f"connection:{A}".encode() not in played.state


def storm(seed: int) -> list[RawEntry]:
    """Two connections, two instruments, losses, disorder, restarts of numbers, writers and connections."""
    chance = random.Random(seed)
    frames: list[Frame] = [clock(0), listing(SWAP, SPOT_LISTING, OPTION), opened(0), opened(0.1, B)]
    numbers, at, raw, writer, first = {SPOT: 100, "BTC-USDT-SWAP": 5000}, 1.0, [], 1, 1
    for _ in range(chance.randrange(50, 250)):
        at += chance.random() * 1.5
        name, conn = chance.choice(list(numbers)), chance.choice([A, B])
        match chance.randrange(14):
            case 0:
                frames.append(closed(at, conn))
            case 1:
                frames.append(opened(at, conn))
            case 2:
                numbers[name] = chance.choice([1, numbers[name] + 5_000_000, numbers[name] + 3])
            case 3:
                frames.append(subscription(chance.choice(["subscribed", "unsubscribed"]), at, conn, instrument=name))
            case 4:
                raw += entries(frames, writer=writer, first=first, size=chance.randrange(1, 5))
                first, frames = raw[-1].n + 1 if raw else 1, []
                if chance.random() < 0.3:
                    writer, first = writer + 1, 1
                elif chance.random() < 0.5:
                    first += chance.choice([1, -2])
            case 5:
                frames.append(Frame(T0 + round(at * SECOND), conn, "in", "ws", "{"))
            case 6 | 7 | 8:
                frames.append(clock(at, chance.choice([0, 5 * SECOND, None]), a=at - 0.1, b=at - 0.2))
            case _:
                known = chance.randrange(max(1, numbers[name] - 5), numbers[name] + 1)
                picked = [known] if chance.random() < 0.3 else range(numbers[name], numbers[name] + 3)
                frames.append(data(*(fill(n, at - 0.05, name) for n in picked), at=at, conn=conn))
                numbers[name] = max(numbers[name], picked[-1] + 1)
    return [*raw, *entries(frames, writer=writer, first=max(1, first))]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_the_same_bytes_however_the_stream_is_cut_or_the_stage_restored(seed: int) -> None:
    raw = storm(seed)
    expected = play(raw)
    for batch, restore in ((1, True), (7, False), (7, True), (1000, False)):
        played = play(raw, batch=batch, restore=restore)
        # A want that is taken back in the step that made it wakes nobody.
        for stream in {*expected.streams, *played.streams} - {KEYS.request}:
            assert played.streams.get(stream) == expected.streams.get(stream)
        assert played.state == expected.state
    passed = expected.trades(SPOT)
    assert len(passed) == len(set(passed))
    passed = expected.trades("BTC-USDT-SWAP")
    assert len(passed) == len(set(passed))


def test_a_thousand_gaps_that_nobody_fills_stop_no_instrument() -> None:
    frames = started()
    for number in range(1, 2_006, 2):
        frames.append(trade(number, number / 100))
    played = run(*frames, clock(25))
    assert len(played.trades()) == 1_003
    given_up = [gap for gap in played.of("gap") if gap["state"] == "closed"]
    assert [(gap["from_sequence"], gap["reason"], gap["remaining"]) for gap in given_up] == [
        (2, "given up", [[2, 2]]),
        (4, "given up", [[4, 4]]),
    ]
    assert not played.streams.get(KEYS.dead)


def as_saved_before(state: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """As version 1 of the state was first written: the times of the last data stood in the cover's field."""
    older = dict(state)
    for field in [field for field in state if field.startswith(b"cover:")]:
        cover, numbers = json.loads(state[field]), json.loads(state[field.replace(b"cover:", b"continuity:")])
        times = {name: numbers.pop(name) for name in ("message", "shown")}
        older[field] = json.dumps(cover | times).encode()
        older[field.replace(b"cover:", b"continuity:")] = json.dumps(numbers).encode()
    return older


def test_times_of_the_last_data_saved_by_an_earlier_version_are_kept() -> None:
    """Without an estimate of the exchange's clock they are all that says until when the instrument was covered."""
    raw = entries([clock(0, None), opened(0), trade(5, 1), trade(6, 2), closed(3), opened(4), trade(7, 5)])
    expected, played = play(raw), play(raw[:4])
    assert json.loads(as_saved_before(played.state)[b"cover:BTC-USDT"])["shown"] == T0 + 2 * SECOND
    played.state = as_saved_before(played.state)
    for number, entry in enumerate(raw[4:], start=5):
        played.restore([])
        go_on(played, [Entry(b"%d-0" % number, pack(entry))])
    assert played.streams == expected.streams
    assert played.state == expected.state
