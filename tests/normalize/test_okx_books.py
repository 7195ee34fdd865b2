"""OKX order books, best offers, tickers and candles: the reference's conversions, and what must be refused."""

from binascii import crc32
from typing import Any

import pytest

from normalize.exchanges.okx import Mapper
from normalize.mapper import BookUpdate, Level, Reading
from pipeline.errors import DecodeError
from pipeline.frames import Frame
from pipeline.records import Kline, Quote, Ticker
from tests.normalize.test_okx import ALL, CONN, RECEIVED, rest, ws

MS = 1_000_000
TS = "1791369351001"
SNAPSHOT: dict[str, Any] = {
    "bids": [["83725.8", "7.69", "0", "5"], ["83725.4", "0.02", "0", "1"]],
    "asks": [["83725.9", "1712.41", "0", "92"], ["83726", "1.43", "0", "3"]],
    "ts": TS,
    "checksum": 0,
    "seqId": 344430848984,
    "prevSeqId": -1,
}
UPDATE: dict[str, Any] = {
    "bids": [["83723.6", "0", "0", "0"]],
    "asks": [["83729.6", "70.03", "0", "4"]],
    "ts": "1791369352001",
    "checksum": 0,
    "seqId": 344430849237,
    "prevSeqId": 344430848984,
}
TICKER = {
    "instType": "SPOT",
    "instId": "BTC-USDT",
    "last": "67500.1",
    "lastSz": "0.01",
    "askPx": "67500.2",
    "askSz": "1.2",
    "bidPx": "67500.1",
    "bidSz": "0.95",
    "open24h": "66000",
    "high24h": "68000",
    "low24h": "65000",
    "volCcy24h": "125000000",
    "vol24h": "1875",
    "ts": "1791369350123",
}
ROW = ["1791369300000", "83720", "83745.1", "83712", "83725.9", "18234.55", "182.3455", "15266871.2", "1"]
mapper = Mapper()
rule = mapper.book_rule


def pushed(channel: str, *elements: Any, instrument: str = "BTC-USDT-SWAP", action: str | None = None) -> Frame:
    message: dict[str, Any] = {"arg": {"channel": channel, "instId": instrument}, "data": elements}
    return ws(message | ({"action": action} if action else {}))


def read(frame: Frame) -> Reading:
    return mapper.read(frame, ALL)


def book(frame: Frame) -> BookUpdate:
    (update,) = read(frame).books
    return update


def reasons(frame: Frame) -> list[str]:
    try:
        return [fault.reason for fault in read(frame).faults]
    except DecodeError as error:
        return [error.reason]


@pytest.mark.parametrize("channel", ["books", "books-l2-tbt", "books50-l2-tbt"])
def test_a_snapshot_and_its_update(channel: str) -> None:
    first = book(pushed(channel, SNAPSHOT, action="snapshot"))
    assert first == BookUpdate(
        instrument=ALL["BTC-USDT-SWAP"],
        snapshot=True,
        bids=(("83725.8", "7.69"), ("83725.4", "0.02")),
        asks=(("83725.9", "1712.41"), ("83726", "1.43")),
        last=344430848984,
        time=1791369351001 * MS,
    )
    second = book(pushed(channel, UPDATE, action="update"))
    assert (second.snapshot, second.last, second.previous) == (False, 344430849237, 344430848984)
    assert second.bids == (("83723.6", "0"),), "a quantity of zero is handed on as it came"
    assert channel in mapper.book_channels


def test_sizes_of_books_stay_in_contracts() -> None:
    assert book(pushed("books", SNAPSHOT, instrument="BTC-USD-SWAP", action="snapshot")).bids[0] == ("83725.8", "7.69")


def test_old_books_have_a_checksum_and_no_numbers() -> None:
    old = {key: value for key, value in UPDATE.items() if key not in ("seqId", "prevSeqId")} | {"checksum": -855196043}
    update = book(pushed("books-l2-tbt", old, instrument="AAVE-EUR", action="update"))
    assert (update.last, update.previous, update.checksum) == (None, None, -855196043)
    assert update.instrument.symbol == "AAVE-EUR"


@pytest.mark.parametrize("fields", [{"checksum": 0}, {}])
def test_a_dead_checksum_is_none(fields: dict[str, int]) -> None:
    bare = {key: value for key, value in UPDATE.items() if key != "checksum"}
    assert book(pushed("books", bare | fields, action="update")).checksum is None


def test_books5_are_snapshots_that_are_cut() -> None:
    update = book(pushed("books5", {**SNAPSHOT, "checksum": 5}))
    assert (update.snapshot, update.cut, update.checksum, update.previous) == (True, 5, None, None)


def test_a_book_by_rest() -> None:
    body = {"code": "0", "msg": "", "data": [{key: SNAPSHOT[key] for key in ("asks", "bids", "ts", "seqId")}]}
    update = book(rest(body, "/api/v5/market/books?instId=BTC-USDT-SWAP&sz=400"))
    assert (update.instrument, update.snapshot, update.asked, update.last) == (
        ALL["BTC-USDT-SWAP"],
        True,
        400,
        344430848984,
    )
    assert book(rest(body, "/api/v5/market/books?instId=BTC-USDT")).asked == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bids": [["", "1", "0", "1"]]}, "a price of the bids is not a decimal above zero"),
        ({"bids": [["0", "1", "0", "1"]]}, "a price of the bids is not a decimal above zero"),
        ({"asks": [["1", "NaN", "0", "1"]]}, "a quantity of the asks is not a decimal"),
        ({"asks": [["1", "-1", "0", "1"]]}, "a quantity of the asks is not a decimal"),
        ({"asks": [["1 2", "3", "0", "1"], ["4", "5", "0", "1"]]}, "a price of the asks is not a decimal above zero"),
        ({"asks": [["1"]]}, "a level of the asks has no quantity"),
        ({"asks": [[1, 2]]}, "not a book of OKX"),
        ({"asks": None}, "not a book of OKX"),
        ({"seqId": "12"}, "not a book of OKX"),
        ({"seqId": 2**63}, "not a book of OKX"),
        ({"seqId": -2}, "not a book of OKX"),
        ({"ts": ""}, "ts is not a whole number"),
        ({"ts": "1691369350776"}, "time is out of range"),
    ],
)
def test_one_bad_level_refuses_the_change_and_no_other(change: dict[str, Any], reason: str) -> None:
    frame = pushed("books", UPDATE | change, UPDATE, action="update")
    assert reasons(frame) == [reason]
    assert [update.last for update in read(frame).books] == [UPDATE["seqId"]]


def test_books_of_no_use() -> None:
    assert reasons(pushed("books", UPDATE)) == ["book without an action"]
    assert reasons(pushed("books", UPDATE, action="partial")) == ["book without an action"]
    assert reasons(pushed("books", UPDATE, instrument="X-Y-SWAP", action="update")) == ["unknown instrument"]
    body = {"code": "0", "data": [SNAPSHOT]}
    assert reasons(rest(body, "/api/v5/market/books")) == ["unknown instrument"]
    assert reasons(rest(body, "/api/v5/market/books?instId=BTC-USDT&sz=all")) == ["sz is not a whole number"]
    assert reasons(rest(body, "/api/v5/market/books-full?instId=BTC-USDT")) == [
        "reply of /api/v5/market/books-full is not collected yet"
    ]


def change(previous: int | None, last: int | None) -> BookUpdate:
    return BookUpdate(ALL["BTC-USDT-SWAP"], False, (), (), previous=previous, last=last)


@pytest.mark.parametrize(
    ("last", "joining", "update", "expected"),
    [
        # The example of the documentation: snapshot 10, normal, keepalive, reset, normal.
        (10, True, change(10, 15), "apply"),
        (15, False, change(15, 15), "apply"),
        (15, False, change(15, 3), "apply"),
        (3, False, change(3, 5), "apply"),
        (15, False, change(16, 20), "gap"),
        (15, False, change(10, 15), "gap"),
        (15, False, change(14, 20), "gap"),
        # Joining another's book or one by REST: what it holds already is skipped.
        (15, True, change(10, 15), "skip"),
        (15, True, change(8, 10), "skip"),
        (15, True, change(12, 20), "apply"),
        (15, True, change(16, 20), "gap"),
        # Without numbers only the checksum can tell; half of them is no chain.
        (None, True, change(None, None), "apply"),
        (None, False, change(None, None), "apply"),
        (15, False, change(None, None), "gap"),
        (None, False, change(10, 15), "gap"),
        (15, False, change(None, 20), "gap"),
    ],
)
def test_the_chain(last: int | None, joining: bool, update: BookUpdate, expected: str) -> None:
    assert rule.link(last, joining, update) == expected


def test_the_checksum_is_over_the_texts_as_spelt() -> None:
    bids: list[Level] = [("101", "2"), ("100.5", "3")]
    asks: list[Level] = [("102", "1"), ("103", "4")]
    assert rule.checksum(bids, asks) == 1579316919
    assert rule.checksum([*bids, ("99", "7")], asks[:1]) == -1762451970
    assert rule.checksum([("101.0", "2"), ("100.5", "3")], asks) != 1579316919
    assert rule.checksum([], []) == 0
    many: list[Level] = [(str(1000 - number), "1") for number in range(30)]
    text = ":".join(f"{price}:{size}" for price, size in many[:25])
    assert rule.checksum(many, []) in (crc32(text.encode()), crc32(text.encode()) - 2**32)


def test_the_best_offer() -> None:
    element = {"asks": [["111.06", "55154", "0", "2"]], "bids": [["111.05", "57745", "0", "2"]], "ts": TS, "seqId": 7}
    assert read(pushed("bbo-tbt", element)).quotes == (
        Quote(
            exchange="okx",
            market="perpetual",
            symbol="BTC-USDT-PERP",
            instrument="BTC-USDT-SWAP",
            time=1791369351001 * MS,
            received=RECEIVED,
            bid="111.05",
            bid_size="577.45",
            ask="111.06",
            ask_size="551.54",
            sequence=7,
        ),
    )
    (empty,) = read(pushed("bbo-tbt", {"asks": [], "bids": [["111.05", "10", "0", "2"]], "ts": TS})).quotes
    assert (empty.ask, empty.ask_size, empty.sequence) == (None, None, None)
    (inverse,) = read(pushed("bbo-tbt", element, instrument="BTC-USD-SWAP")).quotes
    assert inverse.bid_size == "51999.099504727600", "57745 contracts of 100 USD at 111.05"
    assert reasons(pushed("bbo-tbt", element | {"bids": [["0", "1", "0", "2"]]})) == [
        "a price of the bid is not a decimal above zero"
    ]


def test_the_ticker_of_a_spot_pair() -> None:
    assert read(pushed("tickers", TICKER)).tickers == (
        Ticker(
            exchange="okx",
            market="spot",
            symbol="BTC-USDT",
            instrument="BTC-USDT",
            time=1791369350123 * MS,
            received=RECEIVED,
            last="67500.1",
            bid="67500.1",
            bid_size="0.95",
            ask="67500.2",
            ask_size="1.2",
            open_24h="66000",
            high_24h="68000",
            low_24h="65000",
            volume_24h="1875",
            quote_volume_24h="125000000",
        ),
    )


def test_the_ticker_of_a_derivative_tells_no_quote_volume() -> None:
    (ticker,) = read(pushed("tickers", TICKER | {"instId": "BTC-USDT-SWAP", "volCcy24h": "18.75"})).tickers
    assert (ticker.volume_24h, ticker.quote_volume_24h) == ("18.75", None)
    assert (ticker.bid_size, ticker.ask_size) == ("0.0095", "0.012")


def test_what_a_ticker_lacks_is_null() -> None:
    fields = ("last", "askPx", "askSz", "bidPx", "bidSz", "open24h", "high24h", "low24h", "volCcy24h", "vol24h")
    (ticker,) = read(pushed("tickers", TICKER | dict.fromkeys(fields, ""))).tickers
    assert (ticker.last, ticker.bid, ticker.bid_size, ticker.ask, ticker.ask_size) == (None, None, None, None, None)
    assert (ticker.open_24h, ticker.volume_24h, ticker.quote_volume_24h) == (None, None, None)
    (zero,) = read(pushed("tickers", TICKER | {"bidPx": "0", "bidSz": "0", "open24h": "0"})).tickers
    assert (zero.bid, zero.bid_size, zero.open_24h) == (None, None, None), "nothing trades at zero"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bidPx": "x"}, "bidPx is not a decimal above zero"),
        ({"bidPx": "", "bidSz": "5"}, "bidPx has a quantity but no price"),
        ({"askSz": "-1"}, "quantity of the askPx is not a decimal"),
        ({"last": "1e5"}, "last is not a decimal above zero"),
        ({"vol24h": "-3"}, "24 hours' volume is not a decimal"),
        ({"ts": "now"}, "ts is not a whole number"),
        ({"instId": "X-Y-SWAP"}, "unknown instrument"),
        ({"last": 5}, "not a ticker of OKX"),
    ],
)
def test_bad_tickers_cost_no_other(change: dict[str, Any], reason: str) -> None:
    frame = pushed("tickers", TICKER | change, TICKER)
    assert reasons(frame) == [reason]
    assert len(read(frame).tickers) == 1


def test_a_closed_candle_of_a_swap() -> None:
    assert read(pushed("candle1m", ROW)).klines == (
        Kline(
            exchange="okx",
            market="perpetual",
            symbol="BTC-USDT-PERP",
            instrument="BTC-USDT-SWAP",
            time=None,
            received=RECEIVED,
            timeframe="1m",
            open_time=1791369300000 * MS,
            close_time=1791369360000 * MS,
            open="83720",
            high="83745.1",
            low="83712",
            close="83725.9",
            volume="182.3455",
            quote_volume="15266871.2",
            contracts="18234.55",
        ),
    )


def test_a_closed_candle_of_a_spot_pair() -> None:
    (kline,) = read(pushed("candle1m", ROW, instrument="BTC-USDT")).klines
    assert (kline.volume, kline.quote_volume, kline.contracts) == ("18234.55", "15266871.2", None)


@pytest.mark.parametrize(
    ("bar", "timeframe", "begin"),
    [("1s", "1s", 1791369301000), ("1H", "1h", 1791367200000), ("1Dutc", "1d", 1791331200000)],
)
def test_bars(bar: str, timeframe: str, begin: int) -> None:
    (kline,) = read(pushed(f"candle{bar}", [str(begin), *ROW[1:]])).klines
    assert (kline.timeframe, kline.open_time) == (timeframe, begin * MS)


def test_open_candles_are_control() -> None:
    assert read(pushed("candle1m", [*ROW[:8], "0"])) == Reading(control="kline open")
    both = read(pushed("candle1m", [*ROW[:8], "0"], ROW))
    assert (len(both.klines), both.control, both.faults) == (1, None, ())


@pytest.mark.parametrize(
    ("bar", "row", "reason"),
    [
        ("1m", ROW[:7], "candle does not tell whether it is closed"),
        ("1m", [*ROW[:8], "2"], "confirm of a candle is neither 0 nor 1"),
        ("1m", ["1791369300001", *ROW[1:]], "candle does not begin where its window does"),
        ("1m", [ROW[0], "0", *ROW[2:]], "open is not a decimal above zero"),
        ("1m", [*ROW[:6], "", *ROW[7:]], "volume is not a decimal"),
        ("1m", [1, 2, 3], "not a candle of OKX"),
        ("1D", ROW, "bars of 1D are not collected"),
        ("3m", ROW, "bars of 3m are not collected"),
    ],
)
def test_bad_candles(bar: str, row: Any, reason: str) -> None:
    assert reasons(pushed(f"candle{bar}", row)) == [reason]


def test_nesting_without_end_is_refused() -> None:
    assert reasons(ws('{"arg":{"channel":"books"},"data":' + "[" * 100_000)) == ["not JSON"]
    assert mapper.time(ws('{"data":' + "[" * 100_000)) is None
    assert mapper.read(Frame(RECEIVED, CONN, "out", "ws", "[" * 100_000), {}).control == "out request"


def test_the_venues_time_of_a_book() -> None:
    assert mapper.time(pushed("books", UPDATE, SNAPSHOT)) == 1791369352001 * MS
    assert mapper.time(pushed("candle1m", ROW)) is None, "a bar tells when it began, not when it was sent"
