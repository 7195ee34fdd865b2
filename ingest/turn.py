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
) -> None:
    """Returns when the allowance lets it go; whoever is cancelled gives the place back.

    `now` is the clock of the budget (ns), `share` as in Budget.reserve; `check` is called before each wait, and may
    raise.
    """
    while True:
        if check is not None:
            check()
        at = now()
        place = budget.reserve(at, cost, share)
        if place <= at:
            return
        try:
            await asyncio.sleep((place - at) / SECOND)
        except asyncio.CancelledError:
            budget.release(place, cost)
            raise
        if budget.fits(place, cost, now()):
            return
        budget.release(place, cost)
