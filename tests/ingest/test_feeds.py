"""What every feed must do, whichever the exchange: one suite over all of EXCHANGES, against the simulator's own lists.

A further exchange is in it by its row in pipeline/exchanges.py; only ERRORS below wants a line of its own.
"""

import importlib
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from ingest.clock import HostClock
from ingest.feed import (
    Accepted,
    Data,
    Ended,
    Event,
    Feed,
    Keepalive,
    Listed,
    Notice,
    Other,
    Pong,
    Refused,
    Subscription,
)
from ingest.rest import Answer, Rest
from ingest.symbols import Symbols
from normalize.mapper import load
from pipeline.errors import ExchangeError
from pipeline.exchanges import EXCHANGES
from pipeline.frames import Frame
from pipeline.settings import TradingPair
from pipeline.timeframes import DAY, TIMEFRAMES
from simulator.server import Simulator, serve
from tests.ingest.conftest import QUICK

ERRORS = {
    "okx": '{"event":"error","code":"60012","msg":"Invalid request","connId":"a","id":"r9"}',
    "binance": '{"code":2,"msg":"Invalid request","id":"r9"}',
}
GARBAGE = ("", "{", "[1]", "null", "7", '"text"', '{"data":[]}', '{"id":{}}', '{"stream":5,"data":{}}', '"\\ud800"')


def feed_of(name: str) -> Feed:
    feed: Feed = importlib.import_module(f"ingest.exchanges.{EXCHANGES[name].module}").Feed()
    return feed


@pytest.fixture(params=sorted(EXCHANGES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def feed(name: str) -> Feed:
    return feed_of(name)


@pytest.fixture
async def simulator(name: str) -> AsyncIterator[Simulator]:
    async with serve(exchange=name, rate=200, limits=50) as simulator:
        yield simulator


async def lists(feed: Feed, simulator: Simulator) -> list[Answer]:
    async with Rest(simulator.rest_url, feed, HostClock(), QUICK, lambda: 0.5) as rest:
        return [await rest.get(request) for request in feed.listings(["*"])]


def wanted(feed: Feed, name: str, count: int) -> list[Subscription]:
    """Every channel of so many instruments."""
    return [
        Subscription(channel, f"COIN{number:04}-USDT")
        for number in range(count)
        for kind in EXCHANGES[name].kinds
        for channel in feed.channels(kind, TIMEFRAMES)
    ]


def test_its_facts_are_whole(name: str, feed: Feed) -> None:
    assert feed.name == name
    assert isinstance(feed.keepalive, Keepalive)
    assert feed.keepalive.silence > 0
    assert feed.keepalive.deadline > 0
    assert feed.clock_step > 0
    assert feed.lifetime is None or feed.lifetime < DAY
    for rate in (feed.connects, feed.requests, *feed.allowances.values()):
        assert rate.count > 0
        assert rate.period > 0


def test_every_kind_it_can_give_has_channels_and_books_are_marked(name: str, feed: Feed) -> None:
    for kind in EXCHANGES[name].kinds:
        channels = feed.channels(kind, TIMEFRAMES)
        assert channels, f"nothing to subscribe for {kind}"
        assert (kind == "orderbook") == (set(channels) <= feed.book_channels)
    if "kline" in EXCHANGES[name].kinds:
        assert feed.channels("kline", ()) == ()


def test_the_channels_are_those_the_mapper_reads(name: str, feed: Feed) -> None:
    mapper = load(EXCHANGES[name])
    assert set(feed.channels("trade", ())) <= mapper.trade_channels
    assert feed.book_channels <= mapper.book_channels


def test_requests_stay_within_their_limits_and_lose_nothing(name: str, feed: Feed) -> None:
    every = wanted(feed, name, 200)
    batches = feed.batches(every)
    assert [subscription for batch in batches for subscription in batch] == every
    assert feed.batches([]) == []
    for number, batch in enumerate(batches):
        for text in (feed.subscribe(f"r{number}", batch), feed.unsubscribe(f"u{number}", batch)):
            json.loads(text)
            assert len(text.encode()) <= 64 * 1024
    assert all(feed.route(subscription).most > 0 for subscription in every)
    assert all(feed.route(subscription).path.startswith("/") for subscription in every)


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_is_never_an_error(feed: Feed, text: str) -> None:
    assert isinstance(feed.classify(text), Event)


def test_json_nested_without_end_is_garbage_too(feed: Feed) -> None:
    deep = '{"x":' + "[" * 100_000 + "]" * 100_000 + "}"
    assert feed.classify(deep) == Other()
    assert isinstance(feed.classify('{"arg":{"channel":' + deep + "}"), Event)
    for read in (feed.listed, feed.read_time):
        with pytest.raises(ExchangeError):
            read(deep)
    fault = feed.fault(400, deep)
    assert fault is not None
    assert fault.temporary


@given(text=st.text(max_size=60), exchange=st.sampled_from(sorted(EXCHANGES)))
def test_no_text_breaks_a_feed(text: str, exchange: str) -> None:
    feed = feed_of(exchange)
    assert isinstance(feed.classify(text), Event)
    assert isinstance(feed.classify('{"stream":"' + text), Event)
    assert isinstance(feed.classify('{"arg":{' + text), Event)
    assert feed.fault(500, text) is not None
    for read in (feed.read_time, feed.listed):
        try:
            read(text)
        except ExchangeError:
            continue


def test_an_error_is_a_refusal_of_its_request(name: str, feed: Feed) -> None:
    event = feed.classify(ERRORS[name])
    assert isinstance(event, Refused)
    assert event.request == "r9"


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_busy_is_temporary_and_what_is_not_there_is_not(feed: Feed, status: int) -> None:
    fault = feed.fault(status, "<html>busy</html>")
    assert fault is not None
    assert fault.temporary
    assert fault.pause >= 0


async def test_subscribing_goes_round_on_a_real_socket(name: str, feed: Feed, simulator: Simulator) -> None:
    """Every channel of an instrument: accepted, gives data of its own, and ends when asked."""
    async with Rest(simulator.rest_url, feed, HostClock(), QUICK, lambda: 0.5) as rest:
        bodies = [await rest.get(request) for request in feed.listings(["*"])]
    instrument = next(line.instrument for body in bodies for line in feed.listed(body.body) if line.trading)
    for kind in EXCHANGES[name].kinds:
        for channel in feed.channels(kind, ("1s",)):
            one = Subscription(channel, instrument)
            async with connect(simulator.ws_url + feed.route(one).path, proxy=None, compression=None) as socket:
                await socket.send(feed.subscribe("r1", [one]))
                seen: list[Event] = []
                while not {Accepted, Data} <= {type(event) for event in seen}:
                    seen.append(feed.classify(str(await socket.recv())))
                assert {event.subscription for event in seen if isinstance(event, Data)} == {one}
                accepted = next(event for event in seen if isinstance(event, Accepted))
                assert accepted.subscription == one or accepted.request == "r1"
                await socket.send(feed.unsubscribe("r2", [one]))
                while isinstance(event := feed.classify(str(await socket.recv())), Data):
                    pass
                assert event == Ended(one) or event == Accepted(request="r2")
                if feed.keepalive.ping is not None:
                    await socket.send(feed.keepalive.ping)
                    assert isinstance(feed.classify(str(await socket.recv())), Pong)


async def test_lists_give_what_normalize_gives_now_and_remembers(name: str, feed: Feed, simulator: Simulator) -> None:
    answers = await lists(feed, simulator)
    mapper = load(EXCHANGES[name])
    for answer in answers:
        frame = Frame(1_790_000_000_000_000_000, simulator.rest_url, "in", "rest", answer.body, answer.url)
        records = mapper.read(frame, {}).instruments
        # What ingest/remembered.py makes of them when there is no list.
        remembered = [Listed(each.instrument, each.symbol, each.status == EXCHANGES[name].traded) for each in records]
        assert feed.listed(answer.body) == remembered
        assert any(line.trading for line in remembered)


async def test_native_and_canonical_spellings_lead_to_the_same_instrument(feed: Feed, simulator: Simulator) -> None:
    lines = [line for answer in await lists(feed, simulator) for line in feed.listed(answer.body)]
    for line in lines:
        for spelling in (line.instrument, line.symbol, line.symbol.lower()):
            symbols = Symbols(feed, [TradingPair(symbol=spelling)])
            symbols.learn(feed.listings(["*"])[0], lines)
            assert [target.instrument for target in symbols.resolve(complete=True)] == [line.instrument]


async def test_every_request_has_an_allowance_and_an_answer(name: str, feed: Feed, simulator: Simulator) -> None:
    instrument = next(
        line.instrument for answer in await lists(feed, simulator) for line in feed.listed(answer.body) if line.trading
    )
    requests = [*feed.listings(["*", instrument]), feed.time(), feed.snapshot(instrument)]
    assert {request.allowance for request in requests} <= set(feed.allowances)
    assert all(0 < request.weight <= feed.allowances[request.allowance].count for request in requests)
    async with Rest(simulator.rest_url, feed, HostClock(), QUICK, lambda: 0.5) as rest:
        for request in requests:
            answer = await rest.get(request)
            json.loads(answer.body)
        before = HostClock().now()
        told = feed.read_time((await rest.get(feed.time())).body)
        assert abs(told - before) < 60 * 1_000_000_000
        with pytest.raises(ExchangeError):
            await rest.get(feed.snapshot("NO-SUCH-THING"))


def test_other_and_notice_are_told_apart(feed: Feed) -> None:
    assert not isinstance(feed.classify("{}"), Notice)
    assert isinstance(feed.classify("{}"), Other)
