"""Sorted lists of disjoint inclusive ranges of trade numbers, as plain pairs. Pure."""

from bisect import bisect_left, bisect_right

Ranges = list[tuple[int, int]]
MOST_SPELT = 4


def _first_not_below(ranges: Ranges, number: int) -> int:
    """Index of the first range that ends at `number` or above."""
    return bisect_left(ranges, number, key=lambda pair: pair[1])


def overlaps(ranges: Ranges, first: int, last: int) -> bool:
    """Whether any number of first…last is in the ranges."""
    index = _first_not_below(ranges, first)
    return index < len(ranges) and ranges[index][0] <= last


def contains(ranges: Ranges, first: int, last: int) -> bool:
    """Whether all of first…last is in the ranges."""
    index = _first_not_below(ranges, first)
    return index < len(ranges) and ranges[index][0] <= first and last <= ranges[index][1]


def subtract(ranges: Ranges, first: int, last: int) -> Ranges:
    """The ranges without first…last, which must lie within one of them."""
    index = _first_not_below(ranges, first)
    low, high = ranges[index]
    left = [(low, first - 1)] if low < first else []
    right = [(last + 1, high)] if last < high else []
    return [*ranges[:index], *left, *right, *ranges[index + 1 :]]


def add(ranges: Ranges, first: int, last: int) -> Ranges:
    """The ranges with first…last, which must not overlap any; neighbours become one."""
    index = bisect_right(ranges, first, key=lambda pair: pair[0])
    before, after = ranges[:index], ranges[index:]
    if before and before[-1][1] == first - 1:
        first = before.pop()[0]
    if after and after[0][0] == last + 1:
        last = after.pop(0)[1]
    return [*before, (first, last), *after]


def within(ranges: Ranges, others: Ranges) -> Ranges:
    """What both have."""
    found: Ranges = []
    for first, last in ranges:
        for low, high in others[_first_not_below(others, first) :]:
            if low > last:
                break
            found.append((max(first, low), min(last, high)))
    return found


def without(ranges: Ranges, others: Ranges) -> Ranges:
    """The ranges but what the others have."""
    found: Ranges = []
    for first, last in ranges:
        begin = first
        for low, high in others[_first_not_below(others, first) :]:
            if low > last:
                break
            if begin < low:
                found.append((begin, low - 1))
            begin = high + 1
        if begin <= last:
            found.append((begin, last))
    return found


def union(ranges: Ranges, others: Ranges) -> Ranges:
    """What either has; neighbours become one."""
    found: Ranges = []
    for first, last in sorted([*ranges, *others]):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def count(ranges: Ranges) -> int:
    """How many numbers the ranges hold."""
    return sum(last - first + 1 for first, last in ranges)


def spelt(ranges: Ranges) -> str:
    """`7, 9-12 …`: at most MOST_SPELT ranges."""
    told = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges[:MOST_SPELT])
    return f"{told} …" if len(ranges) > MOST_SPELT else told
