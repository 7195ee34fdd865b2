"""A wrong clock of the exchange: ahead, behind, right again, and never backwards."""

import pytest

from pipeline.errors import SettingsError
from simulator.faults import fault_from
from simulator.market import SECOND
from simulator.server import serve
from tests.simulator.clients import Clock


@pytest.mark.parametrize("exchange", ["okx", "binance"])
async def test_the_clock_is_wrong_until_it_is_told_otherwise(exchange: str) -> None:
    clock = Clock()
    async with serve(exchange=exchange, rate=0, clock=clock) as simulator:
        assert simulator.now() == clock.now
        simulator.inject(fault_from({"fault": "skew", "seconds": 3}))
        ahead = simulator.now()
        assert ahead == clock.now + 3 * SECOND
        instrument = simulator.dialect.instrument("BTC-USDT")
        assert simulator.print(instrument)[0][0].time // SECOND == ahead // SECOND
        simulator.inject(fault_from({"fault": "skew", "seconds": -1}))
        clock.pass_(2)
        assert simulator.now() == ahead, "it stands still"
        clock.pass_(4)
        assert simulator.now() == clock.now - SECOND
        simulator.inject(fault_from({"fault": "clear"}))
        assert simulator.now() == clock.now


def test_no_other_fault_lasts_less_than_nothing() -> None:
    with pytest.raises(SettingsError, match="not negative"):
        fault_from({"fault": "rest_error", "seconds": -1})
