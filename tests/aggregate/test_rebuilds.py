"""What store is asked for: nothing is left out, and the list stays short."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from aggregate.rebuilds import MOST_SPANS, Rebuilds

SPANS = st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 60)), max_size=40)


@settings(deadline=None)
@given(SPANS, st.integers(0, 1_100))
def test_every_wanted_time_before_the_horizon_is_asked_for_in_a_few_spans(
    wanted: list[tuple[int, int]], horizon: int
) -> None:
    rebuilds = Rebuilds([], [])
    for low, length in wanted:
        rebuilds.add((low, low + length), ["1m"] if low % 2 else ["1s"])
        assert len(rebuilds.spans) <= MOST_SPANS
    rebuilds.cut(horizon)
    spans, frames = rebuilds.take()
    times = {time for low, high in spans for time in range(low, high + 1)}
    assert times >= {time for low, length in wanted for time in range(low, low + length + 1) if time < horizon}
    assert all(time < horizon for time in times)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    assert bool(frames) == bool(spans)
    assert rebuilds.take() == ([], [])


def test_few_spans_are_asked_for_as_they_are() -> None:
    rebuilds = Rebuilds([], [])
    for span in ((10, 20), (50, 60), (21, 30), (5, 7)):
        rebuilds.add(span, ["1s", "1m"])
    assert rebuilds.take() == ([(5, 7), (10, 30), (50, 60)], ["1s", "1m"])
