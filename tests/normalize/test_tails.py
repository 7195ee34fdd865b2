"""After a break of coverage, instruments that stay silent have the exchange asked for their newest trades."""

import json
from typing import Any

import pytest

from normalize.tail import AFTER, CERTAIN
from normalize.tails import GIVEN_UP, MOST, UNUSED
from pipeline.frames import Frame, pack
from pipeline.steps import Entry
from pipeline.wants import newest_key, newest_of, trades_of
from tests.normalize.fetching import answered, ascending, live, page, paged, refused, told
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
    exchange_info,
    fill,
    go_on,
    opened,
    play,
    request,
    run,
    subscription,
    trade,
)

KEY = newest_key(SPOT, 0, 6)
COLLECTED = [clock(0), opened(0), subscription("subscribed", 0), trade(5, 1), clock(2, a=2)]
CUT = [*COLLECTED, closed(3)]
AGAIN = [*CUT, opened(4, B), subscription("requested", 4, B), subscription("subscribed", 5, B)]
ASKED = [*AGAIN, clock(15.25, b=15)]
"""Wanted at 15.25, ten seconds after the subscription stands."""
NOTHING = [*ASKED, answered(1, 16, 6, 5, KEY)]
SURE = 5 + CERTAIN / SECOND


def wanted(*frames: Frame, exchange: str = "okx") -> dict[str, dict[str, Any]]:
    return run(*frames, exchange=exchange).wants


def test_who_stays_silent_after_a_cut_is_asked_for() -> None:
    assert wanted(*AGAIN, clock(14.75, b=14)) == {}
    assert wanted(*ASKED) == {
        KEY: {
            "what": "trades",
            "instrument": SPOT,
            "number": 1,
            "since": T0 + round(15.25 * SECOND),
            "reason": "silence",
            "first": 6,
        }
    }
    shown: Any = run(*ASKED).stage.report()["wants"]
    assert (shown[KEY]["first"], shown[KEY]["last"]) == (6, None)


def test_keys_of_gaps_and_of_the_newest_are_told_apart() -> None:
    key = newest_of(KEY)
    assert key is not None
    assert (key.instrument, key.epoch, key.first) == (SPOT, 0, 6)
    assert trades_of(KEY) is None
    assert newest_of("trades BTC-USDT 0 6") is None


@pytest.mark.parametrize(
    "frames",
    [
        [*COLLECTED, clock(50, a=50)],
        [*AGAIN, trade(6, 6, B), clock(50, b=50)],
        [*AGAIN, trade(9, 6, B), clock(6.5, b=6)],
        [clock(0), opened(0), subscription("subscribed", 0), closed(1), clock(50)],
    ],
    ids=["never cut", "the next number came", "a number behind a gap came", "never a trade"],
)
def test_nobody_else_is(frames: list[Frame]) -> None:
    assert wanted(*frames) == {}


def test_what_is_new_passes_once_and_proves_no_coverage() -> None:
    new = page(16, KEY, (7, 3.5), (6, 3.2), (5, 1))
    played = run(*ASKED, new, answered(1, 16.1, 6, 7, KEY), trade(7, 3.5, B, delay=13), trade(8, 20, B))
    found = [(r["sequence"], r.get("repaired", False)) for r in played.of("trade")]
    assert found == [(5, False), (6, True), (7, True), (8, False)]
    labels = [(label, r.get("state")) for label, r in played.ordered() if label in ("trade", "coverage")]
    assert labels[2:5] == [("coverage", "uncovered"), ("trade", None), ("trade", None)]
    assert played.of("gap") == []
    assert run(*ASKED, new).last["trade"][SPOT]["sequence"] == 7, "it is the newest there is"
    row: Any = played.stage.report()["subscriptions"]
    assert (row[SPOT]["repaired"], row[SPOT]["repair_overlaps"], row[SPOT]["duplicates"]) == (2, 1, 1)


def test_what_lies_below_the_page_is_an_ordinary_gap() -> None:
    played = run(*ASKED, page(16, KEY, (21, 3.6), (20, 3.5)), answered(1, 16.1, 6, 21, KEY), clock(19))
    assert played.trades() == [(0, 5), (0, 20), (0, 21)]
    assert told(played.of("gap")) == [("opened", None, [[6, 19]])]
    assert list(played.wants) == ["trades BTC-USDT 0 6"]


def test_nothing_new_is_believed_once_the_answer_cannot_be_of_before_the_break() -> None:
    assert wanted(*NOTHING, clock(SURE - 0.25, b=70)) == {}
    again = [*NOTHING, clock(SURE, b=70)]
    assert wanted(*again)[KEY]["number"] == 2
    done = [*again, answered(2, SURE + 1, 6, 5, KEY), clock(2 * SURE, b=140), clock(9 * SURE, b=700)]
    assert wanted(*done) == {}


def test_what_the_second_answer_has_passes_too() -> None:
    late = [page(SURE + 1, KEY, (6, 3.2), (5, 1)), answered(2, SURE + 1.1, 6, 6, KEY), clock(9 * SURE)]
    played = run(*NOTHING, clock(SURE, b=70), *late)
    assert played.trades() == [(0, 5), (0, 6)]
    assert played.wants == {}


def test_the_want_behind_new_trades_is_another_one() -> None:
    found = [page(16, KEY, (6, 3.2)), answered(1, 16.1, 6, 6, KEY), clock(SURE, b=70)]
    assert [(want["first"], want["number"]) for want in wanted(*ASKED, *found).values()] == [(7, 2)]


def test_refused_for_now_is_wanted_anew_and_for_good_is_counted() -> None:
    for_now = [*ASKED, request(KEY, 1, "asked", 15.5), refused(1, 16, "429", KEY)]
    shown: Any = run(*for_now).stage.report()["wants"]
    assert (shown[KEY]["answer"], shown[KEY]["waits"]) == ("429", 5 * SECOND)
    assert wanted(*for_now, clock(20.75)) == {}
    assert wanted(*for_now, clock(21))[KEY]["number"] == 2
    for_good = [*ASKED, refused(1, 16, "no such instrument", KEY, permanent=True), clock(200), clock(400)]
    played = run(*for_good)
    control: Any = played.stage.report()["control"]
    assert (played.wants, control[GIVEN_UP]) == ({}, 1)
    anew = [*for_good, subscription("subscribed", 401, B), clock(412)]
    assert wanted(*anew)[KEY]["number"] == 2, "what is wanted again never has a number of before"


def test_a_subscription_that_is_refused_is_asked_for_too() -> None:
    gone = [*CUT, opened(4, B), subscription("refused", 5, B), clock(15.25, b=15)]
    assert list(wanted(*gone)) == [KEY]


def test_another_break_makes_what_was_told_worthless() -> None:
    """The second connection never showed anything, and is gone: what it would have brought is not known."""
    sure = [*NOTHING, clock(SURE, b=70), answered(2, SURE + 1, 6, 5, KEY)]
    assert list(wanted(*sure, closed(100, B), clock(111))) == [KEY]
    assert wanted(*sure, closed(100, A), clock(111)) == {}
    while_asked = [*ASKED, closed(15.5, B), answered(1, 16, 6, 5, KEY)]
    assert wanted(*while_asked, clock(25.25)) == {}
    assert wanted(*while_asked, clock(25.5))[KEY]["number"] == 2


def test_trades_of_a_connection_that_is_gone_prove_nothing() -> None:
    late = [*CUT, trade(6, 2.9, delay=0.2), opened(4, B), subscription("subscribed", 5, B), clock(15.25, b=15)]
    assert list(wanted(*late)) == [newest_key(SPOT, 0, 7)]


def test_a_replayed_trade_that_is_known_proves_nothing() -> None:
    assert list(wanted(*AGAIN, trade(5, 1, B, delay=5), clock(15.25, b=15))) == [KEY]


def test_another_writer_has_to_subscribe_first() -> None:
    """What the settings do not name any more is not collected."""
    other = [clock(100), opened(100, B), clock(150, b=150)]
    for before in (COLLECTED, CUT, ASKED):
        alone = play([*entries(before), *entries(other, writer=2)])
        assert alone.wants == {}
        begun = play([*entries(before), *entries([*other, subscription("subscribed", 151, B), clock(162)], writer=2)])
        assert [want["first"] for want in begun.wants.values()] == [6]


def test_after_frames_were_lost_everybody_is_asked_for() -> None:
    for before in (COLLECTED, ASKED):
        at = 20
        raw = [*entries(before), *entries([clock(at), clock(at + 9.75), clock(at + 10.25)], first=99)]
        assert list(play(raw[:-1]).wants) == []
        assert [want["first"] for want in play(raw).wants.values()] == [6]


def test_rows_that_cannot_be_read_are_asked_for_again() -> None:
    torn = paged(16, KEY, fill(6, 3.2, px="?"), fill(5, 1))
    played = run(*ASKED, torn, answered(1, 16.1, 6, 6, KEY), clock(20))
    assert played.wants == {}
    shown: Any = played.stage.report()["wants"]
    assert shown[KEY]["answer"] == UNUSED
    assert run(*ASKED, torn, answered(1, 16.1, 6, 6, KEY), clock(21.25)).wants[KEY]["number"] == 2


def test_so_many_are_wanted_at_a_time() -> None:
    names = [f"C{number:03}-USDT" for number in range(MOST + 5)]
    before = [data(fill(5, 1, name), at=1) for name in names]
    frames = [clock(0), opened(0), *before, clock(2, a=2), closed(3), clock(13.25)]
    found = wanted(*frames)
    assert [want["instrument"] for want in found.values()] == names[:MOST]
    ends = [answered(1, 14, 6, 5, key) for key in list(found)[:3]]
    assert len(wanted(*frames, *ends)) == MOST - 3
    assert len(wanted(*frames, *ends, clock(15))) == MOST


def test_it_is_the_same_on_the_other_exchange() -> None:
    conn = "wss://stream.binance.com/stream#1"
    key = newest_key("BTCUSDT", 0, 6)
    channel: dict[str, Any] = {"channel": "trade", "instrument": "BTCUSDT"}
    before = [clock(0), exchange_info(0, "BTCUSDT"), opened(0, conn)]
    before += [subscription("subscribed", 0, conn, **channel), live(5, 1), closed(3, conn)]
    frames = [*before, opened(4, conn), subscription("subscribed", 5, conn, **channel), clock(15.25)]
    assert list(wanted(*frames, exchange="binance")) == [key]
    played = run(*frames, ascending(16, key, (5, 1), (6, 3.2)), exchange="binance")
    assert played.trades() == [(0, 5), (0, 6)]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("restore", [False, True])
def test_batches_and_restarts_change_nothing(size: int, restore: bool) -> None:
    second = [clock(SURE, b=70), page(SURE + 1, KEY, (9, 3.4)), answered(2, SURE + 1.1, 6, 9, KEY), clock(SURE + 2)]
    frames = [*NOTHING, *second, clock(SURE + 4), closed(SURE + 5, B), clock(SURE + 16), clock(SURE + 90)]
    once = run(*frames)
    assert len(once.wants) == 2
    other = play(entries(frames), batch=size, restore=restore)
    # Within a step a want that is taken back wakes nobody.
    del other.streams[KEYS.request], once.streams[KEYS.request]
    assert (other.streams, other.wants, other.state) == (once.streams, once.wants, once.state)


def test_what_was_saved_before_is_read() -> None:
    """There were no tails in it: the next break begins one, or the next subscription of what is not covered."""
    played = run(*COLLECTED)
    assert not [field for field in played.state if field.startswith(b"tail:")]
    saved = run(*CUT).state
    assert json.loads(saved[f"tail:{SPOT}".encode()]) == {
        "since": 3 * SECOND,
        "epoch": 0,
        "next": 6,
        "due": 3 * SECOND + AFTER,
    }
    assert not [field for field in run(*AGAIN, trade(6, 6, B)).state if field.startswith(b"tail:")]


def test_what_was_not_covered_when_the_program_was_replaced_is_asked_for() -> None:
    played = run(*CUT)
    del played.state[f"tail:{SPOT}".encode()]
    played.restore([])
    go_on(played, _entries([opened(4, B), subscription("subscribed", 5, B), clock(15.25, b=15)], len(CUT)))
    assert list(played.wants) == [KEY]


def _entries(frames: list[Frame], before: int) -> list[Entry]:
    raw = entries(frames, first=before + 1)
    return [Entry(b"%d-0" % (before + number), pack(entry)) for number, entry in enumerate(raw, start=1)]
