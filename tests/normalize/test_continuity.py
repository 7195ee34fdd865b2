"""Every number passes once; what is missing is known; numbers that begin again are a new epoch."""

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normalize.continuity import MOST_EARLY, Continuity
from normalize.held import HELD_FOR, MOST_HELD
from normalize.holes import PROVISIONAL
from normalize.missing import MOST_INTERVALS
from normalize.outcome import Outcome
from normalize.spans import LEAP
from pipeline.records import Trade

SECOND = 1_000_000_000
T0 = 1_790_000_000 * SECOND


def trade(number: int, at: float = 0.0, fills: int = 1) -> Trade:
    return Trade(
        exchange="okx",
        market="spot",
        symbol="BTC-USDT",
        instrument="BTC-USDT",
        time=T0 + round(at * SECOND),
        received=T0 + round(at * SECOND),
        id=str(number),
        sequence=number,
        first_sequence=number - fills + 1 if fills > 1 else None,
        fills=fills,
        price="1",
        size="1",
        side="buy",
    )


class Feed:
    """A continuity with a connection that opened at `opened` seconds; stream time is the trades'."""

    def __init__(self, opened: float = 0.0) -> None:
        self.state = Continuity()
        self.opened = T0 + round(opened * SECOND)
        self.passed: list[tuple[int, int]] = []
        self.buried: list[tuple[str, int]] = []
        self.listed: int | None = None
        self.lowest = 1

    def take(self, number: int, at: float = 0.0, fills: int = 1, now: float | None = None) -> Outcome:
        stream_time = round((at if now is None else now) * SECOND)
        outcome = self.state.take(trade(number, at, fills), stream_time, self.opened, self.listed, self.lowest)
        self.keep(outcome)
        # The saved state is the whole state: every step may be the last before a restart.
        self.state = msgspec.json.decode(msgspec.json.encode(self.state), type=Continuity)
        return outcome

    def keep(self, outcome: Outcome) -> None:
        self.passed += [(t.epoch, t.sequence) for t in outcome.passed]
        self.buried += [(reason, t.sequence) for reason, t in outcome.buried]

    def numbers(self) -> list[int]:
        return [number for _, number in self.passed]


def test_known_numbers_of_other_days_are_no_new_numbering_where_the_old_one_goes_on() -> None:
    """Each comes with a newer time, and the three of them follow each other."""
    feed = Feed()
    number = 1_000
    for day, known in enumerate((500, 501, 502)):
        for second in range(5):
            feed.take(number, 86_000 * day + second)
            number += 1
        feed.take(known, 86_000 * day + 10)
    feed.take(number, 86_000 * 2 + 20)
    assert feed.state.epoch == 0
    assert feed.buried == [("known number with a newer time", known) for known in (500, 501, 502)]
    assert [hole.remaining for hole in feed.state.holes] == []


def test_at_next_passes() -> None:
    feed = Feed()
    for number in (5, 6, 7):
        feed.take(number, number)
    assert feed.numbers() == [5, 6, 7]
    assert not feed.state.busy


def test_above_next_opens_a_hole_that_late_trades_shrink_and_fill() -> None:
    feed = Feed()
    feed.take(5, 1)
    feed.take(10, 2)
    assert feed.state.holes[0].remaining == [(6, 9)]
    feed.take(8, 1.5)
    assert feed.state.holes[0].remaining == [(6, 7), (9, 9)]
    for number in (6, 9, 7):
        feed.take(number, 1.5)
    assert feed.numbers() == [5, 10, 8, 6, 9, 7]
    assert feed.state.reordered == 4
    assert list(feed.state.changed_holes(99 * SECOND)) == [], "filled before two seconds is reordering"


def test_a_hole_is_told_after_two_seconds_of_stream_time() -> None:
    feed = Feed()
    feed.take(5, 1, now=100)
    feed.take(10, 2, now=100)
    feed.take(7, 1.5, now=101)
    assert list(feed.state.changed_holes(100 * SECOND + PROVISIONAL - 1)) == []
    (opened,) = feed.state.changed_holes(100 * SECOND + PROVISIONAL)
    assert (opened.first, opened.last, opened.remaining, opened.told) == (6, 9, [(6, 6), (8, 9)], False)
    assert (opened.from_time, opened.to_time) == (T0 + SECOND, T0 + 2 * SECOND)
    assert list(feed.state.changed_holes(200 * SECOND)) == []
    feed.take(8, 1.6)
    (shrunk,) = feed.state.changed_holes(201 * SECOND)
    assert (shrunk.remaining, shrunk.told) == ([(6, 6), (9, 9)], True)
    feed.take(6, 1.6)
    feed.take(9, 1.6)
    (closed,) = feed.state.changed_holes(202 * SECOND)
    assert closed.remaining == []
    assert not feed.state.busy
    assert feed.state.missing == 0


def test_gaps_are_never_merged() -> None:
    feed = Feed()
    for number in (1, 3, 5, 7):
        feed.take(number, number)
    assert [(hole.first, hole.last) for hole in feed.state.holes] == [(2, 2), (4, 4), (6, 6)]


def test_known_numbers_are_duplicates_and_counted() -> None:
    feed = Feed()
    for number in (5, 6, 7, 6, 5, 7):
        feed.take(number, min(number, 7))
    assert feed.numbers() == [5, 6, 7]
    assert feed.state.duplicates == 3


def test_a_known_number_a_second_newer_is_still_a_duplicate() -> None:
    feed = Feed()
    feed.take(5, 1)
    feed.take(6, 2)
    assert feed.take(5, 3.0).passed == ()
    feed.keep(feed.state.expire(10 * HELD_FOR))
    assert feed.numbers() == [5, 6]
    assert feed.buried == []
    assert feed.state.duplicates == 1


def test_merged_records_cover_ranges() -> None:
    feed = Feed()
    feed.take(5, 1)
    feed.take(8, 2, fills=3)
    assert feed.state.holes == []
    feed.take(12, 3, fills=2)
    assert feed.state.holes[0].remaining == [(9, 10)]
    assert feed.take(10, 2.5, fills=2).passed
    assert feed.state.holes == []


@pytest.mark.parametrize(("number", "fills"), [(6, 3), (10, 2), (8, 3), (13, 3)])
def test_partly_known_merged_records_are_dropped_and_counted(number: int, fills: int) -> None:
    feed = Feed()
    feed.take(5, 1)
    feed.take(12, 2, fills=3)  # 6…9 missing
    feed.take(7, 1.5)
    before = msgspec.to_builtins(feed.state.holes)
    assert feed.take(number, 2, fills=fills).dropped == "overlap"
    assert msgspec.to_builtins(feed.state.holes) == before
    assert feed.state.overlaps == 1
    assert feed.numbers() == [5, 12, 7]


def test_first_start_a_replayed_trade_passes_and_opens_no_gap() -> None:
    feed = Feed(opened=100)
    feed.take(50, 1)
    assert feed.state.next is None
    feed.take(50, 1)
    assert feed.state.duplicates == 1
    feed.take(60, 101)
    assert feed.numbers() == [50, 60]
    assert not feed.state.busy
    assert feed.state.complete_since == T0 + 101 * SECOND
    feed.take(50, 1)
    assert feed.numbers() == [50, 60]


def test_first_start_the_replayed_trade_seen_live_by_an_older_connection_counts_once() -> None:
    feed = Feed(opened=100)
    feed.take(50, 99)
    feed.opened = T0
    assert feed.take(50, 99).dropped == "duplicate"
    assert feed.state.next == 51


def test_first_start_live_trades_below_a_replayed_one_never_repeat_it() -> None:
    feed = Feed(opened=100)
    feed.take(50, 99)
    feed.opened = T0
    for number in (48, 49, 50, 51, 53):
        feed.take(number, 99 + number / 100)
    assert feed.numbers() == [50, 48, 49, 51, 53]
    assert feed.state.missing == 1


def test_trades_from_before_our_start_pass_once() -> None:
    feed = Feed()
    feed.take(100, 1)
    for number in (98, 99, 97, 98, 99):
        feed.take(number, 0.5)
    assert feed.numbers() == [100, 98, 99, 97]
    assert feed.state.early == [(97, 99)]
    assert feed.state.duplicates == 2


def test_memory_of_early_trades_is_bounded() -> None:
    feed = Feed()
    feed.take(1_000_000, 10)
    for number in range(0, 2 * MOST_EARLY + 2, 2):
        feed.state.take(trade(number, 1), 0, T0, None)
    assert len(feed.state.early) == MOST_EARLY
    assert feed.state.refused == 1
    assert feed.state.take(trade(1, 1), 0, T0, None).passed, "neighbours need no new memory"


def test_numbers_that_begin_again_are_an_epoch_after_three_in_a_row() -> None:
    feed = Feed()
    for number in (1000, 1001, 1002):
        feed.take(number, number - 1000)
    feed.take(1, 10)
    feed.take(2, 11)
    assert feed.numbers() == [1000, 1001, 1002]
    outcome = feed.take(3, 12)
    assert outcome.epoch is not None
    assert (outcome.epoch.epoch, outcome.epoch.first.sequence, outcome.epoch.from_time) == (1, 1, T0 + 2 * SECOND)
    feed.take(4, 13)
    assert feed.passed[3:] == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert feed.state.held == []
    assert feed.buried == []


def test_a_restart_in_a_busy_market_loses_nothing_of_its_first_second() -> None:
    feed = Feed()
    for number in range(1000, 1100):
        feed.take(number, number / 1000)
    for number in range(1, 500):
        feed.take(number, 1.1 + number / 400)
    assert feed.passed[100:] == [(1, number) for number in range(1, 500)]
    assert feed.state.duplicates == 0


def test_a_second_connection_whose_times_differ_a_little_begins_no_epoch() -> None:
    feed = Feed()
    for number in range(1, 50):
        feed.take(number, number)
        feed.take(number, number + 0.5)
    assert feed.passed == [(0, number) for number in range(1, 50)]
    assert feed.state.duplicates == 48
    assert len(feed.state.held) == 1


def test_a_new_listing_time_needs_no_three() -> None:
    feed = Feed()
    feed.listed = 1
    feed.take(1000, 1)
    feed.listed = 2
    outcome = feed.take(1, 10)
    assert outcome.epoch is not None
    assert outcome.epoch.reason == "relisted"
    assert feed.passed == [(0, 1000), (1, 1)]


def test_what_was_printed_before_the_first_trade_seen_of_an_epoch_is_a_hole() -> None:
    """Listed anew while nobody listened: the numbers begin at the venue's lowest, not at the first one seen."""
    feed = Feed()
    for number in (1000, 1001, 1002):
        feed.take(number, number - 1000)
    for number in (57, 58, 59):
        outcome = feed.take(number, number - 47)
    assert outcome.epoch is not None
    assert (outcome.epoch.epoch, outcome.epoch.first.sequence) == (1, 57)
    (hole,) = feed.state.holes
    assert (hole.name, hole.last, hole.remaining) == ((1, 1), 56, [(1, 56)])
    assert (hole.from_time, hole.to_time) == (T0 + 2 * SECOND, T0 + 10 * SECOND)
    assert feed.state.missing == 56
    feed.take(3, 9.5)
    assert feed.state.repair(trade(4, 9.6), 1).passed[0].epoch == 1
    assert feed.take(3, 9.5).dropped == "duplicate"
    feed.take(60, 13)
    assert feed.passed[3:] == [(1, 57), (1, 58), (1, 59), (1, 3), (1, 60)]
    assert feed.state.holes[0].remaining == [(1, 2), (5, 56)]


@pytest.mark.parametrize(("lowest", "first", "missed"), [(1, 1, 0), (0, 0, 0), (0, 1, 1), (0, 5, 5), (1, 0, 0)])
def test_where_the_first_trade_seen_is_the_lowest_nothing_was_missed(lowest: int, first: int, missed: int) -> None:
    feed = Feed()
    feed.lowest = lowest
    for number in (1000, 1001, 1002):
        feed.take(number, number - 1000)
    for number in range(first, first + 4):
        feed.take(number, 10 + number)
    assert feed.passed[3:] == [(1, number) for number in range(first, first + 4)]
    assert feed.state.missing == missed


def test_more_numbers_than_can_have_been_printed_since_are_no_hole() -> None:
    """The venue went on elsewhere, not at its lowest."""
    feed = Feed()
    feed.take(10 * LEAP, 1)
    for number in range(5 * LEAP, 5 * LEAP + 3):
        feed.take(number, 5 + number - 5 * LEAP)
    assert feed.state.epoch == 1
    assert feed.state.missing == 0


def test_a_new_listing_time_tells_of_numbers_above_the_old_ones() -> None:
    """The old listing came to 5; while nobody listened the new one came to 57."""
    feed = Feed()
    feed.listed = T0 - 99 * SECOND
    for number in (4, 5):
        feed.take(number, number - 4)
    feed.listed = T0 + 5 * SECOND
    outcome = feed.take(57, 10)
    assert outcome.epoch is not None
    assert outcome.epoch.reason == "relisted"
    assert feed.passed == [(0, 4), (0, 5), (1, 57)]
    assert [hole.remaining for hole in feed.state.holes] == [[(1, 56)]]
    feed.take(58, 11)
    assert feed.passed[-1] == (1, 58)


@pytest.mark.parametrize(("listed", "number"), [(5, 6), (11, 57), (0, 57)])
def test_a_listing_time_that_does_not_lie_between_the_trades_begins_nothing(listed: int, number: int) -> None:
    """Or where the numbers simply go on: venues also correct what they list."""
    feed = Feed()
    feed.listed = T0 - 99 * SECOND
    for old in (4, 5):
        feed.take(old, old - 4)
    feed.listed = T0 + listed * SECOND
    feed.take(number, 10)
    assert feed.passed[-1] == (0, number)


def test_held_trades_that_prove_nothing_are_buried_after_a_week() -> None:
    feed = Feed()
    for number in (1000, 1001):
        feed.take(number, number - 1000)
    feed.take(7, 10, now=10)
    feed.take(500, 11, now=11)
    assert not feed.state.expire(10 * SECOND + HELD_FOR).buried
    feed.keep(feed.state.expire(10 * SECOND + HELD_FOR + 1))
    assert feed.buried == [("known number with a newer time", 7)]
    feed.keep(feed.state.give_up())
    assert [number for _, number in feed.buried] == [7, 500]
    assert not feed.state.busy


def test_numbers_that_begin_again_of_a_pair_that_hardly_trades() -> None:
    """Nobody else tells of it: of three trades in three days the first two wait for the third."""
    feed = Feed()
    for number in (1000, 1001):
        feed.take(number, number - 1000)
    for day in (1, 2, 3):
        at = day * 86_000
        feed.take(day, at)
        feed.keep(feed.state.expire(at * SECOND + 100))
    assert feed.passed[2:] == [(1, 1), (1, 2), (1, 3)]
    assert not feed.buried


def test_at_most_a_hundred_are_held() -> None:
    feed = Feed()
    feed.take(100_000, 1)
    for number in range(MOST_HELD + 5):
        feed.take(number * 10, 100)
    assert len(feed.state.held) == MOST_HELD
    assert [number for _, number in feed.buried] == [0, 10, 20, 30, 40]


def test_a_leap_beyond_what_a_venue_prints_is_an_epoch() -> None:
    feed = Feed()
    feed.take(10, 1)
    feed.take(11 + LEAP, 1)
    assert feed.state.epoch == 0, "just possible: a gap"
    assert feed.state.missing == LEAP
    other = Feed()
    other.take(10, 1)
    outcome = other.take(12 + LEAP, 1)
    assert outcome.epoch is not None
    other.take(13 + LEAP, 1)
    other.take(11, 1)
    other.take(10, 1)
    assert other.passed == [(0, 10), (1, 12 + LEAP), (1, 13 + LEAP), (0, 11)]
    assert other.state.missing == 0


def test_late_trades_of_an_ended_epoch_keep_its_number() -> None:
    feed = Feed()
    for number in (1000, 1001, 1005):
        feed.take(number, number - 1000)
    for number in (1, 2, 3):
        feed.take(number, 9 + number)
    for number in (1003, 1005, 1001, 1006, 2):
        feed.take(number, 5 if number > 900 else 11)
    assert feed.passed[6:] == [(0, 1003), (0, 1006)]
    assert feed.state.missing == 2
    feed.take(4, 13)
    assert feed.passed[-1] == (1, 4)


def test_open_intervals_are_bounded_and_the_oldest_is_named_as_lost() -> None:
    """Where nobody fills holes, an instrument must not stand still for ever."""
    state = Continuity()
    for number in range(0, 2 * MOST_INTERVALS + 2, 2):
        state.take(trade(number, 1), 0, T0, None)
    assert len(state.holes) == MOST_INTERVALS
    assert state.changed_holes(PROVISIONAL)
    reached = state.next
    assert reached is not None
    assert state.take(trade(reached + 1, 2), 0, T0, None).passed
    assert state.take(trade(reached + 2, 2), 0, T0, None).passed
    assert len(state.holes) == MOST_INTERVALS
    (lost,) = (hole for hole in state.changed_holes(0) if hole.closed == "given up")
    assert (lost.first, lost.last, lost.remaining) == (1, 1, [(1, 1)])
    assert state.take(trade(1, 1), 0, T0, None).dropped == "duplicate", "what is named as lost stays lost"
    assert state.take(trade(reached, 1), 0, T0, None).passed
    assert state.open_gaps == MOST_INTERVALS - 1


arrivals = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 4)), min_size=1, max_size=120)


def span(number: int, fills: int) -> range:
    return range(max(1, number - fills + 1), number + 1)


@settings(max_examples=300, deadline=None)
@given(arrivals, st.integers(0, 60), st.lists(st.booleans(), min_size=120, max_size=120))
def test_every_number_exactly_once_in_passed_or_missing(
    order: Iterable[tuple[int, int]], opened: int, told: list[bool]
) -> None:
    """Any order, any duplicates, any losses, merged or not: times follow numbers, as a venue prints them."""
    feed = Feed(opened=opened)
    seen: list[int] = []
    for (number, fills), tell in zip(order, told, strict=False):
        covered = span(number, fills)
        outcome = feed.take(number, at=number / 100 if opened < 30 else number, fills=len(covered), now=len(seen))
        for passed in outcome.passed:
            seen += span(passed.sequence, passed.fills)
        if tell:
            feed.state.changed_holes(len(seen) * SECOND)
    assert len(seen) == len(set(seen)), "nothing passes twice"
    assert feed.state.epoch == 0
    missing = [n for hole in feed.state.holes for low, high in hole.remaining for n in range(low, high + 1)]
    assert not set(missing) & set(seen)
    assert len(missing) == len(set(missing)) == feed.state.missing
    if feed.state.next is not None:
        expected = set(range(feed.state.first_number, feed.state.next))
        assert {n for n in seen if n >= feed.state.first_number} | set(missing) == expected
    early = {n for low, high in feed.state.early for n in range(low, high + 1)}
    below = {n for n in seen if feed.state.next is None or n < feed.state.first_number}
    assert below <= early


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(1, 21)), st.sets(st.integers(1, 20), max_size=5), st.integers(2, 40))
def test_single_fills_in_any_order_all_pass(order: list[int], lost: set[int], repeats: int) -> None:
    feed = Feed()
    for number in [n for n in order if n not in lost] + order[:repeats]:
        feed.take(number, at=number / 1000)
    assert sorted(feed.numbers()) == sorted({*(n for n in order if n not in lost), *order[:repeats]})


@settings(max_examples=200, deadline=None)
@given(
    before=st.integers(1, 30),
    after=st.integers(3, 30),
    restart=st.integers(1, 900),
    pause=st.integers(1, 5_000),
    steps=st.lists(st.integers(0, 400), min_size=60, max_size=60),
    lag=st.integers(0, 3_000),
)
def test_two_connections_across_a_restart_of_numbers_pass_every_trade_once(
    before: int, after: int, restart: int, pause: int, steps: list[int], lag: int
) -> None:
    """The venue prints 1000…, pauses (ms), then prints restart…; a second connection brings all of it again, later."""
    printed: list[tuple[int, int, int]] = []
    at = 0
    for position in range(before + after + 3):
        # Three at the end are later than a second after the old numbers' last: the proof.
        at += pause if position == before else steps[position] if position < before + after else 1_100
        number = 1000 + position if position < before else restart + position - before
        printed.append((at, int(position >= before), number))
    arrivals = sorted([(t, 0, e, n, t) for t, e, n in printed] + [(t + lag, 1, e, n, t) for t, e, n in printed])
    feed = Feed()
    for arrived, _, _, number, time in arrivals:
        feed.take(number, time / 1000, now=arrived / 1000)
    assert sorted(feed.passed) == sorted((epoch, number) for _, epoch, number in printed)
    assert feed.buried == []
    assert feed.state.missing == restart - 1, "what the venue numbered before the first one printed here"
