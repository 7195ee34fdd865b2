"""Which connection's book is shown, and who takes over from whom."""

from tests.normalize.begun import begun, joined, okx, spot
from tests.normalize.booking import A, B, C, Kraken, Play, change, ns, snapshot, texts


def test_a_rotation_of_a_shared_book_needs_no_snapshot() -> None:
    play = joined()
    play.opened(1, B)
    play.update(spot(13, 14, "97@1"), 1.1, B)
    assert play.book.chains.active == A
    play.update(spot(11, 14, "97@1 98@1"), 1.2)
    assert play.book.chains.active == B
    play.closed(1.3)
    play.update(spot(15, 16, "96@1"), 1.4, B)
    assert play.shown() == [(10, None), (14, None), (16, None)]
    assert texts(play.last.bids) == "100@1 99@1 98@1 97@1 96@1"
    assert len(play.asked) == 1


def test_a_quiet_book_is_handed_over_to_a_connection_subscribed_in_its_time() -> None:
    play = joined()
    play.opened(1, B)
    play.closed(2)
    play.update(spot(11, 12, "98@1"), 3, B)
    assert play.shown() == [(10, None), (12, None)]
    assert len(play.asked) == 1


def test_a_rotation_with_snapshots_by_themselves() -> None:
    play = begun()
    play.opened(1, B)
    play.update(snapshot("100@1 99@7", previous=-1, last=9, time=ns(-1)), 1.1, B)
    assert play.book.chains.active == A
    play.update(okx(10, 12, "98@1", time=ns(1)), 1.2)
    play.update(okx(9, 10, "99@1", time=ns(0)), 1.3, B)
    assert play.book.chains.active == A
    play.update(okx(10, 12, "98@1", time=ns(1)), 1.4, B)
    assert play.book.chains.active == B
    # The older one does not take it back.
    play.update(okx(12, 13, "98@2", time=ns(2)), 1.5)
    assert play.book.chains.active == B
    play.closed(1.6)
    play.update(okx(12, 13, "98@2", time=ns(2)), 1.7, B)
    assert play.shown() == [(10, None), (12, None), (13, None)]
    assert play.asked == []


def test_a_candidate_that_breaks_wants_nothing() -> None:
    play = begun()
    play.update(snapshot(previous=-1, last=4, time=ns(-2)), 1, B)
    play.update(okx(7, 9, time=ns(-1)), 1.1, B)
    assert play.asked == []
    assert play.last.valid


def test_a_valid_candidate_takes_over_from_a_broken_chain_and_nothing_goes_back() -> None:
    play = begun()
    play.update(okx(10, 12, "98@1", time=ns(1)), 1)
    play.update(snapshot(previous=-1, last=9, time=ns(-1)), 1.1, B)
    play.update(okx(14, 16, time=ns(2)), 1.2)
    assert play.book.chains.active == B
    assert play.shown() == [(10, None), (12, None)]
    play.update(okx(9, 10, "99@1", time=ns(0)), 1.4, B)
    assert play.shown() == [(10, None), (12, None)]
    play.update(okx(10, 12, "98@1", time=ns(1)), 1.6, B)
    play.update(okx(12, 14, "97@1", time=ns(2)), 1.8, B)
    assert play.shown() == [(10, None), (12, None), (14, None)]
    # The broken one joins again by its numbers.
    assert play.book.report()["chains"] == 2
    assert play.book.chains.every[A].live
    assert play.asked == []


def test_numbers_that_begin_anew_on_one_connection_first() -> None:
    play = begun()
    play.update(snapshot(previous=-1, last=10, time=ns(0)), 0.5, B)
    assert play.book.chains.active == B
    play.update(okx(10, 3, "98@1", time=ns(1)), 1, B)
    play.update(okx(3, 5, "97@1", time=ns(2)), 2, B)
    play.update(okx(10, 3, "98@1", time=ns(1)), 2.1)
    play.update(snapshot("100@1 99@1 98@1", previous=-1, last=3, time=ns(1)), 2.2, C)
    assert play.book.chains.active == B
    play.update(okx(3, 5, "97@1", time=ns(2)), 2.3, C)
    assert play.book.chains.active == C
    assert play.shown() == [(10, None), (3, None), (5, None)]


def test_a_connection_that_has_not_heard_of_new_numbers_does_not_take_over() -> None:
    play = begun()
    play.update(okx(10, 3, "98@1", time=ns(1)), 1)
    play.update(snapshot(previous=-1, last=8, time=ns(-1)), 1.1, B)
    assert play.book.chains.active == A
    play.update(okx(8, 10, time=ns(0)), 1.2, B)
    play.update(okx(10, 3, "98@1", time=ns(1)), 1.3, B)
    assert play.book.chains.active == B
    assert [sequence for sequence, _ in play.shown()] == [10, 3]


def test_without_times_the_numbers_keep_what_is_shown_from_going_back() -> None:
    play = joined()
    play.update(spot(11, 14, "98@1"), 1)
    play.opened(1.1, B)
    play.answer(snapshot(last=12, asked=1000), 1.2)
    assert play.book.chains.active == A
    play.closed(1.3)
    play.clock(2)
    assert play.shown() == [(10, None), (14, None)]
    assert play.book.chains.active == B
    play.update(spot(13, 13, "97@1"), 2.1, B)
    assert play.shown() == [(10, None), (14, None)]
    play.update(spot(14, 14, "97@1"), 2.2, B)
    assert play.shown() == [(10, None), (14, None), (14, None)]


def test_a_time_older_than_a_snapshot_without_one_does_not_make_a_book_newer() -> None:
    """The snapshot's own time is not known: that of an earlier record says nothing about it."""
    play = joined()
    play.update(spot(11, 14, "98@1", time=ns(1)), 1)
    play.opened(1.02, B)
    play.update(spot(15, 16, "97@1", time=ns(2)), 1.05)
    play.answer(snapshot(last=20, asked=1000), 1.2)
    assert play.shown() == [(10, None), (14, None), (20, None)]
    play.update(spot(25, 26, "96@1", time=ns(3)), 3, B)
    assert (play.book.chains.active, play.shown()[-1]) == (A, (20, None))
    play.update(spot(17, 24, "95@1", time=ns(2.5)), 3.1)
    assert play.shown()[-1] == (26, None)


def test_a_book_with_a_wrong_checksum_is_no_ground_to_go_on_from() -> None:
    play = begun()
    play.update(okx(10, 11, "98@1", checksum=7), 1)
    play.update(okx(11, 12, "97@1"), 2)
    play.update(okx(11, 12, "97@1"), 2.1, B)
    assert play.shown()[-1] == (11, "checksum")
    assert len(play.wants) == 1


def test_a_chain_that_is_not_shown_any_more_holds_nothing() -> None:
    play = joined()
    play.update(spot(11, 12, "101@1"), 1)
    play.clock(11.25)
    play.update(spot(13, 14, "97@1"), 12)
    assert len(play.book.chains.every[A].held) == 1
    play.update(snapshot(last=14), 13, B)
    assert play.book.chains.active == B
    assert len(play.book.chains.every[A].held) == 0
    assert play.wants == {}


def test_a_venue_without_numbers_hands_over_by_time() -> None:
    play = Play(Kraken())
    play.update(snapshot(time=ns(1)), 1)
    play.update(snapshot("100@5 99@1", time=ns(0.5)), 1.1, B)
    assert play.book.chains.active == A
    play.update(change("100@3", time=ns(2)), 2, B)
    assert play.book.chains.active == B
    play.closed(3, B)
    assert play.book.chains.active == A
    # Its book is older than what was shown: nothing goes back.
    assert [record.time for record in play.records if record.snapshot_time is None] == [ns(1), ns(2)]
    play.update(change("100@4", time=ns(3)), 3.5)
    assert texts(play.last.bids) == "100@4 99@1"


def test_a_stale_snapshot_does_not_heal_a_book_that_was_further_already() -> None:
    play = joined()
    play.update(spot(11, 20, "98@1"), 1)
    play.lost(2)
    play.clock(4)
    play.answer(snapshot(last=15, asked=1000), 4.5)
    assert play.shown()[-1] == (20, "lost")
    play.answer(snapshot("100@7", last=20, asked=1000), 5)
    assert (play.shown()[-1], texts(play.last.bids)) == ((20, None), "100@7")


def test_of_two_stale_snapshots_none_is_shown() -> None:
    play = joined()
    play.update(spot(11, 20, "98@1"), 1)
    play.lost(2, "writer")
    play.opened(3, B)
    play.answer(snapshot(last=15, asked=1000), 4)
    play.lost(5)
    play.answer(snapshot(last=17, asked=1000), 6)
    assert play.shown()[-1] == (20, "writer")
    play.update(spot(18, 22, "97@1"), 7, B)
    assert play.shown()[-1] == (22, None)


def test_numbers_that_begin_anew_unsaid_do_not_freeze_the_book() -> None:
    """A symbol of Binance that was listed anew: its changes are not old ones, though their numbers are lower."""
    play = joined()
    play.update(spot(11, 12, "98@1", time=ns(1)), 1)
    play.update(spot(9, 10, "97@1", time=ns(0.9)), 1.1)
    assert play.last.valid
    play.update(spot(1, 2, "50@1", time=ns(60)), 60)
    assert play.shown()[-1] == (12, "gap")
    play.answer(snapshot("50@1", "51@1", last=2, asked=1000), 61)
    play.update(spot(3, 4, "49@1", time=ns(62)), 62)
    assert (play.last.valid, play.last.sequence, texts(play.last.bids)) == (True, 4, "50@1 49@1")
