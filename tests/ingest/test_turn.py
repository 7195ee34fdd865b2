"""Turns within an allowance, on the real loop and a clock of the loop's own."""

import asyncio
import itertools
import time

import pytest

from ingest.budget import Budget
from ingest.declined import Declined
from ingest.feed import Rate
from ingest.turn import turn
from pipeline.timeframes import HOUR, SECOND
from tests.ingest.conftest import DEADLINE, MILLISECOND

now = time.monotonic_ns


async def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    budget, order = Budget(Rate(1, 20 * MILLISECOND), slack=0), []

    async def take(number: int) -> None:
        await turn(budget, now)
        order.append(number)

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*map(take, range(6)))
    assert order == list(range(6))


async def test_whoever_is_cancelled_gives_the_place_back() -> None:
    budget = Budget(Rate(2, HOUR), slack=0)
    await turn(budget, now)
    waiting = [asyncio.create_task(turn(budget, now, 2)) for _ in range(3)]
    await asyncio.sleep(0)
    assert budget.used(now()) == 7
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert budget.used(now()) == 1
    await turn(budget, now)


async def test_a_hold_that_comes_while_waiting_is_obeyed() -> None:
    budget = Budget(Rate(1, 20 * MILLISECOND), slack=0)
    await turn(budget, now)
    waiting = asyncio.create_task(turn(budget, now))
    await asyncio.sleep(0)
    until = now() + SECOND // 5
    budget.hold(until)
    async with asyncio.timeout(DEADLINE):
        await waiting
    assert now() >= until
    assert budget.used(now()) <= 1, "the first place was given back"


async def test_what_others_turn_out_to_use_postpones_those_who_wait() -> None:
    budget = Budget(Rate(10, SECOND // 5), slack=0)
    await turn(budget, now, 10)
    waiting = asyncio.create_task(turn(budget, now, 5))
    await asyncio.sleep(SECOND // 10 / SECOND)
    told = now()
    budget.told(20, told)
    async with asyncio.timeout(DEADLINE):
        await waiting
    assert now() >= told + SECOND // 5, "not when our own 10 were forgotten"


async def test_after_a_standstill_turns_do_not_come_in_a_burst() -> None:
    budget, at, stood = Budget(Rate(1, SECOND // 10)), [], 0

    def clock() -> int:
        return time.monotonic_ns() + stood

    async def take() -> None:
        await turn(budget, clock)
        at.append(clock())

    await turn(budget, clock)
    tasks = [asyncio.create_task(take()) for _ in range(4)]
    await asyncio.sleep(0)
    # The machine slept, or the loop was busy: the places of all have passed.
    stood = HOUR
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*tasks)
    assert all(later - earlier >= SECOND // 10 for earlier, later in itertools.pairwise(at))


async def test_a_check_that_raises_ends_the_waiting() -> None:
    budget = Budget(Rate(1, HOUR), slack=0)

    def check() -> None:
        raise Declined("no")

    with pytest.raises(Declined):
        await turn(budget, now, check=check)
    assert budget.used(now()) == 0
