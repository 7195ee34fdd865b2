"""The read API, and the functions beneath it, on what store itself has written."""

from datetime import UTC, datetime

import msgspec
import psycopg
import pytest

from pipeline.errors import ServerAway, SettingsError
from pipeline.records import Candle, Gap, Trade
from store.repositories import Interval, MarketDataRepository, RawTradeRepository
from store.repository import Repository
from tests.servers import PostgresServer, free_port
from tests.store.made import (
    NOON,
    SECOND,
    candle,
    clock,
    coverage,
    gap,
    instrument,
    query,
    ready,
    trade,
    write,
)

MINUTE = 60 * SECOND


def whole(record: Trade | Candle) -> Trade | Candle:
    """The record as it is stored: whole microseconds."""
    assert record.time is not None
    floored = {name: getattr(record, name) // 1000 * 1000 for name in ("time", "received")}
    return msgspec.structs.replace(record, **floored)


async def test_trades_come_back_as_they_went_in(database_url: str) -> None:
    made = [
        trade(1, time=NOON + 999, price="0.10"),
        trade(2, contracts="7", conditions=("block", 'x"y'), fills=3, first_sequence=0, repaired=True, epoch=1),
        *(trade(number) for number in range(3, 40)),
    ]
    await write(database_url, *made)
    end = NOON + 3 * SECOND
    with RawTradeRepository(database_url) as trades:
        found = trades.between("okx", "btc-usdt", NOON, end)
        assert found == [whole(record) for record in made if record.sequence < 30]
        assert list(trades.stream("OKX", "BTC-USDT", NOON, end, chunk=7)) == found
        assert [record.sequence for record in trades.last("okx", "BTC-USDT", 3)] == [39, 38, 37]
        moments = [datetime.fromtimestamp(time // SECOND, UTC) for time in (NOON, end)]
        assert trades.between("okx", "BTC-USDT", *moments) == found


async def test_a_stream_given_up_leaves_the_connection_usable(database_url: str) -> None:
    await write(database_url, *(trade(number) for number in range(100)))
    with RawTradeRepository(database_url) as trades:
        for record in trades.stream("okx", "BTC-USDT", NOON, NOON + MINUTE, chunk=10):
            if record.sequence == 5:
                break
        assert len(trades.last("okx", "BTC-USDT", 100)) == 100


async def test_candles_gaps_and_instruments_come_back_as_they_went_in(database_url: str) -> None:
    candles = [candle(number, contracts="5", first_id="1", last_id="9") for number in range(5)]
    hole: Gap = gap(state="shrunk", repaired=2, remaining=[[10, 11], [15, 19]])
    listed = instrument(expiry=NOON + 90 * 86_400 * SECOND, listed=NOON, strike="90000", option="call", market="option")
    await write(
        database_url, *candles, hole, gap(from_sequence=50, state="closed", remaining=[], reason="filled"), listed
    )
    with MarketDataRepository(database_url) as market:
        found = market.between("okx", "BTC-USDT", "1m", NOON, NOON + 3 * MINUTE)
        assert found == [msgspec.structs.replace(made, market="option") for made in candles[:3]]
        assert list(market.stream("okx", "BTC-USDT", "1m", NOON, NOON + 3 * MINUTE)) == found
        assert [made.open_time for made in market.last("okx", "BTC-USDT", "1m", 2)] == [
            candles[4].open_time,
            candles[3].open_time,
        ]
        assert market.instruments("okx") == [listed]
        assert market.instruments("kraken") == []
    with RawTradeRepository(database_url) as trades:
        assert trades.gaps("okx", "BTC-USDT", open_only=True) == [msgspec.structs.replace(hole, market="option")]
        assert [found.state for found in trades.gaps("okx", "BTC-USDT")] == ["shrunk", "closed"]


def test_every_error_is_one_of_ours(database_url: str, postgres_server: PostgresServer) -> None:
    with pytest.raises(ServerAway):
        RawTradeRepository(f"postgresql://postgres@127.0.0.1:{free_port()}/x")
    with (
        RawTradeRepository(database_url) as trades,
        pytest.raises(SettingsError, match="not one of ours, or is not ready"),
    ):
        trades.last("okx", "BTC-USDT")
    ready(database_url)
    with MarketDataRepository(database_url) as market:
        with pytest.raises(SettingsError, match="nothing is stored of 'DOGE-USDT' on 'okx'"):
            market.last("okx", "DOGE-USDT", "1m")
        query(database_url, "INSERT INTO instruments (exchange, instrument) VALUES ('okx', 'DOGE-USDT') RETURNING 1")
        with pytest.raises(SettingsError, match="there is no time frame '7m'"):
            market.last("okx", "DOGE-USDT", "7m")
        with pytest.raises(SettingsError, match="names no time zone"):
            market.between("okx", "DOGE-USDT", "1m", datetime(2026, 11, 20), NOON)  # noqa: DTZ001
        query(
            database_url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'repository'"
        )
        with pytest.raises(ServerAway):
            market.last("okx", "DOGE-USDT", "1m")


def test_a_given_connection_stays_open(database_url: str) -> None:
    ready(database_url)
    with psycopg.connect(database_url) as connection:
        with Repository(connection):
            pass
        assert not connection.closed


async def seen(database_url: str) -> list[Interval]:
    with RawTradeRepository(database_url) as trades:
        return trades.coverage("okx", "BTC-USDT")


async def test_coverage_runs_from_change_to_change_and_joins_what_meets(database_url: str) -> None:
    await write(
        database_url,
        coverage("covered", NOON),
        coverage("covered", NOON + 10 * SECOND, connection="ws#2", cause="moved"),
        coverage("uncovered", NOON + 20 * SECOND),
        coverage("uncovered", NOON + 25 * SECOND),
        coverage("covered", NOON + 30 * SECOND),
        coverage("uncovered", NOON + 29 * SECOND),
        coverage("covered", NOON + 40 * SECOND),
        clock(NOON + 60 * SECOND),
    )
    # The last one goes on: the clock less 1 ms of uncertainty and 3 s.
    assert await seen(database_url) == [
        Interval(NOON, NOON + 20 * SECOND),
        Interval(NOON + 40 * SECOND, NOON + 57 * SECOND - SECOND // 1000),
    ]
    await write(database_url, clock(NOON + 70 * SECOND))
    assert (await seen(database_url))[-1].end == NOON + 67 * SECOND - SECOND // 1000


async def test_coverage_without_a_sign_of_its_connection_proves_nothing_more(database_url: str) -> None:
    await write(database_url, coverage("covered", NOON, connection="ws#9"), clock(NOON + 60 * SECOND))
    assert await seen(database_url) == []


async def test_quiet_windows_are_filled_in_only_where_that_is_proven(database_url: str) -> None:
    await write(
        database_url,
        coverage("covered", NOON + 500 * SECOND // 1000),
        coverage("uncovered", NOON + 20 * SECOND),
        coverage("covered", NOON + 30 * SECOND),
        trade(1, time=NOON + 2 * SECOND),
        candle(2, "1s", close="64000.7"),
        # Stored a moment before its candle.
        trade(2, time=NOON + 5 * SECOND + 1, price="64000.8"),
        gap(
            from_sequence=5, to_sequence=6, from_time=NOON + 8 * SECOND, to_time=NOON + 10 * SECOND, remaining=[[5, 6]]
        ),
        gap(
            from_sequence=9,
            from_time=NOON + 12 * SECOND,
            to_time=NOON + 13 * SECOND,
            state="closed",
            reason="filled",
            remaining=[],
        ),
        clock(NOON + 37 * SECOND),
    )
    with MarketDataRepository(database_url) as market:
        stored = market.between("okx", "BTC-USDT", "1s", NOON, NOON + MINUTE)
        filled = market.between("okx", "BTC-USDT", "1s", NOON, NOON + MINUTE, fill=True)
    assert [made.quality for made in stored] == ["complete"]
    closes = {(made.open_time - NOON) // SECOND: made.close for made in filled}
    # Nothing is known before the first close, of 5 (traded), of 8 to 10 (a hole), of 20 to 29, from 33 on.
    assert closes == {
        2: "64000.7",
        3: "64000.7",
        4: "64000.7",
        **dict.fromkeys((6, 7, *range(11, 20), *range(30, 33)), "64000.8"),
    }
    quiet = next(made for made in filled if made.quality == "quiet")
    assert (quiet.open, quiet.high, quiet.low, quiet.volume, quiet.trades_count) == (
        "64000.7",
        "64000.7",
        "64000.7",
        "0",
        0,
    )
    assert quiet.close_time - quiet.open_time == SECOND


async def test_a_frame_that_is_not_collected_is_not_filled_in(database_url: str) -> None:
    await write(database_url, coverage("covered", NOON), trade(1), clock(NOON + MINUTE))
    with MarketDataRepository(database_url) as market:
        assert market.between("okx", "BTC-USDT", "5s", NOON, NOON + MINUTE, fill=True) == []


async def test_the_views_spell_out_exchange_and_symbol(database_url: str) -> None:
    await write(database_url, trade(1), candle(0))
    assert query(database_url, "SELECT exchange, symbol, trade_id, price::text, side FROM raw_trades") == [
        ("okx", "BTC-USDT", "1", "64000.10", "buy")
    ]
    assert query(database_url, "SELECT exchange, symbol, timeframe, close::text, trades_count FROM market_data") == [
        ("okx", "BTC-USDT", "1m", "64000.5", 5)
    ]


async def test_the_functions_take_either_name_in_either_case(database_url: str) -> None:
    swap = {"instrument": "BTC-USDT-SWAP", "symbol": "BTC-USDT-PERP", "market": "perpetual"}
    await write(database_url, trade(1, **swap, contracts="3"), candle(0, **swap))
    for name in ("BTC-USDT-SWAP", "btc-usdt-swap", "BTC-USDT-PERP", "btc-usdt-Perp"):
        assert query(database_url, "SELECT count(*) FROM last_trades('OKX', %s, 5)", name) == [(1,)]
    assert query(database_url, "SELECT instrument_id('okx', 'BTC'), instrument_id('kraken', 'BTC-USDT-SWAP')") == [
        (None, None)
    ]
    vwap = (
        "SELECT vwap = quote_volume / volume FROM candles('okx', 'BTC-USDT-PERP', '1m', '2025-10-09Z', '2025-10-10Z')"
    )
    assert query(database_url, vwap) == [(True,)]


def test_exact_time_is_exact(database_url: str) -> None:
    ready(database_url)
    assert query(
        database_url, "SELECT (exact_time(1760000400123456789) AT TIME ZONE 'UTC')::text, timeframe_width('4h')::text"
    ) == [("2025-10-09 09:00:00.123456", "04:00:00")]
