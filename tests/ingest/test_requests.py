"""What normalize wants, done: snapshots from a small Binance that refuses as told, resyncs on the OKX simulator."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from ingest.clock import HostClock
from ingest.context import Context
from ingest.exchanges.binance import Feed
from ingest.feed import Feed as AnyFeed
from ingest.feed import Rate
from ingest.repairs import Repairs
from ingest.requests import SNAPSHOTS, Requests
from ingest.rest import Rest
from ingest.session import Session
from ingest.timing import Timing
from pipeline.frames import Frame, RequestData, SubscriptionData
from pipeline.settings import RepairSettings
from pipeline.timeframes import SECOND
from pipeline.wants import Want, resync_key, snapshot_key
from tests.ingest.conftest import DEADLINE, QUICK, eventually
from tests.ingest.stand import Stand


class Desk:
    """One partition's requests against `rest_url`, with the frames they gave. `sessions` are the live ones."""

    def __init__(self, rest_url: str, feed: AnyFeed | None = None, timing: Timing = QUICK) -> None:
        self.frames: list[Frame] = []
        self.clock = HostClock()
        self.feed = feed or Feed()
        self.sessions: dict[str, Session] = {}
        self.context = Context(
            self.feed,
            self.clock,
            timing,
            self.frames.append,
            lambda each: SubscriptionData(*each, "requested"),
            lambda _: None,
        )
        self.rest = Rest(rest_url, self.feed, self.clock, timing, random.Random(1).random)
        self.repairs = Repairs(self.rest, self.feed, self.clock, timing, RepairSettings(), random.Random(1).random)
        self.requests = Requests(self.rest, self.context, self.sessions.get, self.repairs)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Desk"]:
        async with self.rest:
            task = asyncio.create_task(self.requests.run())
            try:
                yield self
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def want(self, *instruments: str, number: int = 1) -> None:
        """Snapshots of these are all that is wanted now."""
        since = self.clock.now()
        self.requests.take(
            {
                snapshot_key(name): Want(what="snapshot", instrument=name, number=number, since=since, reason="first")
                for name in instruments
            }
        )

    def told(self, instrument: str) -> list[RequestData]:
        """What was said of the want for a snapshot."""
        data = [msgspec.json.decode(frame.data, type=RequestData) for frame in self.frames if frame.kind == "request"]
        return [each for each in data if each.key == snapshot_key(instrument)]

    def states(self, instrument: str) -> list[tuple[int, str]]:
        return [(each.number, each.state) for each in self.told(instrument)]

    async def until(self, condition: Callable[[], object]) -> None:
        async def holds() -> bool:
            return bool(condition())

        await eventually(holds)


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with Stand().running() as stand:
        yield stand


async def test_a_snapshot_stands_between_asked_and_answered(stand: Stand) -> None:
    async with Desk(stand.rest_url).running() as desk:
        desk.want("BTCUSDT")
        await desk.until(lambda: len(desk.told("BTCUSDT")) == 2)
    assert [frame.kind for frame in desk.frames] == ["request", "rest", "request"]
    assert desk.states("BTCUSDT") == [(1, "asked"), (1, "answered")]
    answer = desk.frames[1]
    assert answer.key == "snapshot BTCUSDT"
    assert answer.url == f"{stand.rest_url}/api/v3/depth?symbol=BTCUSDT&limit=1000"
    assert answer.data.startswith('{"lastUpdateId"')
    assert {frame.conn for frame in desk.frames} == {stand.rest_url}
    assert desk.requests.rows() == {"snapshot BTCUSDT": {"number": 1, "state": "answered", "reason": None}}


async def test_each_number_is_done_once_and_a_new_number_anew(stand: Stand) -> None:
    async with Desk(stand.rest_url).running() as desk:
        desk.want("BTCUSDT")
        await desk.until(lambda: len(desk.told("BTCUSDT")) == 2)
        desk.want("BTCUSDT")
        desk.want("BTCUSDT", "ETHUSDT")
        await desk.until(lambda: len(desk.told("ETHUSDT")) == 2)
        assert stand.snapshots == ["BTCUSDT", "ETHUSDT"]
        desk.want("BTCUSDT", number=2)
        await desk.until(lambda: len(desk.told("BTCUSDT")) == 4)
    assert desk.states("BTCUSDT") == [(1, "asked"), (1, "answered"), (2, "asked"), (2, "answered")]
    assert list(desk.requests.rows()) == ["snapshot BTCUSDT"], "what is not wanted any more is forgotten"


@pytest.mark.parametrize(
    ("status", "body", "permanent"),
    [
        (503, '{"code":-1000,"msg":"busy"}', False),
        (400, '{"code":-1121,"msg":"Invalid symbol."}', True),
        (451, "<html>not here</html>", True),
    ],
)
async def test_a_refusal_is_told_and_not_tried_again_here(
    stand: Stand, status: int, body: str, permanent: bool
) -> None:
    stand.answers = [(status, {}, body)]
    async with Desk(stand.rest_url).running() as desk:
        desk.want("BTCUSDT")
        await desk.until(lambda: len(desk.told("BTCUSDT")) == 2)
        assert stand.snapshots == ["BTCUSDT"]
        refusal = desk.told("BTCUSDT")[1]
        assert (refusal.state, refusal.permanent) == ("refused", permanent)
        assert str(status) in str(refusal.reason)
        desk.want("BTCUSDT", number=2)
        await desk.until(lambda: desk.states("BTCUSDT")[-1] == (2, "answered"))


async def test_too_many_requests_hold_everything_for_as_long_as_they_say(stand: Stand) -> None:
    stand.answers = [(429, {"Retry-After": "1"}, '{"code":-1003,"msg":"Too many requests"}')]
    async with Desk(stand.rest_url).running() as desk:
        desk.want("BTCUSDT")
        await desk.until(lambda: len(desk.told("BTCUSDT")) == 2)
        assert (desk.told("BTCUSDT")[1].state, desk.told("BTCUSDT")[1].permanent) == ("refused", False)
        assert desk.rest.rows()["weight"]["held"] > 0
        desk.want("BTCUSDT", "ETHUSDT", number=2)
        await desk.until(lambda: desk.states("ETHUSDT")[-1:] == [(2, "answered")])
    assert len(stand.at) >= 2
    assert stand.at[1] - stand.at[0] >= SECOND, "nothing at all in that second"


async def test_a_ban_is_not_asked_against(stand: Stand) -> None:
    stand.answers = [(418, {"Retry-After": "3600"}, '{"code":-1003,"msg":"banned"}')]
    async with Desk(stand.rest_url).running() as desk:
        desk.want("BTCUSDT")
        await desk.until(lambda: len(desk.told("BTCUSDT")) == 2)
        desk.want("BTCUSDT", number=2)
        await desk.until(lambda: len(desk.told("BTCUSDT")) == 3)
        refusal = desk.told("BTCUSDT")[2]
    assert (refusal.number, refusal.state, refusal.permanent) == (2, "refused", False)
    assert "as the exchange demands" in str(refusal.reason)
    assert len(stand.asked) == 1


async def test_what_is_taken_back_before_its_turn_is_never_asked(stand: Stand) -> None:
    names = [f"C{number}USDT" for number in range(SNAPSHOTS + 3)]
    stand.slow.clear()
    async with Desk(stand.rest_url).running() as desk:
        desk.want(*names)
        await desk.until(lambda: len(stand.snapshots) == SNAPSHOTS)
        assert [row["state"] for row in desk.requests.rows().values()].count("queued") == 3
        desk.want(*names[:SNAPSHOTS], names[-1])
        assert len(desk.requests.rows()) == SNAPSHOTS + 1
        stand.slow.set()
        await desk.until(lambda: desk.states(names[-1]) == [(1, "asked"), (1, "answered")])
    assert sorted(stand.snapshots) == sorted([*names[:SNAPSHOTS], names[-1]])
    assert desk.told(names[SNAPSHOTS]) == []


async def test_a_number_that_rises_under_way_is_done_after_the_old_one(stand: Stand) -> None:
    stand.slow.clear()
    async with Desk(stand.rest_url).running() as desk:
        desk.want("BTCUSDT")
        await desk.until(lambda: stand.snapshots == ["BTCUSDT"])
        desk.want("BTCUSDT", number=2)
        stand.slow.set()
        await desk.until(lambda: desk.states("BTCUSDT")[-1] == (2, "answered"))
    assert desk.states("BTCUSDT") == [(1, "asked"), (1, "answered"), (2, "asked"), (2, "answered")]


async def test_snapshots_leave_a_part_of_the_weight_alone(stand: Stand) -> None:
    feed = Feed()
    feed.allowances = {"weight": Rate(300, 3600 * SECOND)}
    names = [f"C{number}USDT" for number in range(8)]
    async with Desk(stand.rest_url, feed).running() as desk:
        desk.want(*names)
        await desk.until(lambda: sum(len(desk.told(name)) == 2 for name in names) == 4)
        assert len(stand.snapshots) == 4, "of 300 only 240 are for them"
        assert [row["state"] for row in desk.requests.rows().values()].count("queued") == 4
        async with asyncio.timeout(DEADLINE):
            answer = await desk.rest.get(feed.time())
    assert "serverTime" in answer.body


async def test_stop_is_prompt_while_answers_are_awaited(stand: Stand) -> None:
    stand.slow.clear()
    async with Desk(stand.rest_url).running() as desk:
        desk.want("BTCUSDT")
        await desk.until(lambda: stand.snapshots)
    assert desk.states("BTCUSDT") == [(1, "asked")]


async def test_a_resync_on_a_connection_that_is_gone_is_refused_for_good(stand: Stand) -> None:
    key = resync_key("BTCUSDT", "wss://x#3")
    want = Want(what="resync", instrument="BTCUSDT", number=1, since=1, reason="gap", connection="wss://x#3")
    async with Desk(stand.rest_url).running() as desk:
        desk.requests.take({key: want})
        await desk.until(lambda: len(desk.frames) == 2)
    asked, refused = (msgspec.json.decode(frame.data, type=RequestData) for frame in desk.frames)
    assert (asked.key, asked.state) == (key, "asked")
    assert (refused.state, refused.permanent, refused.reason) == ("refused", True, "the connection is gone")
    assert {frame.conn for frame in desk.frames} == {"wss://x#3"}
