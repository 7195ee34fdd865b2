"""A disk that was full, or not ours, when ingest started is used once it is better."""

from pathlib import Path

from tests.ingest.conftest import eventually
from tests.ingest.spooling import SPOOLING
from tests.ingest.test_writer import Fixture
from tests.servers import RedisServer


async def test_a_spool_that_could_not_be_opened_is_tried_again(redis_server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("in the way")
    async with Fixture(redis_server.url, tmp_path, timing=SPOOLING, spool_bytes=1 << 30).running() as fixture:
        fixture.append()
        await fixture.written()
        assert "cannot open the spool" in str(fixture.heartbeat.report().last_error)
        (tmp_path / "spool").unlink()
        redis_server.restart()
        fixture.append()
        await fixture.written()
        redis_server.kill()
        fixture.append()

        async def spooled() -> bool:
            return fixture.heartbeat.counters["spooled"] > 0 and fixture.writer.waiting_bytes == 0

        await eventually(spooled)
