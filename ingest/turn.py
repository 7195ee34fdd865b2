"""Waiting for one's turn within an allowance."""

import asyncio
from collections.abc import Callable

from ingest.budget import Budget
from pipeline.timeframes import SECOND


async def turn(
    budget: Budget,
    now: Callable[[], int],
    cost: int = 1,
    share: float = 1.0,
    check: Callable[[], None] | None = None,
) -> int:
    """The place (ns) at which the allowance lets it go, once that has come; whoever is cancelled gives it back.

    `now` is the clock of the budget (ns), `share` as in Budget.reserve; `check` is called before each wait, and may
    raise.
    """
    while True:
        if check is not None:
            check()
        at = now()
        place = budget.reserve(at, cost, share)
        if place <= at:
            return place
        try:
            await asyncio.sleep((place - at) / SECOND)
        except asyncio.CancelledError:
            budget.release(place, cost)
            raise
        if budget.fits(place, cost, now()):
            return place
        budget.release(place, cost)
