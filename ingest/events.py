"""Waiting for the first of several events, with or without a bound, and for what no event tells."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from pipeline.timeframes import SECOND


async def first(*events: asyncio.Event) -> None:
    """Returns when one of the events is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end(*waits)


async def within(duration: int, *events: asyncio.Event) -> bool:
    """Whether one of the events is set before `duration` (ns) is over."""
    try:
        async with asyncio.timeout(max(0, duration) / SECOND):
            await first(*events)
    except TimeoutError:
        return any(event.is_set() for event in events)
    return True


async def until(condition: Callable[[], bool], every: int) -> None:
    """Returns once it holds, looking `every` so many ns."""
    while True:
        if condition():
            return
        await asyncio.sleep(every / SECOND)


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Does the work unless `stop` comes first; whether it was done. Raises what the work raises."""
    task, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return False
        task.result()
        return True
    finally:
        await _end(task, stopping)


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Nothing of them outlives us; what they raise now is of no use to anybody."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
