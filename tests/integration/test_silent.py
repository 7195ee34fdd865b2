"""The last trades before a silence, printed while nobody listened: no later number tells of them, on any exchange."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import normalize.tails
from pipeline.timeframes import SECOND
from simulator.faults import Fault
from simulator.server import Simulator
from tests.integration.collector import Shown, collecting, eventually, settings_for
from tests.integration.test_fetching import SYMBOL, Case, Collector, exchange, normalizing, simulator, wants

__all__ = ["exchange", "simulator"]

OTHER = "ETH-USDT"
MUTE = 4
"""So many are missed where the exchange does not even send the last one again."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed after 2 s: the rest of ten would only be waited for."""
    monkeypatch.setattr(normalize.tails, "AFTER", 2 * SECOND)


@pytest.fixture
async def case(simulator: Simulator, redis_url: str, exchange: str) -> AsyncIterator[Case]:
    shown = Shown(redis_url, exchange)
    try:
        yield Case(simulator, shown)
    finally:
        await shown.close()


def cut(case: Case, missed: int) -> None:
    """So many are printed unseen, then the line is cut; nothing is printed afterwards."""
    case.simulator.inject(Fault(fault="drop", instrument=case.instrument, count=missed))
    case.print(missed)
    case.simulator.inject(Fault(fault="disconnect"))


async def stored_once(case: Case, first: int) -> None:
    await eventually(case.whole, "the last trades")
    records = [record for record in await case.shown.all("trade") if record["symbol"] == SYMBOL]
    numbers = sorted(record["sequence"] for record in records if record["sequence"] >= first)
    assert numbers == [number for number in case.printed if number >= first]


@pytest.mark.parametrize(("missed", "lag"), [(3, 0.0), (3, 4.5), (MUTE, 0.0), (MUTE, 4.5), (250, 0.0)])
async def test_the_last_trades_before_a_silence_are_there_once(
    tmp_path: Path, redis_url: str, simulator: Simulator, exchange: str, case: Case, lag: float, missed: int
) -> None:
    """Few of them are on one page; of many, those below it are a gap. REST may be seconds behind what we have."""
    settings = settings_for(tmp_path, redis_url, simulator, exchange, [SYMBOL], ("trade",))
    async with collecting(settings, exchange):
        await case.collected()
        first = min(await case.numbers())
        if lag:
            case.simulator.inject(Fault(fault="rest_lag", seconds=lag))
        if missed == MUTE:
            case.simulator.inject(Fault(fault="silence_after_ack", instrument=case.instrument))
        cut(case, missed)
        await stored_once(case, first)

        async def settled() -> bool:
            gaps = await case.shown.all("gap")
            return not await wants(case) and all(gap["state"] == "closed" for gap in gaps[-1:])

        await eventually(settled, "the end of what is wanted")
        records = await case.shown.all("trade")
        # OKX sends the last one again to whom subscribes.
        assert sum(record.get("repaired", False) for record in records) >= missed - 1
        assert (await case.shown.newest("trade"))[SYMBOL]["sequence"] == case.printed[-1]


async def test_of_an_instrument_that_is_gone_too(
    tmp_path: Path, redis_url: str, simulator: Simulator, exchange: str, case: Case
) -> None:
    """It cannot be subscribed any more; the exchange still has its trades."""
    settings = settings_for(tmp_path, redis_url, simulator, exchange, [SYMBOL, OTHER], ("trade",))
    async with collecting(settings, exchange):
        await case.collected()
        first = min(await case.numbers())
        fault = "refused_symbol" if exchange == "okx" else "silence_after_ack"
        case.simulator.inject(Fault(fault=fault, instrument=case.instrument))  # type: ignore[arg-type]
        cut(case, 3)
        await stored_once(case, first)


async def test_of_what_was_printed_while_ingest_was_killed(
    tmp_path: Path, redis_url: str, simulator: Simulator, exchange: str, case: Case
) -> None:
    """Its successor subscribes anew, and asks for what came before."""
    settings = settings_for(tmp_path, redis_url, simulator, exchange, [SYMBOL], ("trade",))
    async with normalizing(settings, exchange), Collector(settings, exchange).running() as collector:
        await case.collected()
        first = min(await case.numbers())
        case.simulator.inject(Fault(fault="silence_after_ack", instrument=case.instrument))
        collector.kill()
        case.print(5)
        await stored_once(case, first)
