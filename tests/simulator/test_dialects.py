"""One contract for every exchange that is simulated, over real sockets, against a client written from its documents."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pipeline.errors import SettingsError
from pipeline.exchanges import EXCHANGES
from simulator.faults import OVERSIZED, fault_from
from simulator.market import Fill, Pit
from simulator.server import Simulator, serve
from simulator.truth import read_connections, read_faults
from tests.simulator.clients import PATIENCE, Clock, until
from tests.simulator.venues import KINDS, VENUES, Bar, Book, Kind, Levels, Quote, Trade, Venue, fetch

SYMBOL = "BTC-USDT"
ROUNDS = 30


@pytest.fixture(params=EXCHANGES)
def exchange(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def venue(exchange: str) -> Venue:
    return VENUES[exchange]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def simulator(exchange: str, clock: Clock, tmp_path: Path) -> AsyncIterator[Simulator]:
    """A market that moves when told to, with allowances nobody reaches."""
    async with serve(exchange=exchange, rate=0, clock=clock, limits=100, truth=tmp_path) as running:
        yield running


def pit(simulator: Simulator) -> Pit:
    return simulator.market.pits[SYMBOL]


def inject(simulator: Simulator, fault: str, **details: object) -> None:
    simulator.inject(fault_from({"fault": fault, **details}))


def move(simulator: Simulator, clock: Clock, changes: int = 20) -> None:
    """A while of market: book changes, an order, and time enough for a push."""
    instrument = simulator.dialect.instrument(SYMBOL)
    simulator.stir(instrument, changes)
    simulator.print(instrument, 1)
    clock.pass_(0.1)
    simulator.turn()


def true_trade(simulator: Simulator, fill: Fill) -> Trade:
    price, size = fill.ticks * pit(simulator).listing.tick, fill.lots * pit(simulator).listing.lot
    return Trade(fill.sequence, price, size, fill.side, fill.time // 1_000_000)


def true_trades(simulator: Simulator) -> list[Trade]:
    return [true_trade(simulator, fill) for fill in pit(simulator).fills]


def true_sides(simulator: Simulator, depth: int | None = None) -> tuple[Levels, Levels]:
    listing, book = pit(simulator).listing, pit(simulator).book
    bids, asks = (
        [(ticks * listing.tick, lots * listing.lot) for ticks, lots in side]
        for side in (book.side("bid", depth), book.side("ask", depth))
    )
    return bids, asks


def true_quote(simulator: Simulator) -> Quote:
    (bid,), (ask,) = true_sides(simulator, 1)
    return Quote(*bid, *ask)


async def shown(simulator: Simulator, depth: int | None = None) -> tuple[int, Levels, Levels]:
    """What /control/books says of the instrument: number, bids, asks."""
    _, body, _ = await fetch(simulator, "/control/books" + ("" if depth is None else f"?depth={depth}"))
    book = body["books"][simulator.dialect.instrument(SYMBOL)]
    bids, asks = ([(Decimal(price), Decimal(size)) for price, size in book[side]] for side in ("bids", "asks"))
    return book["version"], bids, asks


async def pause(simulator: Simulator) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(simulator.control_url, json={"pause": True}) as answer,
    ):
        assert answer.status == 200


async def same_book(simulator: Simulator, book: Book) -> None:
    """The client's book is, level by level and by number, what /control/books says."""
    number, bids, asks = await shown(simulator)
    assert book.broken is None
    assert (book.number, *book.sides) == (number, bids, asks)


async def test_rest_lists_every_instrument(venue: Venue, simulator: Simulator) -> None:
    names = {simulator.dialect.instrument(symbol) for symbol in simulator.market.pits}
    assert await venue.instruments(simulator) == names
    assert venue.instrument == simulator.dialect.instrument(SYMBOL)


@pytest.mark.parametrize("kind", KINDS)
async def test_subscriptions_are_acknowledged_and_end(
    venue: Venue, simulator: Simulator, clock: Clock, kind: Kind, tmp_path: Path
) -> None:
    async with venue.connect(simulator, kind) as client:
        for _ in range(2):
            await venue.subscribe(client, kind)
        (state,) = simulator.state()["connections"]
        assert state["subscriptions"] == 1
        for _ in range(ROUNDS):
            move(simulator, clock)
        assert await venue.fence(client)
        await venue.unsubscribe(client, kind)
        for _ in range(ROUNDS):
            move(simulator, clock)
        assert await venue.fence(client) == []
        await venue.subscribe(client, kind)
    await until(lambda: simulator.state()["connections"] == [])
    opened, *changes = read_connections(tmp_path)
    assert (opened.event, opened.topics) == ("opened", ())
    assert [change.event for change in changes] == ["subscribed", "unsubscribed", "subscribed", "closed"]
    for change in changes:
        assert change.topics == ((venue.channels[kind], venue.instrument),)
        assert change.instruments == ((venue.instrument,) if kind == "trade" else ())


async def test_what_there_is_not_is_refused(venue: Venue, simulator: Simulator) -> None:
    async with venue.connect(simulator, "trade") as client:
        await venue.refused(client)
        await venue.subscribe(client, "trade")


async def test_trades_come_once_and_in_order(venue: Venue, simulator: Simulator, clock: Clock) -> None:
    async with venue.connect(simulator, "trade") as client:
        replayed = venue.trades(await venue.subscribe(client, "trade"))
        assert replayed in ([], true_trades(simulator)[-1:])
        before = len(pit(simulator).fills)
        for _ in range(ROUNDS):
            move(simulator, clock)
        assert venue.trades(await venue.fence(client)) == true_trades(simulator)[before:]


async def test_quotes_tell_the_best_prices(venue: Venue, simulator: Simulator, clock: Clock) -> None:
    async with venue.connect(simulator, "quote") as client:
        await venue.subscribe(client, "quote")
        for _ in range(ROUNDS):
            before = true_quote(simulator)
            move(simulator, clock, 5)
            quotes = venue.quotes(await venue.fence(client))
            assert quotes[-1:] == ([true_quote(simulator)] if true_quote(simulator) != before else [])
            assert all(quote.bid < quote.ask for quote in quotes)


async def test_ticker_sums_up_the_last_24_hours(venue: Venue, simulator: Simulator, clock: Clock) -> None:
    async with venue.connect(simulator, "ticker") as client:
        await venue.subscribe(client, "ticker")
        for _ in range(ROUNDS):
            clock.pass_(3)
            move(simulator, clock)
            frames = await venue.fence(client)
        ticker = venue.tickers(frames)[-1]
        trades = true_trades(simulator)
    prices = [trade.price for trade in trades]
    assert ticker.quote == true_quote(simulator)
    assert ticker[2:] == (
        prices[0],
        max(prices),
        min(prices),
        sum(trade.size for trade in trades),
        sum(trade.price * trade.size for trade in trades),
    )
    assert ticker.last == prices[-1]


async def test_ticker_forgets_what_is_older(venue: Venue, simulator: Simulator, clock: Clock) -> None:
    move(simulator, clock)
    clock.pass_(25 * 3600)
    simulator.turn()
    async with venue.connect(simulator, "ticker") as client:
        frames = await venue.subscribe(client, "ticker")
        before = len(pit(simulator).fills)
        for _ in range(ROUNDS):
            move(simulator, clock)
        ticker = venue.tickers(frames + await venue.fence(client))[-1]
    prices = [trade.price for trade in true_trades(simulator)[before:]]
    assert (ticker.open, ticker.high, ticker.low) == (prices[0], max(prices), min(prices))


async def test_bars_equal_a_recount_and_close_once(venue: Venue, simulator: Simulator, clock: Clock) -> None:
    async with venue.connect(simulator, "kline") as client:
        await venue.subscribe(client, "kline")
        bars: list[Bar] = []
        for number in range(2 * ROUNDS):
            clock.pass_(0.25)
            if number % 10 < 5:
                move(simulator, clock)
            simulator.turn()
            bars += venue.bars(await venue.fence(client))
    closed = [bar for bar in bars if bar.closed]
    assert len(closed) > ROUNDS // 4
    assert [later.ms - bar.ms for bar, later in pairwise(closed)] == [1000] * (len(closed) - 1)
    assert [bar.ms for bar in bars] == sorted(bar.ms for bar in bars)
    for bar in closed:
        assert bar == recount(true_trades(simulator), bar.ms)
    assert {bool(bar.volume) for bar in closed} == {True, False}


def recount(trades: list[Trade], opened: int) -> Bar:
    inside = [trade for trade in trades if opened <= trade.ms < opened + 1000]
    prices = [trade.price for trade in inside] or [[trade for trade in trades if trade.ms < opened][-1].price]
    volume = sum((trade.size for trade in inside), Decimal(0))
    turnover = sum((trade.price * trade.size for trade in inside), Decimal(0))
    return Bar(opened, prices[0], max(prices), min(prices), prices[-1], volume, turnover, closed=True)


async def test_a_client_that_follows_the_rule_has_the_book(venue: Venue, simulator: Simulator, clock: Clock) -> None:
    async with venue.connect(simulator, "orderbook") as client, venue.connect(simulator, "orderbook") as late:
        book = await venue.start_book(simulator, client, clock)
        for number in range(ROUNDS):
            move(simulator, clock, 100)
            venue.follow(book, await venue.fence(client))
            if number % 10 == 9:
                await same_book(simulator, book)
        later = await venue.start_book(simulator, late, clock)
        move(simulator, clock)
        for one, ones in ((client, book), (late, later)):
            venue.follow(ones, await venue.fence(one))
            await same_book(simulator, ones)
        bids, asks = book.sides
        assert bids[0][0] < asks[0][0]


async def test_what_waits_for_its_push_is_not_in_the_book_shown(
    venue: Venue, simulator: Simulator, clock: Clock
) -> None:
    async with venue.connect(simulator, "orderbook") as client:
        book = await venue.start_book(simulator, client, clock)
        move(simulator, clock)
        venue.follow(book, await venue.fence(client))
        before = await shown(simulator)
        simulator.stir(venue.instrument, 50)
        simulator.turn()
        assert await venue.fence(client) == []
        assert await shown(simulator) == before
        await pause(simulator)
        venue.follow(book, await venue.fence(client))
        await same_book(simulator, book)
        number, bids, asks = await shown(simulator, 20)
        assert number > before[0]
        assert (bids, asks) == true_sides(simulator, 20) == tuple(side[:20] for side in book.sides)


async def test_rest_tells_of_the_same_book(venue: Venue, simulator: Simulator, clock: Clock) -> None:
    for _ in range(ROUNDS):
        move(simulator, clock)
    clock.pass_(1)
    simulator.turn()
    number, bids, asks = await venue.snapshot(simulator)
    assert (bids, asks) == true_sides(simulator, len(bids))
    assert number == (await shown(simulator))[0]


async def test_a_gap_shows_in_the_chain_and_heals_by_the_documents(
    venue: Venue, simulator: Simulator, clock: Clock, tmp_path: Path
) -> None:
    async with venue.connect(simulator, "orderbook") as client:
        book = await venue.start_book(simulator, client, clock)
        move(simulator, clock)
        venue.follow(book, await venue.fence(client))
        last = book.number
        inject(simulator, "book_gap", instrument=venue.instrument)
        move(simulator, clock)
        assert await venue.fence(client) == []
        missed = (await shown(simulator))[0]
        move(simulator, clock)
        venue.follow(book, await venue.fence(client))
        assert book.broken
        await venue.resync(simulator, client, clock, book)
        move(simulator, clock)
        venue.follow(book, await venue.fence(client))
        await same_book(simulator, book)
    asked, done = read_faults(tmp_path)
    assert (asked["fault"], asked["instrument"]) == ("book_gap", venue.instrument)
    assert (done["fault"], done["channel"], done["instrument"], done["update"]) == (
        "book_gap_done",
        venue.channels["orderbook"],
        venue.instrument,
        [last, missed],
    )


async def test_a_crossed_book_is_pushed_and_heals(
    venue: Venue, simulator: Simulator, clock: Clock, tmp_path: Path
) -> None:
    async with venue.connect(simulator, "orderbook") as client:
        book = await venue.start_book(simulator, client, clock)
        inject(simulator, "book_crossed", instrument=venue.instrument, seconds=1)
        crossed = []
        for _ in range(14):
            move(simulator, clock)
            venue.follow(book, await venue.fence(client))
            bids, asks = book.sides
            crossed.append(bids[0][0] >= asks[0][0])
            await same_book(simulator, book)
        assert crossed[:8] == [True] * 8
        assert crossed[-2:] == [False] * 2
    assert [line["fault"] for line in read_faults(tmp_path)] == ["book_crossed", "book_crossed_done"]
    assert read_faults(tmp_path)[1]["instrument"] == venue.instrument


async def test_stale_rest_snapshots_do_not_move(venue: Venue, simulator: Simulator, clock: Clock) -> None:
    move(simulator, clock)
    clock.pass_(1)
    simulator.turn()
    old = await venue.snapshot(simulator)
    inject(simulator, "book_stale", seconds=5)
    for _ in range(4):
        move(simulator, clock)
        clock.pass_(1)
        simulator.turn()
        assert await venue.snapshot(simulator) == old
    clock.pass_(2)
    simulator.turn()
    clock.pass_(1)
    simulator.turn()
    fresh = await venue.snapshot(simulator)
    assert fresh[0] > old[0]
    assert fresh[1:] == true_sides(simulator, len(fresh[1]))


@pytest.mark.parametrize("kind", ["orderbook", "quote", "ticker"])
async def test_faults_hit_any_channel_that_is_named(
    venue: Venue, simulator: Simulator, clock: Clock, kind: Kind, tmp_path: Path
) -> None:
    async def frames() -> list[str]:
        """What comes of a second and a bit of market: at least one push of every channel."""
        came = []
        for _ in range(12):
            move(simulator, clock)
            came += await venue.fence(client)
        return came

    async with venue.connect(simulator, kind) as client:
        await venue.subscribe(client, kind)
        assert await frames()
        channel = venue.channels[kind]
        inject(simulator, "duplicate", channel=channel)
        first, again, *_ = await frames()
        assert first == again
        inject(simulator, "malformed", channel=channel, variant="broken", instead=True)
        with pytest.raises(json.JSONDecodeError):
            json.loads((await frames())[0])
        for variant in ("types", "missing"):
            inject(simulator, "malformed", channel=channel, variant=variant)
            wrong, right, *_ = await frames()
            assert wrong != right
            assert json.loads(wrong).keys() == json.loads(right).keys()
        inject(simulator, "drop", channel=channel, count=2)
        inject(simulator, "reorder", channel=channel)
        await frames()
        await frames()
        await frames()
    done = [line for line in read_faults(tmp_path) if line["fault"].endswith("_done")]
    assert [line["fault"].removesuffix("_done") for line in done] == [
        "duplicate",
        "malformed",
        "malformed",
        "malformed",
        "drop",
        "drop",
        "reorder",
    ]
    assert {(line["channel"], line["instrument"]) for line in done} == {(channel, venue.instrument)}
    assert all((line["update"] is not None) == (kind == "orderbook") for line in done)


async def test_faults_without_a_channel_hit_trades_alone(venue: Venue, simulator: Simulator, clock: Clock) -> None:
    async with venue.connect(simulator, "orderbook") as client:
        book = await venue.start_book(simulator, client, clock)
        inject(simulator, "drop", count=100)
        for _ in range(ROUNDS):
            move(simulator, clock)
            venue.follow(book, await venue.fence(client))
        await same_book(simulator, book)


async def test_a_fault_of_no_channel_is_refused(simulator: Simulator) -> None:
    with pytest.raises(SettingsError, match="no channel nonsense"):
        inject(simulator, "drop", channel="nonsense")


async def test_an_oversized_frame_is_beyond_16_mebibytes(venue: Venue, simulator: Simulator, clock: Clock) -> None:
    async with (
        venue.connect(simulator, "orderbook", max_size=None) as wide,
        venue.connect(simulator, "orderbook", max_size=16 * 1024 * 1024) as narrow,
    ):
        book = await venue.start_book(simulator, wide, clock)
        await venue.subscribe(narrow, "orderbook")
        inject(simulator, "oversized", channel=venue.channels["orderbook"])
        move(simulator, clock)
        (frame,) = await venue.fence(wide)
        assert OVERSIZED <= len(frame) < OVERSIZED + 100
        venue.follow(book, [frame])
        await same_book(simulator, book)
        with pytest.raises(ConnectionClosed) as closed:
            await narrow.text()
        assert closed.value.sent is not None
        assert closed.value.sent.code == 1009


async def test_history_walks_back_to_the_first_trade(venue: Venue, simulator: Simulator, clock: Clock) -> None:
    for _ in range(6):
        clock.pass_(1)
        simulator.print(venue.instrument, 100)
    assert len(pit(simulator).fills) > 600
    assert await venue.history(simulator) == true_trades(simulator)


async def test_keepalive_as_documented_keeps_a_quiet_connection(
    venue: Venue, simulator: Simulator, clock: Clock
) -> None:
    async with venue.connect(simulator, "trade") as client:
        await venue.subscribe(client, "trade")
        for _ in range(20):
            clock.pass_(10)
            simulator.turn()
            await venue.keep_alive(client)
        (alive,) = simulator.state()["connections"]
        assert alive["closing"] is None


async def test_a_connection_that_neglects_it_is_closed(venue: Venue, simulator: Simulator, clock: Clock) -> None:
    async with asyncio.timeout(PATIENCE):
        await venue.neglect(simulator, clock)
    await until(lambda: simulator.state()["connections"] == [])


async def test_rest_refuses_what_is_too_much(exchange: str, venue: Venue, clock: Clock) -> None:
    async with serve(exchange=exchange, rate=0, clock=clock) as strict:
        await venue.exhaust(strict)


async def test_unknown_paths_are_not_served(simulator: Simulator) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{simulator.ws_url}/nothing")
    assert refused.value.response.status_code == 404
    async with aiohttp.ClientSession() as session, session.get(f"{simulator.rest_url}/no/such/path") as answer:
        assert answer.status == 404
    async with aiohttp.ClientSession() as session, session.get(f"{simulator.control_url}/books?depth=x") as answer:
        assert answer.status == 400


async def test_the_same_seed_pushes_the_same(exchange: str, venue: Venue) -> None:
    runs: list[Any] = []
    for _ in range(2):
        clock = Clock()
        async with (
            serve(exchange=exchange, rate=400, seed=5, clock=clock, limits=100) as simulator,
            venue.connect(simulator, "orderbook") as client,
        ):
            frames = await venue.subscribe(client, "orderbook")
            for _ in range(ROUNDS):
                clock.pass_(0.1)
                simulator.turn()
            runs.append((frames + await venue.fence(client), await shown(simulator)))
    assert runs[0] == runs[1]
