"""Allowances an exchange grants: so many in so long, by key. Pure; the time (ns) is an argument."""

from collections import deque


class Allowance:
    """At most `count` in any `period` (ns) for one key; what is refused does not count."""

    def __init__(self, count: int, period: int) -> None:
        self.count = count
        self.period = period
        self._taken: dict[str, deque[int]] = {}

    def take(self, key: str, now: int) -> bool:
        """Take one for `key` at `now`; False when the allowance is used up."""
        taken = self._taken.setdefault(key, deque())
        while taken and taken[0] <= now - self.period:
            taken.popleft()
        if len(taken) >= self.count:
            return False
        taken.append(now)
        return True
