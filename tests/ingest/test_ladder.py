"""The ladder of a silent exchange in the whole process: ask again, connect anew, say that it has come to nothing."""

from pathlib import Path

import msgspec
import pytest

from ingest.timing import MILLISECOND
from pipeline.reports import Report, read
from pipeline.settings import Settings
from pipeline.timeframes import SECOND
from simulator.faults import Fault
from simulator.server import serve
from tests.ingest.conftest import QUICK, eventually, frames_of, read_raw, settings_for
from tests.ingest.test_main import NAME, collecting, more_trades

IMPATIENT = msgspec.structs.replace(
    QUICK, mute=600 * MILLISECOND, brisk=150 * MILLISECOND, clock=SECOND, rest_patience=SECOND
)
PAIRS = ("BTC-USDT", "ETH-USDT")


def report(settings: Settings) -> Report:
    return read(settings.heartbeat_dir / NAME)


async def opens(url: str) -> int:
    return sum(frame.kind == "open" for frame in frames_of(await read_raw(url)))


async def test_silence_everywhere_is_asked_about_connected_to_again_and_then_told_until_data_comes(
    tmp_path: Path, redis_url: str
) -> None:
    async with serve(rate=400, limits=50) as simulator:
        settings = settings_for(tmp_path, redis_url, simulator.ws_url, simulator.rest_url, PAIRS)
        async with collecting(settings, IMPATIENT):
            await more_trades(redis_url, 200)
            # What is subscribed from now on is acknowledged and silent.
            simulator.inject(Fault(fault="silence_after_ack"))
            simulator.inject(Fault(fault="disconnect"))

            async def stalled() -> bool:
                return report(settings).stalled is not None

            await eventually(stalled)
            told = report(settings)
            assert "while the exchange answers" in str(told.stalled_why)
            assert told.waiting_for is None
            assert await opens(redis_url) >= 1 + 2, "two connections in a row were given up first"
            simulator.inject(Fault(fault="clear"))
            await more_trades(redis_url, 100)

            async def well() -> bool:
                return report(settings).stalled is None

            await eventually(well)
    frames = frames_of(await read_raw(redis_url))
    silent = {frame.conn for frame in frames if frame.kind == "close" and "replaced: silent" in frame.data}
    assert silent
    for name in silent:
        asked = [frame for frame in frames if frame.conn == name and frame.dir == "out" and "subscribe" in frame.data]
        assert len(asked) >= 2, "each was asked again before it was given up"


@pytest.mark.parametrize("closed", ["rest", "sockets"])
async def test_an_exchange_that_does_not_answer_is_waited_for(tmp_path: Path, redis_url: str, closed: str) -> None:
    """Nobody is restarted because somebody else is away."""
    async with serve(rate=400, limits=50) as simulator:
        settings = settings_for(tmp_path, redis_url, simulator.ws_url, simulator.rest_url, PAIRS)
        async with collecting(settings, IMPATIENT):
            await more_trades(redis_url)
            stalls: list[Report] = []

            async def tried() -> bool:
                stalls.extend(found for found in [report(settings)] if found.stalled is not None)
                return await opens(redis_url) >= 6 if closed == "rest" else report(settings).waiting_for == "exchange"

            if closed == "rest":
                simulator.inject(Fault(fault="rest_error", status=503))
                simulator.inject(Fault(fault="silence_after_ack"))
                simulator.inject(Fault(fault="disconnect"))
                await eventually(tried)
            else:
                simulator.dialect.serves = lambda path: False  # type: ignore[method-assign]
                simulator.inject(Fault(fault="disconnect"))
                await eventually(tried)
            assert stalls == []
            assert report(settings).errors > 0


async def test_one_quiet_instrument_is_never_told_of_however_often_it_is_connected_to(
    tmp_path: Path, redis_url: str
) -> None:
    async with serve(rate=0, limits=50) as simulator:
        simulator.inject(Fault(fault="silence_after_ack"))
        settings = settings_for(tmp_path, redis_url, simulator.ws_url, simulator.rest_url, PAIRS[:1])
        async with collecting(settings, IMPATIENT):
            stalls: list[Report] = []

            async def tried() -> bool:
                if (settings.heartbeat_dir / NAME).exists() and report(settings).stalled is not None:
                    stalls.append(report(settings))
                return await opens(redis_url) >= 4

            await eventually(tried)
            assert stalls == []
