"""What is not known: ranges of numbers and the times they span, against a plain set of numbers and times."""

from hypothesis import given
from hypothesis import strategies as st

from aggregate.unknown import Range, Unknown

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20), st.booleans()), max_size=8)


@given(SPANS, st.integers(0, 80), st.integers(1, 30))
def test_what_is_missing_waits_or_is_touched_are_the_times(
    spans: list[tuple[int, int, bool]], start: int, width: int
) -> None:
    unknown, end = Unknown(), start + width
    for number, (low, length, pending) in enumerate(spans):
        unknown.add(Range(0, number * 10, number * 10 + 5, low, low + length, 1 if pending else None))
    confirmed = {time for low, length, pending in spans if not pending for time in range(low, low + length + 1)}
    waiting = {time for low, length, pending in spans if pending for time in range(low, low + length + 1)}
    window = set(range(start, end))
    assert unknown.missing(start, end) == len(confirmed & window)
    assert unknown.waits(start, end) == bool(waiting & window)
    assert unknown.touched(start, end) == bool((confirmed | waiting) & window)
    assert unknown.pending == any(pending for *_, pending in spans)


@given(st.permutations(range(10, 20)), st.integers(0, 10))
def test_numbers_that_come_in_any_order_narrow_the_time(order: list[int], count: int) -> None:
    """Number n is of time 10 n: what is left spans from the neighbour below to the neighbour above."""
    unknown = Unknown()
    unknown.add(Range(0, 10, 19, 90, 200, None))
    for number in order[:count]:
        filled = unknown.fill(0, number, number, number * 10)
        assert filled is not None
        assert unknown.fill(0, number, number, number * 10) is None
    left = {number for found in unknown.ranges for number in range(found.first, found.last + 1)}
    assert left == set(order[count:])
    for found in unknown.ranges:
        assert (found.start, found.end) == ((found.first - 1) * 10, (found.last + 1) * 10)
    assert unknown.missing(0, 300) == len({t for n in left for t in range((n - 1) * 10, (n + 1) * 10 + 1)})


def test_numbers_of_another_epoch_are_others() -> None:
    unknown = Unknown()
    unknown.add(Range(0, 10, 19, 90, 200, 5))
    assert unknown.fill(1, 10, 10, 100) is None
    assert unknown.confirm(1, 10, 19) is None
    assert unknown.confirm(0, 10, 19) == (90, 200)
    assert unknown.confirm(0, 10, 19) is None, "it is told once"


def test_lost_time_stays_until_it_is_forgotten() -> None:
    unknown = Unknown()
    unknown.add(Range(0, 10, 19, 90, 200, 5))
    assert unknown.lose(0, 10, 19) == (90, 200)
    assert (unknown.ranges, unknown.missing(0, 1_000)) == ([], 111)
    unknown.forget(200)
    assert unknown.missing(0, 1_000) == 111
    unknown.forget(201)
    assert unknown.missing(0, 1_000) == 0


def test_a_time_that_goes_back_is_a_span_all_the_same() -> None:
    unknown = Unknown()
    assert unknown.add(Range(0, 1, 2, 200, 90, None)) == (90, 200)
    assert unknown.fill(0, 1, 1, 500) == ((90, 200), (90, 200), [])
    assert unknown.missing(0, 1_000) == 1, "a time outside the neighbours' is taken as the nearer one"
    assert unknown.fill(0, 2, 2, 150) == ((200, 200), (200, 200), [(200, 500)]), "and told when what is beside it comes"


def test_a_jump_nobody_explains_is_confirmed_in_the_end() -> None:
    unknown = Unknown()
    unknown.add(Range(0, 1, 2, 10, 20, 100))
    assert unknown.overdue(100) is None
    assert unknown.overdue(101) == (10, 20)
    assert not unknown.pending
