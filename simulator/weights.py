"""Allowances by weight in minutes of the clock, and what comes of ignoring them. Pure; the time (ns) is an argument."""

import msgspec

from simulator.market import SECOND

MINUTE = 60 * SECOND
IGNORED = 5
"""Requests in spite of a refusal before the address is banned. Binance does not publish the number."""
BAN = 120 * SECOND
LONGEST_BAN = 3 * 24 * 3600 * SECOND


class Refusal(msgspec.Struct, frozen=True):
    """Too much (429) or banned (418); how long (ns) to `wait`."""

    status: int
    wait: int


class _Account(msgspec.Struct):
    """What one address used in one minute of the clock, and what it is being punished for."""

    minute: int = 0
    used: int = 0
    ignored: int = 0
    banned: int = 0
    bans: int = 0


class Weights:
    """At most `limit` an address in any minute of the clock. Who goes on all the same is banned, longer each time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._accounts: dict[str, _Account] = {}

    def used(self, address: str) -> int:
        """Of the minute of the last request."""
        return self._accounts[address].used if address in self._accounts else 0

    def take(self, address: str, weight: int, now: int) -> Refusal | None:
        """Charge a request, or refuse it: what is refused does not count."""
        account = self._accounts.setdefault(address, _Account())
        if now < account.banned:
            return Refusal(418, account.banned - now)
        if account.minute != now // MINUTE:
            account.minute, account.used, account.ignored = now // MINUTE, 0, 0
        if account.used + weight <= self.limit:
            account.used += weight
            return None
        account.ignored += 1
        if account.ignored <= IGNORED:
            return Refusal(429, MINUTE - now % MINUTE)
        wait = min(BAN * 2**account.bans, LONGEST_BAN)
        account.banned = now + wait
        account.bans += 1
        return Refusal(418, wait)
