"""Holes are wanted, pages fill them, and normalize alone says when a number will never come."""

import json
from typing import Any

import msgspec
import pytest

from normalize.holes import BEGIN_AT_ONE, GIVEN_UP
from normalize.repairs import ENDED, FIRST_PAUSE, LACKED, LONGEST_PAUSE, MOST, MOST_OF_ONE, MOST_UNREAD, pause
from normalize.state import State
from pipeline.frames import Frame, pack
from pipeline.steps import Entry, Step
from pipeline.wants import trades_key, trades_of
from tests.normalize.fetching import KEY, answered, ascending, live, page, paged, refused, told
from tests.normalize.playing import (
    KEYS,
    SECOND,
    SPOT,
    T0,
    Played,
    clock,
    closed,
    data,
    entries,
    exchange_info,
    fill,
    go_on,
    opened,
    play,
    run,
    subscription,
    trade,
)

SWAP = "BTC-USDT-SWAP"
MISSED = [clock(0), opened(0), subscription("subscribed", 0), trade(5, 1), trade(10, 2)]
"""6 … 9 are missing since 2.01."""
WANTED = [*MISSED, clock(4.25)]


def row(played: Played, name: str = SPOT) -> dict[str, Any]:
    rows: Any = played.stage.report()["subscriptions"]
    found: dict[str, Any] = rows[name]
    return found


def test_a_hole_is_wanted_once_it_is_a_gap() -> None:
    assert run(*MISSED, clock(3.9)).wants == {}
    played = run(*WANTED)
    assert played.wants == {
        "trades BTC-USDT 0 6": {
            "what": "trades",
            "instrument": SPOT,
            "number": 1,
            "since": T0 + round(4.25 * SECOND),
            "reason": "gap",
            "first": 6,
            "last": 9,
            "from_time": T0 + SECOND,
            "to_time": T0 + 2 * SECOND,
        }
    }
    assert [record["state"] for record in played.of("gap")] == ["opened"]
    assert row(played)["wanted"] == 1
    shown: Any = played.stage.report()["wants"]
    assert (shown[KEY]["first"], shown[KEY]["last"], shown[KEY]["what"]) == (6, 9, "trades")


def test_nothing_is_wanted_before_the_first_number() -> None:
    replayed = data(fill(5, -100), at=1)
    assert run(clock(0), opened(0), replayed, clock(9, a=8)).wants == {}


def test_pages_fill_the_gap_and_what_they_bring_besides_is_counted_apart() -> None:
    pages = [page(5, KEY, (10, 2), (9, 1.9), (8, 1.8)), page(5.1, KEY, (7, 1.7), (6, 1.6), (5, 1))]
    played = run(*WANTED, *pages, answered(1, 5.2, 6, 9), clock(5.25))
    assert [(r["sequence"], r.get("repaired", False)) for r in played.of("trade")] == [
        (5, False),
        (10, False),
        (9, True),
        (8, True),
        (7, True),
        (6, True),
    ]
    assert told(played.of("gap")) == [("opened", None, [[6, 9]]), ("closed", "filled", [])]
    assert played.of("gap")[-1]["repaired"] == 4
    assert played.wants == {}
    found = row(played)
    assert (found["duplicates"], found["repaired"], found["repair_overlaps"]) == (0, 4, 2)
    assert (found["missing"], found["open_gaps"], found["wanted"], found["unrecoverable"]) == (0, 0, 0, 0)
    assert played.last["trade"][SPOT]["sequence"] == 10, "what is fetched is not the newest"


def test_the_closing_stands_behind_the_trades_of_the_pages() -> None:
    played = run(*WANTED, page(5, KEY, (8, 1.8)), refused(1, 5.2, "older", permanent=True), trade(11, 5.3), clock(5.5))
    labels = [(label, r.get("sequence"), r.get("state")) for label, r in played.ordered() if label in ("trade", "gap")]
    assert labels[-4:] == [
        ("gap", None, "opened"),
        ("trade", 8, None),
        ("trade", 11, None),
        ("gap", None, "closed"),
    ]
    assert told(played.of("gap"))[-1] == ("closed", "unrecoverable: older", [[6, 7], [9, 9]])
    assert row(played)["unrecoverable"] == 3


def test_a_page_opens_no_gap_begins_no_epoch_and_proves_no_coverage() -> None:
    """REST may know what the socket has not brought, or trades from before we began, or of another listing."""
    newer = page(5, KEY, (20, 4.9), (12, 4.8), (11, 4.7))
    early = page(5.1, KEY, (3, 0.5), (2, 0.4), (1, 0.3))
    again = page(5.2, KEY, (3, 500), (2, 499), (1, 498))
    played = run(*WANTED, newer, early, again, clock(7))
    assert played.trades() == [(0, 5), (0, 10)]
    assert [gap["from_sequence"] for gap in played.of("gap")] == [6]
    assert [change["state"] for change in played.of("coverage")] == ["covered"]
    assert row(played)["held"] == 0
    assert row(played)["repair_overlaps"] == 9
    assert run(*WANTED, newer, trade(11, 4.7), trade(12, 5.3), clock(9, a=8)).trades() == [
        (0, n) for n in (5, 10, 11, 12)
    ]


def test_trades_of_another_time_do_not_fill_a_gap_with_their_numbers() -> None:
    """The exchange lists the instrument anew and knows only its new trades."""
    played = run(*WANTED, page(5, KEY, *((n, 400) for n in (9, 8, 7, 6))), clock(6))
    assert played.trades() == [(0, 5), (0, 10)]


def test_a_want_shrinks_at_most_once_a_second_and_wakes_nobody() -> None:
    frames = [*WANTED, page(4.5, KEY, (9, 1.9)), clock(4.75)]
    assert run(*frames).wants[KEY]["last"] == 9
    frames += [page(5, KEY, (6, 1.6)), clock(5.25)]
    played = run(*frames)
    assert (played.wants[KEY]["number"], played.wants[KEY]["first"], played.wants[KEY]["last"]) == (1, 7, 8)
    assert len(played.streams[KEYS.request]) == 1
    assert told(played.of("gap")) == [
        ("opened", None, [[6, 9]]),
        ("shrunk", None, [[6, 8]]),
    ], "a second shrinking within the second waits"
    assert told(run(*frames, clock(6)).of("gap"))[-1] == ("shrunk", None, [[7, 8]])


def test_what_three_answers_span_and_lack_is_unrecoverable() -> None:
    frames = [*WANTED, page(5, KEY, (9, 1.9), (6, 1.6)), answered(1, 5.1, 6, 9), clock(10)]
    assert run(*frames).wants == {}, "5 s after the answer"
    frames += [clock(10.25)]
    assert (run(*frames).wants[KEY]["number"], run(*frames).wants[KEY]["first"]) == (2, 7)
    frames += [answered(2, 11, 7, 8), clock(21.25), clock(65)]
    assert run(*frames).wants == {}, "its history may be so far behind"
    frames += [clock(65.25)]
    played = run(*frames)
    assert played.wants[KEY]["number"] == 3
    assert played.wants[KEY]["since"] == T0 + round(4.25 * SECOND), "a minute after it lacked them first"
    played = run(*frames, answered(3, 66, 7, 8), clock(66.25))
    assert told(played.of("gap"))[-1] == ("closed", LACKED, [[7, 8]])
    assert played.wants == {}
    assert row(played)["unrecoverable"] == 2
    assert row(played)["since"] == T0 + 2 * SECOND
    assert not any(field.startswith(b"hole:") for field in played.state)
    late = run(*frames, answered(3, 66, 7, 8), trade(7, 1.7, delay=65), clock(66.25))
    assert (0, 7) not in late.trades(), "what is named as lost stays lost"


def test_a_number_counts_as_lacked_only_by_answers_that_span_it() -> None:
    spans = [(6, 7), (8, 9), (8, 9), (6, 9), (6, 9)]
    frames, at = list(WANTED), 5.0
    for number, (first, last) in enumerate(spans, start=1):
        frames += [answered(number, at, first, last), clock(at + 601)]
        at += 602
    played = run(*frames[:-2])
    assert played.of("gap")[-1]["state"] == "opened", "8 and 9 were lacked three times, 6 and 7 twice"
    assert (played.wants[KEY]["first"], played.wants[KEY]["last"]) == (6, 7)
    late = run(*frames[:-2], trade(8, 1.8, delay=at), clock(at + 1))
    assert (0, 8) in late.trades(), "until the gap is closed nothing is refused"
    assert told(run(*frames).of("gap"))[-1] == ("closed", LACKED, [[6, 9]])


def _bad_pages(answers: int, *rows: dict[str, str]) -> list[Frame]:
    """So many answers of one page, which spans 6 to 9, with these rows; their frames, each want 700 s apart."""
    frames: list[Frame] = []
    for number in range(1, answers + 1):
        at = 700.0 * number
        frames += [paged(at, KEY, *rows), answered(number, at + 0.1, 6, 9), clock(at + 0.25), clock(at + 650)]
    return frames


SIX_AND_NINE = fill(9, 1.9), fill(6, 1.6)


def test_a_row_that_cannot_be_read_is_not_one_the_exchange_does_not_have() -> None:
    rows = (*SIX_AND_NINE, fill(8, 1.8, px="ten"), fill(7, 1.7, side="long"))
    played = run(*WANTED, *_bad_pages(MOST_UNREAD, *rows))
    assert told(played.of("gap"))[-1][0] == "shrunk"
    assert played.wants[KEY]["number"] == MOST_UNREAD + 1, "the first answer brought something, so it does not count"
    assert {letter["reason"] for letter in played.stream("dead")} >= {"side is neither buy nor sell"}
    better = paged(9_000, KEY, fill(8, 1.8), fill(7, 1.7))
    healed = run(*WANTED, *_bad_pages(MOST_UNREAD, *rows), better, clock(9_001))
    assert told(healed.of("gap"))[-1] == ("closed", "filled", [])
    lost = run(*WANTED, *_bad_pages(MOST_UNREAD + 1, *rows))
    reason = "unrecoverable: the exchange's rows of 7-8 cannot be read"
    assert told(lost.of("gap"))[-1] == ("closed", reason, [[7, 8]])
    assert (lost.wants, row(lost)["unrecoverable"]) == ({}, 2)


def test_what_cannot_be_read_and_what_is_not_there_are_told_apart_by_number() -> None:
    played = run(*WANTED, *_bad_pages(MOST_UNREAD + 1, *SIX_AND_NINE, fill(8, 1.8, px="ten")))
    reason = "unrecoverable: the exchange's rows of 8 cannot be read; it does not have 7"
    assert told(played.of("gap"))[-1] == ("closed", reason, [[7, 8]])


def test_a_row_that_could_not_be_read_once_may_be_lacked_later() -> None:
    frames = _bad_pages(2, *SIX_AND_NINE, fill(8, 1.8, px="ten"), fill(7, 1.7, px="ten"))
    frames += [f for n in (3, 4, 5) for f in (answered(n, 700.0 * n, 6, 9), clock(700.0 * n + 650))]
    assert told(run(*WANTED, *frames).of("gap"))[-1] == ("closed", LACKED, [[7, 8]])


def test_a_row_without_a_number_is_only_a_dead_letter() -> None:
    odd = [fill(8, 1.8, tradeId=number) for number in ("", "x", "9" * 5_000)]
    played = run(*WANTED, paged(5, KEY, *SIX_AND_NINE, *odd), clock(7))
    assert told(played.of("gap"))[-1] == ("shrunk", None, [[7, 8]])
    assert len(played.stream("dead")) == 1


def test_a_page_that_cannot_be_read_at_all_lacks_nothing() -> None:
    def broken(at: float) -> Frame:
        return msgspec.structs.replace(page(at, KEY, (9, 1.9)), data='{"code":"0","msg":"","data":"none"}')

    frames: list[Frame] = []
    for number in range(1, MOST_UNREAD + 1):
        at = 700.0 * number
        frames += [broken(at), answered(number, at + 0.1, 6, 9), clock(at + 0.25), clock(at + 650)]
    played = run(*WANTED, *frames[:-4])
    assert [gap["state"] for gap in played.of("gap")] == ["opened"]
    reason = "unrecoverable: the exchange's rows of 6-9 cannot be read"
    assert told(run(*WANTED, *frames).of("gap"))[-1] == ("closed", reason, [[6, 9]])


def test_what_pages_could_not_tell_outlives_a_restart() -> None:
    frames = [*WANTED, *_bad_pages(MOST_UNREAD + 1, *SIX_AND_NINE, fill(8, 1.8, px="ten"))]
    assert play(entries(frames), restore=True).streams == run(*frames).streams


def test_binance_rows_that_cannot_be_read_are_told_too() -> None:
    conn = "wss://stream.binance.com/stream#1"
    frames = [exchange_info(0, "BTCUSDT"), clock(0), opened(0, conn), live(5, 1), live(9, 2), clock(4.25)]
    key = trades_key("BTCUSDT", 0, 6)
    whole = ascending(0, key, (6, 1.6), (7, 1.7), (8, 1.8))
    bad = whole.data.replace('"id": 7, "price": "100.50000000"', '"id": 7, "price": 100.5')
    for number in range(1, MOST_UNREAD + 2):
        at = 700.0 * number
        frames.append(msgspec.structs.replace(whole, data=bad, ts=T0 + round(at * SECOND)))
        frames += [answered(number, at + 0.1, 6, 8, key), clock(at + 0.25), clock(at + 650)]
    reason = "unrecoverable: the exchange's rows of 7 cannot be read"
    assert told(run(*frames, exchange="binance").of("gap"))[-1] == ("closed", reason, [[7, 7]])


def test_what_an_answer_does_not_span_stays_wanted_at_once_where_it_went_on() -> None:
    frames = [*WANTED, page(5, KEY, (9, 1.9), (8, 1.8)), answered(1, 5.1, 8, 9), clock(5.25)]
    want = run(*frames).wants[KEY]
    assert (want["number"], want["first"], want["last"]) == (2, 6, 7)
    idle = run(*frames, answered(2, 6, 8, 9), clock(10.5))
    assert idle.wants == {}
    assert run(*frames, answered(2, 6, 8, 9), clock(11)).wants[KEY]["number"] == 3


def test_an_answer_without_a_span_is_no_answer() -> None:
    played = run(*WANTED, *[f for n in range(1, 6) for f in _round(n, None)])
    assert played.wants[KEY]["number"] == 6
    assert played.of("gap")[-1]["state"] == "opened"


def _round(number: int, reason: str | None) -> list[Frame]:
    at = 700.0 * number
    end = answered(number, at, 1, 2) if reason is None else refused(number, at, reason)
    return [end, clock(at + 0.25), clock(at + 650)]


def test_a_refusal_for_now_is_tried_for_ever() -> None:
    shown: Any = run(*WANTED, refused(1, 5, "429"), clock(6)).stage.report()["wants"]
    assert (shown[KEY]["waits"], shown[KEY]["answer"], shown[KEY]["number"]) == (4 * SECOND, "429", 1)
    played = run(*WANTED, *[frame for number in range(1, 31) for frame in _round(number, "429")])
    assert played.wants[KEY]["number"] == 31
    assert [pause(n) // SECOND for n in (1, 2, 3, 7, 8, 9, 99)] == [5, 10, 20, 320, 600, 600, 600]
    assert (FIRST_PAUSE, LONGEST_PAUSE) == (5 * SECOND, 600 * SECOND)


def test_words_of_another_number_or_another_key_change_nothing() -> None:
    others = [
        refused(2, 5, "gone", permanent=True),
        refused(1, 5, "gone", "trades BTC-USDT 1 6", permanent=True),
        refused(1, 5, "gone", "trades BTC-USDT 0 7", permanent=True),
        refused(1, 5, "gone", "trades ETH-USDT 0 6", permanent=True),
        refused(1, 5, "gone", "snapshot BTC-USDT", permanent=True),
        refused(1, 5, "gone", "trades BTC-USDT 0 x", permanent=True),
        answered(0, 5, 6, 9),
    ]
    played = run(*WANTED, *others, clock(6))
    assert played.wants[KEY]["number"] == 1
    assert [gap["state"] for gap in played.of("gap")] == ["opened"]
    gone = run(*WANTED, refused(1, 5, "no", permanent=True), clock(6), answered(1, 7, 6, 9), clock(8))
    assert told(gone.of("gap"))[-1] == ("closed", "unrecoverable: no", [[6, 9]])


def test_a_gap_filled_by_other_means_takes_its_want_back() -> None:
    played = run(*WANTED, *(trade(n, 1.5, delay=3) for n in (6, 7, 8, 9)), clock(5))
    assert played.wants == {}
    assert told(played.of("gap"))[-1] == ("closed", "reordered", [])
    assert played.of("trade")[-1].get("repaired") is None


def test_after_frames_were_lost_every_want_is_told_anew() -> None:
    """Among them may have been the end of it: ingest does a number once."""
    raw = entries(WANTED)
    lost = play([*raw, *entries([clock(5)], first=len(raw) + 2)])
    assert lost.wants[KEY]["number"] == 2
    writer = play([*raw, *entries([clock(5)], writer=2)])
    assert writer.wants[KEY]["number"] == 1, "another ingest reads all that is wanted"


def test_the_oldest_come_first_and_so_many_at_a_time() -> None:
    frames = [clock(0), opened(0), trade(0, 0.5)]
    frames += [trade(2 * n, n) for n in range(1, 40)]
    frames.append(clock(60))
    assert sorted(run(*frames).wants) == sorted(trades_key(SPOT, 0, 2 * n - 1) for n in range(1, MOST_OF_ONE + 1))
    frames += [page(61, trades_key(SPOT, 0, 1), (1, 0.7)), refused(1, 61, "429", trades_key(SPOT, 0, 3)), clock(61.5)]
    played = run(*frames)
    assert sorted(played.wants) == sorted(trades_key(SPOT, 0, 2 * n - 1) for n in range(3, MOST_OF_ONE + 3))
    # What is due again is the oldest, but what was begun is left to its end.
    assert trades_key(SPOT, 0, 3) not in run(*frames, clock(70)).wants
    frames += [page(71, trades_key(SPOT, 0, 5), (5, 2.5)), clock(72)]
    assert trades_key(SPOT, 0, 3) in run(*frames).wants


def test_no_more_are_wanted_of_a_partition() -> None:
    names = [f"C{n:03}-USDT" for n in range(50)]
    frames = [clock(0), opened(0)]
    for number in range(0, 40, 2):
        # The later a name, the older its gaps.
        frames += [data(fill(number, number + 1 - n / 100, name), at=number + 1.1) for n, name in enumerate(names)]
    played = run(*frames, clock(90))
    assert len(played.wants) == MOST
    per_name = {name: sum(want["instrument"] == name for want in played.wants.values()) for name in names}
    assert max(per_name.values()) <= MOST_OF_ONE
    oldest = min(want["from_time"] for want in played.wants.values())
    assert oldest == T0 + round(0.51 * SECOND)
    shown: Any = played.stage.report()["wants"]
    assert len(shown) == 100
    assert next(iter(shown)) == trades_key("C049-USDT", 0, 1)


def test_a_gap_that_is_given_up_takes_its_want_back() -> None:
    frames = [clock(0), opened(0), trade(0, 0.5), trade(2, 1), clock(4)]
    frames += [trade(2 * n, 4 + n / 100) for n in range(2, 1_002)]
    played = run(*frames, clock(20))
    assert trades_key(SPOT, 0, 1) not in played.wants
    assert [gap["reason"] for gap in played.of("gap") if gap["state"] == "closed"] == [GIVEN_UP]
    assert len(played.wants) == MOST_OF_ONE


def test_a_gap_of_an_ended_epoch_is_fetched_under_its_epoch() -> None:
    frames = [clock(0), opened(0), trade(1000, 1), trade(1002, 2), *(trade(n, 10 + n) for n in (1, 2, 3)), clock(20)]
    key = trades_key(SPOT, 0, 1001)
    played = run(*frames)
    assert set(played.wants) == {key}
    filled = run(*frames, page(21, key, (1001, 1.5)), clock(22))
    assert filled.trades()[-1] == (0, 1001)
    assert filled.wants == {}
    other = trades_key(SPOT, 1, 1)
    assert run(*frames, page(21, other, (1001, 1.5)), clock(22)).trades()[-1] == (1, 3)


def test_what_a_new_listing_printed_before_we_came_is_fetched() -> None:
    frames = [clock(0), opened(0), trade(1000, 1), closed(1.5), opened(9), *(trade(n, n - 47) for n in (57, 58, 59))]
    key = trades_key(SPOT, 1, 1)
    played = run(*frames, clock(20))
    assert (played.wants[key]["first"], played.wants[key]["last"], played.wants[key]["epoch"]) == (1, 56, 1)
    ledger = [(gap["cause"], gap["epoch"], gap["from_sequence"], gap["state"]) for gap in played.of("gap")]
    assert ledger == [("epoch", 1, 57, "closed"), ("sequence", 1, 1, "opened")]
    pages = page(21, key, *((n, 9 + n / 60) for n in range(56, 0, -1)))
    filled = run(*frames, clock(20), pages, answered(1, 21.1, 1, 56, key), clock(22))
    assert sorted(filled.trades()) == [(0, 1000), *((1, n) for n in range(1, 60))]
    assert told(filled.of("gap"))[-1] == ("closed", "filled", [])
    assert filled.wants == {}


def _relisted(*numbers: int) -> list[Frame]:
    """Binance, listed anew: the first seen are `numbers`."""
    conn = "wss://stream.binance.com/stream#1"
    frames = [exchange_info(0, "BTCUSDT"), clock(0), opened(0, conn), live(1000, 1)]
    return [*frames, *(live(n, 10 + place) for place, n in enumerate(numbers)), clock(20)]


def test_only_the_exchange_can_tell_whether_its_numbers_begin_at_zero_or_at_one() -> None:
    """Binance's spot pairs may begin at either."""
    key = trades_key("BTCUSDT", 1, 0)
    frames = _relisted(3, 4, 5)
    assert run(*frames, exchange="binance").wants[key]["last"] == 2
    zero = ascending(21, key, (0, 9.7), (1, 9.8), (2, 9.9), (3, 10))
    played = run(*frames, zero, answered(1, 21.1, 0, 2, key), clock(22), exchange="binance")
    assert told(played.of("gap"))[-1] == ("closed", "filled", [])
    assert played.of("gap")[-1]["repaired"] == 3
    one = [ascending(21, key, (1, 9.8), (2, 9.9), (3, 10))]
    for number in (1, 2, 3):
        one += [answered(number, 50.0 * number, 0, 2 if number == 1 else 0, key), clock(50.0 * number + 40)]
    played = run(*frames, *one, exchange="binance")
    assert told(played.of("gap"))[-1] == ("closed", BEGIN_AT_ONE, [])
    assert (played.of("gap")[-1]["repaired"], row(played, "BTCUSDT")["unrecoverable"]) == (2, 0)
    assert played.wants == {}
    assert not any(field.startswith(b"hole:") for field in played.state)


def test_zero_is_lost_like_any_other_number_where_one_is_lost_too() -> None:
    key = trades_key("BTCUSDT", 1, 0)
    frames = _relisted(3, 4, 5)
    for number in (1, 2, 3):
        frames += [answered(number, 50.0 * number, 0, 2, key), clock(50.0 * number + 40)]
    played = run(*frames, exchange="binance")
    assert told(played.of("gap"))[-1] == ("closed", LACKED, [[0, 2]])


def test_a_contract_that_ended_leaves_no_open_gap_behind() -> None:
    contract = "BTC-USD-261225-90000-C"
    listed = {
        "instType": "OPTION",
        "instId": contract,
        "instFamily": "BTC-USD",
        "uly": "BTC-USD",
        "settleCcy": "BTC",
        "ctVal": "1",
        "ctMult": "0.01",
        "ctValCcy": "BTC",
        "ctType": "",
        "optType": "C",
        "stk": "90000",
        "state": "live",
        "expTime": str((T0 + 3_600 * SECOND) // 1_000_000),
        "listTime": "",
        "tickSz": "0.1",
        "lotSz": "1",
        "minSz": "1",
        "baseCcy": "",
        "quoteCcy": "",
    }

    def listing(at: float) -> Frame:
        url = "https://openapi.okx.com/api/v5/public/instruments?instType=OPTION"
        body = json.dumps({"code": "0", "msg": "", "data": [listed]})
        return Frame(T0 + round(at * SECOND), "https://openapi.okx.com", "in", "rest", body, url)

    frames = [clock(0), opened(0), listing(0), data(fill(5, 1, contract), at=1.1), data(fill(9, 2, contract), at=2.1)]
    before = run(*frames, clock(5))
    assert set(before.wants) == {trades_key(contract, 0, 6)}
    after = run(*frames, clock(5), listing(8 * 86_400))
    assert after.wants == {}
    assert told(after.of("gap"))[-1] == ("closed", ENDED, [[6, 8]])
    labels = [label for label, _ in after.ordered()]
    assert labels[-2:] == ["gap", "coverage"]
    assert not any(b"261225" in field for field in after.state)


def test_the_end_of_a_replay_wants_nothing() -> None:
    assert run(*MISSED, end=True).wants == {}


def test_trades_that_nobody_asked_for_are_a_dead_letter() -> None:
    played = run(*WANTED, page(5, "", (9, 1.9)), page(5, "snapshot BTC-USDT", (9, 1.9)))
    assert [letter["reason"] for letter in played.stream("dead")] == ["trades by REST that nobody asked for"] * 2
    other = run(*WANTED, page(5, KEY, (9, 1.9), instrument="ETH-USDT"))
    assert [letter["reason"] for letter in other.stream("dead")] == ["trade of another instrument than was asked for"]
    assert other.trades() == [(0, 5), (0, 10)]


def test_binance_has_them_oldest_first() -> None:
    conn = "wss://stream.binance.com/stream#1"
    frames = [exchange_info(0, "BTCUSDT"), clock(0), opened(0, conn), live(5, 1), live(10, 2), clock(4.25)]
    key = trades_key("BTCUSDT", 0, 6)
    pages = [ascending(5, key, (6, 1.6), (7, 1.7)), ascending(5.1, key, (8, 1.8), (9, 1.9), (10, 2), (11, 2.1))]
    played = run(*frames, *pages, answered(1, 5.2, 6, 9, key), clock(5.25), exchange="binance")
    assert played.trades() == [(0, 5), (0, 10), (0, 6), (0, 7), (0, 8), (0, 9)]
    assert told(played.stream("gap") or played.of("gap"))[-1] == ("closed", "filled", [])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (trades_key("BTC-USDT", 3, 123), ("BTC-USDT", 3, 123)),
        ("trades BTC-USDT 3", None),
        ("trades BTC-USDT -1 5", None),
        ("trades BTC-USDT 0 5 6", None),
        ("snapshot BTC-USDT", None),
        ("resync BTC-USDT wss://x 1", None),
        ("", None),
        (None, None),
    ],
)
def test_keys(key: str | None, said: tuple[str, int, int] | None) -> None:
    assert trades_of(key) == said


def test_a_step_saves_little_however_many_gaps_are_open() -> None:
    frames = [clock(0), opened(0), trade(0, 0.5), *(trade(10 * n, n / 100) for n in range(1, 1_001)), clock(20)]
    played = run(*frames, clock(21))
    assert row(played)["open_gaps"] == 1_000
    saved = []
    for number, frame in enumerate(
        (trade(10_001, 21.1), page(21.2, trades_key(SPOT, 0, 1), (9, 0.6), (8, 0.6)), clock(21.25), clock(21.5))
    ):
        step = Step(KEYS, "normalize")
        raw = entries([frame], first=10_000 + number)[0]
        played.stage.process(Entry(b"%d-0" % (10_000 + number), pack(raw)), step)
        played.stage.save(step)
        saved.append(sum(len(str(part)) for c in step.commands() if c[0] == "HSET" for part in c))
    assert max(saved) < 10_000, saved


def test_gaps_saved_by_an_earlier_version_move_to_fields_of_their_own() -> None:
    played = run(*WANTED)
    field = f"hole:{SPOT} 0 6".encode()
    hole = json.loads(played.state.pop(field))
    seen = json.loads(played.state[f"continuity:{SPOT}".encode()])
    played.state[f"continuity:{SPOT}".encode()] = json.dumps(seen | {"holes": [hole]}).encode()
    state = State(played.state)
    assert [found.name for found in state.continuity[SPOT].holes] == [(0, 6)]
    played.restore([])
    go_on(played, [Entry(b"9-0", pack(entries([page(5, KEY, (9, 1.9))], first=9)[0]))])
    assert field in played.state
    assert b'"holes":[]' in played.state[f"continuity:{SPOT}".encode()]


def test_answers_that_bring_nothing_change_no_record() -> None:
    """So a recording made where nothing was fetched (`repair.enabled` off) is replayed to the same bytes."""
    frames: list[Frame] = []
    for number in range(1, 40):
        frames += [trade(10 + 2 * number, 5.0 * number), clock(5.0 * number + 3)]
    told_of = [frame for frame in frames if frame.kind == "clock"]
    silent = run(*MISSED, *frames)
    refusals = {
        id(frame): refused(number, 5.0 * number + 3.1, "repair is off", trades_key(SPOT, 0, 6))
        for number, frame in enumerate(told_of, start=1)
    }
    loud = run(*MISSED, *(each for frame in frames for each in (frame, *filter(None, [refusals.get(id(frame))]))))
    assert loud.streams[KEYS.trade] == silent.streams[KEYS.trade]
    assert loud.streams[KEYS.stream("gap")] == silent.streams[KEYS.stream("gap")]
    assert loud.wants != silent.wants
