"""What a book wants of the exchange, and when anew."""

from pipeline.frames import RequestData
from pipeline.wants import resync_key
from tests.normalize.begun import SNAPSHOT, begun, okx, spot
from tests.normalize.booking import A, B, Binance, Bybit, Okx, Play, change, ns, snapshot, texts


def test_the_unsubscription_of_our_own_resync_does_not_end_the_want() -> None:
    play = begun()
    play.update(okx(12, 15), 1)
    play.request("asked", 1.1)
    play.closed(1.2, cause="unsubscribed")
    play.opened(1.3)
    play.request("answered", 1.3)
    assert list(play.wants) == [resync_key("BTC-USDT", A)]
    play.update(snapshot(previous=-1, last=30), 1.4)
    assert play.wants == {}
    play.closed(2, cause="unsubscribed")
    assert play.last.reason == "unsubscribed"


def test_a_resync_that_brings_no_snapshot_is_wanted_anew_after_5_s_and_a_pause() -> None:
    play = begun()
    play.update(okx(12, 15), 1)
    play.request("asked", 1)
    play.request("answered", 1)
    play.clocks(1, 6.75)
    assert [want.number for want in play.asked] == [1]
    play.clock(7)
    assert [want.number for want in play.asked] == [1, 2]
    play.request("asked", 7)
    play.request("answered", 7)
    play.clocks(7, 13.75)
    play.clock(14)
    assert [want.number for want in play.asked] == [1, 2, 3]
    assert {want.since for want in play.asked} == {ns(1)}


def test_a_resync_refused_for_good_gives_the_chain_up() -> None:
    play = begun()
    play.update(okx(12, 15), 1)
    play.request("refused", 1.5, permanent=True, reason="no such connection")
    assert (play.wants, play.book.report()["chains"]) == ({}, 0)
    play.clocks(2, 10)
    assert len(play.asked) == 1


def test_a_first_frame_that_is_a_change_wants_a_resync() -> None:
    play = Play(Okx())
    play.update(okx(10, 11), 0)
    assert [(want.what, want.reason) for want in play.asked] == [("resync", "gap")]
    assert play.records == []


def test_a_subscription_without_a_snapshot_is_wanted_anew_in_time() -> None:
    play = Play(Okx())
    play.opened(0)
    play.clock(4.75)
    assert play.wants == {}
    play.clock(5)
    assert [want.what for want in play.asked] == ["resync"]


def test_the_first_snapshot_of_binance_is_wanted_with_the_first_change_and_joined() -> None:
    play = Play(Binance())
    play.opened(0)
    # An exchange's cache may be older than the subscription: a book of before would be shown as if it were of now.
    assert play.wants == {}
    play.update(spot(5, 10, "99@2"), 0.1)
    assert play.wants[SNAPSHOT].reason == "first"
    play.update(spot(11, 12, "98@2"), 0.2)
    play.request("asked", 0.3)
    play.answer(snapshot(last=8, asked=1000), 0.4)
    assert play.shown() == [(12, None)]
    assert texts(play.last.bids) == "100@1 99@2 98@2"
    assert play.wants == {}
    assert play.book.request(RequestData(key=SNAPSHOT, number=1, state="answered"), ns(0.5)).wants == {}


def test_a_book_that_does_not_change_is_wanted_2_s_after_its_subscription() -> None:
    play = Play(Binance())
    play.opened(0)
    play.clocks(0, 1.75)
    assert play.wants == {}
    play.clock(2)
    assert play.wants[SNAPSHOT].reason == "first"
    play.answer(snapshot(last=8, asked=1000), 2.1)
    assert play.shown() == [(8, None)]


def test_a_snapshot_too_old_is_wanted_anew_with_backoff() -> None:
    play = Play(Binance())
    play.update(spot(50, 60), 0)
    at = 0.0
    for number, pause in enumerate((1, 2, 4, 8, 16, 32, 60, 60), start=1):
        assert [want.number for want in play.asked][-1] == number
        play.request("asked", at)
        play.answer(snapshot(last=40, asked=1000), at)
        play.request("answered", at)
        play.clock(at + pause - 0.25)
        assert len(play.asked) == number
        at += pause
        play.clock(at)
    assert play.records == []
    play.answer(snapshot(last=55, asked=1000), at)
    assert play.shown() == [(60, None)]
    assert play.wants == {}


def test_a_refusal_for_now_pauses_one_for_good_ends_it_until_another_connection() -> None:
    play = Play(Binance())
    play.update(spot(50, 60), 0)
    play.request("refused", 1, reason="429")
    play.clock(1.75)
    assert len(play.asked) == 1
    play.clock(2)
    assert len(play.asked) == 2
    play.request("refused", 2.5, reason="-1121", permanent=True)
    assert play.wants == {}
    play.clocks(3, 200, 1)
    assert len(play.asked) == 2
    play.opened(201, B)
    play.closed(202)
    play.clocks(202, 204)
    assert [(want.number, want.reason) for want in play.asked] == [(1, "first"), (2, "first"), (3, "closed")]


def test_what_was_told_of_another_number_is_not_ours() -> None:
    play = Play(Binance())
    play.update(spot(50, 60), 0)
    play.request("refused", 1, number=7, permanent=True)
    assert len(play.wants) == 1


def test_an_answer_that_was_begun_is_not_waited_for_without_end() -> None:
    play = Play(Binance())
    play.update(spot(50, 60), 0)
    play.clock(300)
    assert len(play.asked) == 1
    play.request("asked", 300)
    play.clock(359)
    assert len(play.asked) == 1
    play.clock(360)
    assert len(play.asked) == 2


def test_a_book_that_breaks_again_and_again_is_healed_more_slowly() -> None:
    play = Play(Bybit())
    play.update(snapshot(last=1), 0)
    begins = []
    for round_ in range(1, 5):
        at = round_ * 10.0
        play.update(change(last=1000), at)
        play.clocks(at, at + 9, 0.25)
        begins.append((play.asked[-1].number, play.book.asking.failures))
        play.update(snapshot(last=1), at + 9.5)
    assert begins == [(1, 0), (2, 1), (3, 2), (4, 3)]
    play.update(change(last=1000), 200)
    assert play.asked[-1].number == 5


def test_a_book_that_breaks_soon_after_failed_answers_goes_on_pausing() -> None:
    play = Play(Binance())
    play.update(spot(50, 60), 0)
    play.request("refused", 1)
    play.clock(2)
    play.answer(snapshot(last=60, asked=1000), 3)
    play.update(spot(70, 71), 4)
    play.clock(5.75)
    assert play.wants == {}
    play.clock(6)
    assert len(play.wants) == 1


def test_trouble_of_long_ago_delays_no_first_snapshot() -> None:
    play = Play(Binance())
    play.update(spot(50, 60), 0)
    for at in (1, 10):
        play.request("refused", at)
        play.clock(at + 5)
    play.answer(snapshot(last=60, asked=1000), 20)
    play.closed(500)
    play.update(spot(500, 510), 501, B)
    assert play.asked[-1].number == 4
    assert play.asked[-1].since == ns(501)


def test_a_snapshot_that_came_first_is_kept_a_while() -> None:
    play = Play(Binance())
    play.answer(snapshot(last=10, asked=1000), 0)
    play.update(spot(9, 12, "99@5"), 5)
    assert play.shown() == [(12, None)]
    assert play.asked == []
    late = Play(Binance())
    late.answer(snapshot(last=10, asked=1000), 0)
    late.update(spot(9, 12, "99@5"), 61)
    assert late.records == []
    assert len(late.asked) == 1
    gone = Play(Binance())
    gone.answer(snapshot(last=10, asked=1000), 0)
    gone.update(spot(12, 13, "99@5"), 5)
    assert gone.records == []
    assert len(gone.asked) == 1


def test_a_want_whose_answer_may_be_lost_is_wanted_anew() -> None:
    play = Play(Binance())
    play.update(spot(5, 10), 0)
    play.request("asked", 0.1)
    play.lost(1)
    play.clock(2)
    assert [want.number for want in play.asked] == [1, 2]


def test_a_book_crossed_for_hours_is_not_resynced_each_time() -> None:
    """OKX allows 480 requests in an hour on a connection; in an auction the books of many instruments are crossed."""
    play = begun()
    play.saving = False
    last, asked = 10, 0
    for second in range(3600):
        last += 1
        play.update(okx(last - 1, last, "102@1"), second)
        play.clock(second + 0.5)
        if play.wants:
            asked += 1
            play.request("asked", second + 0.6)
            play.closed(second + 0.6, cause="unsubscribed")
            play.opened(second + 0.6)
            play.request("answered", second + 0.6)
            play.update(snapshot("102@1", "101@1", previous=-1, last=last), second + 0.7)
    assert 40 < asked < 70
