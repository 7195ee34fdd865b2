"""Numbers that came in another way than by pages, as ranges. Pure."""

from bisect import bisect_right


class Covered:
    """Ranges with both ends, rising, never touching each other."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def add(self, first: int, last: int) -> None:
        """These too."""
        begin = bisect_right(self._ranges, first, key=lambda pair: pair[0])
        if begin and self._ranges[begin - 1][1] >= first - 1:
            begin -= 1
        end = bisect_right(self._ranges, last + 1, key=lambda pair: pair[0])
        met = self._ranges[begin:end]
        self._ranges[begin:end] = [(min([first, *(pair[0] for pair in met)]), max([last, *(pair[1] for pair in met)]))]

    def around(self, number: int) -> tuple[int, int] | None:
        """The range with this number."""
        place = bisect_right(self._ranges, number, key=lambda pair: pair[0])
        return self._ranges[place - 1] if place and self._ranges[place - 1][1] >= number else None

    def after(self, number: int) -> int | None:
        """The first number above this at which a range begins."""
        place = bisect_right(self._ranges, number, key=lambda pair: pair[0])
        return self._ranges[place][0] if place < len(self._ranges) else None
