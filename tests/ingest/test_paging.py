"""Paging against a made exchange with caches that lag, each answer by itself: what is said to be covered was had."""

import json
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.covered import Covered
from ingest.feed import History, Request, Row
from ingest.history import TIMES, Backward, Forward, Source
from pipeline.timeframes import SECOND
from pipeline.wants import Want

START = 1_700_000_000 * SECOND
NUMBERS = 400


class Exchange:
    """Trades `listed`, ascending, one a second; pages of `most`. Of the answers in `lags` each hides so many of the
    newest, or all (None)."""

    def __init__(self, listed: Sequence[int], most: int, newest: int, lags: Sequence[int | None]) -> None:
        self.listed = list(listed)
        self.lags = list(lags)
        self.source = Source(
            page=lambda edge, count: Request(f"page {edge} {count}", "pages"),
            newest=lambda count: Request(f"newest 0 {count}", "newest"),
            read=lambda body: [Row(number, time_of(number)) for number in json.loads(body)],
            most=most,
            most_newest=newest,
        )

    def answer(self, request: Request, forward: bool) -> list[int]:
        what, edge, count = request.path.split()
        lag = self.lags.pop(0) if self.lags else 0
        shown = [] if lag is None else self.listed[: len(self.listed) - lag]
        if what == "newest":
            return shown[-int(count) :]
        if forward:
            return [number for number in shown if number >= int(edge)][: int(count)]
        return [number for number in shown if number < int(edge)][-int(count) :][::-1]


def time_of(number: int) -> int:
    return START + number * SECOND


def want_of(first: int, last: int) -> Want:
    return Want(
        what="trades",
        instrument="X",
        number=1,
        since=START,
        reason="gap",
        first=first,
        last=last,
        from_time=time_of(first - 1),
        to_time=time_of(last + 1),
    )


def walk(history: History, exchange: Exchange, forward: bool, most: int = 5_000) -> set[int]:
    """What came, until nothing more is to be asked."""
    got: set[int] = set()
    for _ in range(most):
        if (request := history.next()) is None:
            return got
        rows = exchange.answer(request, forward)
        history.take(json.dumps(rows))
        got |= set(rows)
    raise AssertionError("it does not end")


def history_of(forward: bool, want: Want, exchange: Exchange, age: int) -> History:
    return Forward(want, exchange.source) if forward else Backward(want, exchange.source, (want.to_time or 0) + age)


@st.composite
def cases(draw: st.DrawFn, worst: int) -> tuple[list[int], int, int, list[int | None]]:
    """(numbers listed, first wanted, last wanted, lags): the trades on both sides of the gap are listed. Never more
    than `worst` answers that lag come one after the other."""
    first = draw(st.integers(10, 300))
    last = draw(st.integers(first, NUMBERS - 20))
    missing = draw(st.sets(st.integers(1, NUMBERS), max_size=40)) - {first - 1, last + 1}
    if draw(st.booleans()):
        low = draw(st.integers(first, last))
        missing |= set(range(low, draw(st.integers(low, last)) + 1))
    lags: list[int | None] = []
    for length in draw(st.lists(st.integers(1, worst), max_size=6)) if worst else ():
        lags += [0, *draw(st.lists(st.none() | st.integers(1, NUMBERS), min_size=length, max_size=length))]
    return [number for number in range(1, NUMBERS) if number not in missing], first, last, lags


@pytest.mark.parametrize("forward", [False, True], ids=["backward", "forward"])
@given(case=cases(TIMES - 1), most=st.integers(2, 60), newest=st.sampled_from([0, 70]), age=st.sampled_from([0, 9999]))
def test_caches_that_lag_for_a_while_hide_nothing(
    forward: bool, case: tuple[list[int], int, int, list[int | None]], most: int, newest: int, age: int
) -> None:
    listed, first, last, lags = case
    exchange = Exchange(listed, most, newest, lags)
    history = history_of(forward, want_of(first, last), exchange, age * SECOND)
    got = walk(history, exchange, forward)
    assert history.spans == (first, last)
    assert {number for number in got if first <= number <= last} == {n for n in listed if first <= n <= last}


@pytest.mark.parametrize("forward", [False, True], ids=["backward", "forward"])
@given(case=cases(3 * TIMES), most=st.integers(2, 60), newest=st.sampled_from([0, 70]))
def test_whatever_caches_do_it_ends_and_keeps_within_what_is_wanted(
    forward: bool, case: tuple[list[int], int, int, list[int | None]], most: int, newest: int
) -> None:
    listed, first, last, lags = case
    exchange = Exchange(listed, most, newest, lags)
    history = history_of(forward, want_of(first, last), exchange, 0)
    walk(history, exchange, forward)
    spans = history.spans
    assert spans is None or first <= spans[0] <= spans[1] <= last


@pytest.mark.parametrize("forward", [False, True], ids=["backward", "forward"])
@given(
    case=cases(TIMES - 1),
    most=st.integers(2, 60),
    newest=st.sampled_from([0, 70]),
    ranges=st.lists(st.tuples(st.integers(0, 6), st.integers(1, NUMBERS), st.integers(0, 80)), max_size=12),
)
def test_what_came_in_another_way_is_left_out_and_the_rest_is_not(
    forward: bool,
    case: tuple[list[int], int, int, list[int | None]],
    most: int,
    newest: int,
    ranges: list[tuple[int, int, int]],
) -> None:
    """`ranges`: (after so many pages, from this number, so many more), as far as they are listed without a hole."""
    listed, first, last, lags = case
    exchange = Exchange(listed, most, newest, lags)
    history = history_of(forward, want_of(first, last), exchange, 0)
    got: set[int] = set()
    for pages in range(5_000):
        for at, low, more in ranges:
            whole = range(max(first, low), min(last, low + more) + 1)
            if at == pages and whole and set(whole) <= set(listed):
                history.cover(whole[0], whole[-1])
                got |= set(whole)
        if (request := history.next()) is None:
            break
        rows = exchange.answer(request, forward)
        history.take(json.dumps(rows))
        got |= set(rows)
    assert history.spans == (first, last)
    assert got >= {number for number in listed if first <= number <= last}


@pytest.mark.parametrize("forward", [False, True], ids=["backward", "forward"])
def test_pages_are_asked_for_holes_only(forward: bool) -> None:
    exchange = Exchange(range(1, NUMBERS), 50, 0, [])
    history = history_of(forward, want_of(100, 300), exchange, 0)
    for low, high in ((100, 149), (161, 300)):
        history.cover(low, high)
    got: list[int] = []
    pages = 0
    while (request := history.next()) is not None:
        rows = exchange.answer(request, forward)
        history.take(json.dumps(rows))
        got, pages = got + rows, pages + 1
    assert pages == 1
    assert set(got) >= set(range(150, 161))
    assert history.spans == (100, 300)


def test_all_covered_is_done_without_a_page() -> None:
    exchange = Exchange(range(1, NUMBERS), 50, 70, [])
    for forward in (False, True):
        history = history_of(forward, want_of(100, 300), exchange, 0)
        history.cover(201, 300)
        history.cover(100, 200)
        assert history.next() is None
        assert history.spans == (100, 300)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=15), st.integers(0, 70))
def test_covered_numbers_are_a_set(ranges: list[tuple[int, int]], number: int) -> None:
    covered, numbers = Covered(), set[int]()
    for low, more in ranges:
        covered.add(low, low + more)
        numbers |= set(range(low, low + more + 1))
    found = covered.around(number)
    assert (found is not None) == (number in numbers)
    if found is not None:
        assert set(range(found[0], found[1] + 1)) <= numbers
        assert not numbers & {found[0] - 1, found[1] + 1}
    begins = [each for each in sorted(numbers) if each > number and each - 1 not in numbers]
    assert covered.after(number) == (begins[0] if begins else None)


@pytest.mark.parametrize("forward", [False, True], ids=["backward", "forward"])
@given(lag=st.integers(1, 300), most=st.integers(2, 60), seed=st.integers())
def test_an_exchange_that_is_behind_covers_only_what_it_lists(forward: bool, lag: int, most: int, seed: int) -> None:
    first = random.Random(seed).randint(10, 300)
    listed = list(range(1, NUMBERS))
    exchange = Exchange(listed, most, 0, [lag] * 5_000)
    want = want_of(first, NUMBERS - 2)
    history = history_of(forward, want, exchange, 0)
    got = walk(history, exchange, forward)
    shown = NUMBERS - 1 - lag
    if shown < first:
        assert history.spans is None
    else:
        assert history.spans == (first, min(shown, NUMBERS - 2))
        assert got >= set(range(first, min(shown, NUMBERS - 2) + 1))


@pytest.mark.parametrize("forward", [False, True], ids=["backward", "forward"])
@pytest.mark.parametrize("kept", [0, 1, 5, 50])
def test_an_exchange_that_forgets_is_asked_in_vain_and_then_believed(forward: bool, kept: int) -> None:
    """It has only the newest: of the gap 100 … 199 so many, or none at all."""
    exchange = Exchange(range(200 - kept, NUMBERS) if kept else range(300, NUMBERS), 30, 0, [])
    history = history_of(forward, want_of(100, 199), exchange, 0)
    got = walk(history, exchange, forward)
    assert history.spans == (100, 199)
    assert {number for number in got if number < 200} == set(range(200 - kept, 200))
