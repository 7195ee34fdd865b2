"""The bench's frames are what the venues document: our own mappers read every one of them, numbers without a hole."""

from collections import defaultdict
from collections.abc import Iterator

import pytest

from bench.frames import PER_SECOND, START, Market, raw_entries, raw_frames
from normalize.exchanges import binance, okx
from normalize.mapper import Mapper, Reading
from normalize.stage import Normalize
from pipeline.exchanges import EXCHANGES
from pipeline.frames import Frame, unpack
from pipeline.steps import Entry, Step
from pipeline.streams import Keys

MAPPERS: dict[str, type[Mapper]] = {"okx": okx.Mapper, "binance": binance.Mapper}
SECOND = 1_000_000_000


def read(exchange: str, text: str) -> Reading:
    mapper, market = MAPPERS[exchange](), Market(exchange)
    listing = next(iter(raw_frames(market, 0)))
    instruments = {each.instrument: each for each in mapper.read(listing, {}).instruments}
    assert len(instruments) == 40
    return mapper.read(Frame(START, "wss://x#1", "in", "ws", text), instruments)


@pytest.mark.parametrize("exchange", MAPPERS)
def test_trades_are_numbered_without_a_hole(exchange: str) -> None:
    market, numbers = Market(exchange), defaultdict(list)
    for place in range(500):
        (trade,) = read(exchange, market.trade(START + place)).trades
        assert trade.time == START
        numbers[trade.instrument].append(trade.sequence)
    assert len(numbers) == 40
    for found in numbers.values():
        assert found == list(range(found[0], found[0] + len(found)))


@pytest.mark.parametrize("exchange", MAPPERS)
def test_books_and_tickers_are_read(exchange: str) -> None:
    market = Market(exchange)
    (first,) = read(exchange, market.book(START, 3, whole=exchange == "okx")).books
    (second,) = read(exchange, market.book(START, 3)).books
    assert first.instrument.instrument == second.instrument.instrument == market.instruments[3]
    assert len(second.bids) == len(second.asks) == 4
    (ticker,) = read(exchange, market.ticker(START, 3)).tickers
    assert ticker.bid is not None
    assert ticker.volume_24h == "1875"


@pytest.mark.parametrize("exchange", MAPPERS)
def test_the_seed_decides(exchange: str) -> None:
    one, same, other = (Market(exchange, seed) for seed in (1, 1, 2))
    assert one.trade(START) == same.trade(START) != other.trade(START)


def entries(exchange: str, trades: int) -> Iterator[Entry]:
    stream = Keys("sim", exchange).raw
    for number, (_, name, _, *parts) in enumerate(raw_entries(stream, raw_frames(Market(exchange), trades)), start=1):
        assert name == stream
        fields = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
        yield Entry(b"%d-0" % number, dict(zip(fields[::2], fields[1::2], strict=True)))


@pytest.mark.parametrize("exchange", MAPPERS)
def test_normalize_makes_one_record_of_each_trade_and_covers_all(exchange: str) -> None:
    keys = Keys("sim", exchange)
    stage, step = Normalize(keys, EXCHANGES[exchange], None), Step(keys, "normalize")
    stage.restore({})
    for entry in entries(exchange, 3 * PER_SECOND // 10):
        stage.process(entry, step)
    appended = [command for command in step.commands() if command[:2] == ("XADD", keys.trade)]
    assert sum(command[3] == b"symbol" for command in appended) == 3 * PER_SECOND // 10
    controls = [command[4] for command in appended if command[3] == b"control"]
    assert controls.count(b"coverage") == 40
    assert b"gap" not in controls
    assert not [command for command in step.commands() if command[1] == keys.dead]


def test_time_goes_evenly_and_a_clock_comes_four_times_a_second() -> None:
    frames = list(raw_frames(Market("okx"), 2 * PER_SECOND))
    times = [frame.ts for frame in frames if frame.ts is not None]
    assert times == sorted(times)
    clocks = [frame.ts for frame in frames if frame.kind == "clock"]
    assert clocks == [START + number * SECOND // 4 for number in range(len(clocks))]
    assert times[-1] >= START + 4 * SECOND


def test_entries_are_packed_as_ingest_packs_a_flood() -> None:
    packed = [unpack(entry.fields) for entry in entries("okx", 1_000)]
    assert [entry.n for entry in packed] == list(range(1, len(packed) + 1))
    assert {len(entry.frames) for entry in packed[:-1]} == {64}
