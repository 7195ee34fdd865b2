"""Ranges of trade numbers against plain sets."""

from hypothesis import given, settings
from hypothesis import strategies as st

from normalize import intervals

numbers = st.sets(st.integers(0, 60), max_size=40)


def ranges_of(numbers: set[int]) -> intervals.Ranges:
    found: intervals.Ranges = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


@settings(deadline=None)
@given(numbers, st.integers(0, 60), st.integers(0, 10))
def test_questions_are_answered_as_sets_answer_them(known: set[int], first: int, more: int) -> None:
    ranges, asked = ranges_of(known), set(range(first, first + more + 1))
    assert intervals.overlaps(ranges, first, first + more) == bool(asked & known)
    assert intervals.contains(ranges, first, first + more) == (asked <= known)
    assert intervals.count(ranges) == len(known)


@settings(deadline=None)
@given(numbers, st.integers(0, 60), st.integers(0, 10))
def test_adding_and_taking_away(known: set[int], first: int, more: int) -> None:
    asked = set(range(first, first + more + 1))
    if not asked & known:
        assert intervals.add(ranges_of(known), first, first + more) == ranges_of(known | asked)
    if asked <= known:
        assert intervals.subtract(ranges_of(known), first, first + more) == ranges_of(known - asked)


@settings(deadline=None)
@given(numbers, numbers)
def test_ranges_together_are_as_sets_together(some: set[int], others: set[int]) -> None:
    ranges, more = ranges_of(some), ranges_of(others)
    assert intervals.union(ranges, more) == ranges_of(some | others)
    assert intervals.without(ranges, more) == ranges_of(some - others)
    assert intervals.union(intervals.within(ranges, more), []) == ranges_of(some & others)
