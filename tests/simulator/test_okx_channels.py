"""OKX's books, quotes, tickers and instruments without sockets: shapes, cadences, chains, paths."""

import json
import random
from typing import Any

import pytest

from simulator.dialect import Frame, Topic
from simulator.exchanges.okx import BUSINESS, CHANNELS, PUBLIC, Okx
from simulator.faults import Spells
from simulator.listings import listings
from simulator.market import MILLISECOND, SECOND, Market, spell
from tests.simulator.clients import START

SWAP = "BTC-USDT-SWAP"


@pytest.fixture
def okx() -> Okx:
    return Okx(Market(random.Random(1), listings(), START, 0), Spells())


def subscribe(okx: Okx, channel: str, name: str = SWAP, path: str | None = None, key: str = "instId") -> list[Any]:
    session = okx.open(path or CHANNELS[channel], START)
    text = json.dumps({"op": "subscribe", "args": [{"channel": channel, key: name}]})
    return [json.loads(str(reply)) for reply in session.receive(text, START)]


def pushed(okx: Okx, topic: Topic, ms: float, flush: bool = False) -> list[dict[str, Any]]:
    """The messages of one topic due `ms` after START."""
    frames = okx.due({topic}, START + int(ms * MILLISECOND), flush)
    assert all(frame.topic == topic for frame in frames)
    return [json.loads(frame.text) for frame in frames]


def stir(okx: Okx, changes: int = 20) -> None:
    """Enough, by default, that the best 400 levels change."""
    okx.market.pits["BTC-USDT-PERP"].book.stir(changes)


def top(okx: Okx, levels: int) -> tuple[object, object]:
    book = okx.market.pits["BTC-USDT-PERP"].book
    return book.side("bid", levels), book.side("ask", levels)


def move_top(okx: Okx) -> None:
    before = top(okx, 1)
    while top(okx, 1) == before:
        stir(okx, 1)


def test_snapshot_and_updates_make_a_chain_with_numbers_that_skip(okx: Okx) -> None:
    ack, snapshot = subscribe(okx, "books")
    assert ack["arg"] == snapshot["arg"] == {"channel": "books", "instId": SWAP}
    (row,) = snapshot["data"]
    assert (snapshot["action"], row["prevSeqId"], row["checksum"]) == ("snapshot", -1, 0)
    assert row.keys() == {"asks", "bids", "ts", "checksum", "seqId", "prevSeqId"}
    assert (len(row["bids"]), len(row["asks"])) == (400, 400)
    number = row["seqId"]
    for tenth in range(1, 50):
        stir(okx, 1)
        for message in pushed(okx, ("books", SWAP), 100 * tenth):
            (update,) = message["data"]
            assert (message["action"], update["prevSeqId"]) == ("update", number)
            assert isinstance(update["seqId"], int)
            assert update["seqId"] > number + 1
            assert update["ts"] == str((START + 100 * tenth * MILLISECOND) // MILLISECOND)
            number = update["seqId"]


def test_levels_are_price_size_zero_orders_in_contracts(okx: Okx) -> None:
    (row,) = subscribe(okx, "books")[1]["data"]
    listing = okx.market.pits["BTC-USDT-PERP"].listing
    ticks, lots = okx.market.pits["BTC-USDT-PERP"].book.side("bid", 1)[0]
    price, size, zero, orders = row["bids"][0]
    assert (price, size, zero) == (spell(ticks, listing.tick), spell(lots, listing.lot), "0")
    assert int(orders) >= 1
    okx.market.order("BTC-USDT-PERP", START + SECOND)
    (update,) = pushed(okx, ("books", SWAP), 1000)[0]["data"]
    gone = [level for side in ("bids", "asks") for level in update[side] if level[1] == "0"]
    assert gone
    assert all(level[2:] == ["0", "0"] for level in gone)


def test_changes_are_held_back_for_100_ms_and_flushed_when_told(okx: Okx) -> None:
    topic = ("books", SWAP)
    stir(okx)
    assert len(pushed(okx, topic, 100)) == 1
    stir(okx)
    assert pushed(okx, topic, 199) == []
    before = okx.books(None)[SWAP]
    assert len(pushed(okx, topic, 199, flush=True)) == 1
    assert okx.books(None)[SWAP].version > before.version
    assert pushed(okx, topic, 199, flush=True) == []


def test_who_comes_later_joins_the_same_chain(okx: Okx) -> None:
    topic = ("books", SWAP)
    stir(okx, 5)
    assert okx.due({topic}, START + 50 * MILLISECOND) == []
    early = subscribe(okx, "books")[1]["data"][0]["seqId"]
    (update,) = pushed(okx, topic, 100)[0]["data"]
    assert update["prevSeqId"] == early
    # Nobody listens for a while; the chain goes on.
    for tenth in range(2, 30):
        stir(okx, 5)
        okx.due(set(), START + 100 * tenth * MILLISECOND)
    late = subscribe(okx, "books")[1]["data"][0]["seqId"]
    stir(okx, 5)
    assert pushed(okx, topic, 3000)[0]["data"][0]["prevSeqId"] == late > update["seqId"]


def test_a_quiet_book_says_so_every_60_s_with_equal_numbers(okx: Okx) -> None:
    topic = ("books", SWAP)
    stir(okx)
    (update,) = pushed(okx, topic, 100)[0]["data"]
    assert pushed(okx, topic, 60_099) == []
    (keepalive,) = pushed(okx, topic, 60_100)[0]["data"]
    assert (keepalive["bids"], keepalive["asks"]) == ([], [])
    assert keepalive["prevSeqId"] == keepalive["seqId"] == update["seqId"]
    (frame,) = okx.due({topic}, START + 121 * SECOND)
    assert frame.update == (update["seqId"], update["seqId"])


def test_a_reset_lowers_the_numbers_and_keeps_the_chain(okx: Okx) -> None:
    topic = ("books", SWAP)
    stir(okx)
    (before,) = pushed(okx, topic, 100)[0]["data"]
    okx.reset(SWAP)
    assert subscribe(okx, "books")[1]["data"][0]["seqId"] == before["seqId"]
    stir(okx)
    (reset,) = pushed(okx, topic, 200)[0]["data"]
    assert reset["prevSeqId"] == before["seqId"] > reset["seqId"] > 0
    stir(okx)
    (after,) = pushed(okx, topic, 300)[0]["data"]
    assert (after["prevSeqId"], after["seqId"] > reset["seqId"]) == (reset["seqId"], True)


@pytest.mark.parametrize(("channel", "levels", "cadence"), [("bbo-tbt", 1, 10), ("books5", 5, 100)])
def test_best_levels_come_whole_and_only_on_change(okx: Okx, channel: str, levels: int, cadence: int) -> None:
    topic = (channel, SWAP)
    (first,) = subscribe(okx, channel)[1]["data"]
    assert first.keys() == {"asks", "bids", "ts", "seqId"} | ({"instId"} if channel == "books5" else set())
    assert (len(first["bids"]), len(first["asks"])) == (levels, levels)
    pushed(okx, topic, 1)
    move_top(okx)
    assert pushed(okx, topic, cadence) == []
    (message,) = pushed(okx, topic, 1 + cadence)
    assert "action" not in message
    (row,) = message["data"]
    assert row["seqId"] > first["seqId"]
    listing = okx.market.pits["BTC-USDT-PERP"].listing
    bids, asks = ([[spell(t, listing.tick), spell(n, listing.lot)] for t, n in side] for side in _sides(okx, levels))
    assert ([level[:2] for level in row["bids"]], [level[:2] for level in row["asks"]]) == (bids, asks)
    book = okx.market.pits["BTC-USDT-PERP"].book
    before = top(okx, levels)
    while book.version < 10_000 and top(okx, levels) == before:
        stir(okx, 1)
        messages = pushed(okx, topic, 10_000 + book.version * cadence)
        assert bool(messages) == (top(okx, levels) != before)


def _sides(okx: Okx, levels: int) -> tuple[Any, Any]:
    book = okx.market.pits["BTC-USDT-PERP"].book
    return book.side("bid", levels), book.side("ask", levels)


def test_ticker_is_whole_and_comes_ten_times_a_second_on_a_trade_or_a_new_best(okx: Okx) -> None:
    topic = ("tickers", SWAP)
    (first,) = subscribe(okx, "tickers")[1]["data"]
    assert list(first) == [
        "instType", "instId", "last", "lastSz", "askPx", "askSz", "bidPx", "bidSz", "open24h", "high24h", "low24h",
        "volCcy24h", "vol24h", "sodUtc0", "sodUtc8", "ts",
    ]  # fmt: skip
    assert all(isinstance(value, str) and value for value in first.values())
    pushed(okx, topic, 1)
    okx.printed(okx.market.order("BTC-USDT-PERP", START + 2 * MILLISECOND, 1), set())
    assert pushed(okx, topic, 100) == []
    (row,) = pushed(okx, topic, 101)[0]["data"]
    fill = okx.market.pits["BTC-USDT-PERP"].fills[-1]
    assert (row["last"], row["lastSz"]) == (fill.price, fill.size)
    assert pushed(okx, topic, 999) == []
    move_top(okx)
    assert len(pushed(okx, topic, 1100)) == 1


@pytest.mark.parametrize(
    ("symbol", "instrument"),
    [("BTC-USDT", "BTC-USDT"), ("BTC-USDT-PERP", SWAP), ("BTC-USD-PERP", "BTC-USD-SWAP")],
)
def test_ticker_volumes_are_of_the_contract(okx: Okx, symbol: str, instrument: str) -> None:
    pit = okx.market.pits[symbol]
    for second in range(200):
        okx.printed(okx.market.order(symbol, START + second * SECOND), set())
    query = {"instId": instrument}
    answer = json.loads(okx.respond("/api/v5/market/ticker", query, "a", START + 200 * SECOND).body)
    (row,) = answer["data"]
    sizes = [float(fill.size) for fill in pit.fills]
    turnover = sum(float(fill.size) * float(fill.price) for fill in pit.fills)
    base = sum(float(fill.size) * 100 / float(fill.price) for fill in pit.fills)
    currency = {"BTC-USDT": turnover, SWAP: sum(sizes) * 0.01, "BTC-USD-SWAP": base}[instrument]
    assert float(row["vol24h"]) == pytest.approx(sum(sizes))
    assert float(row["volCcy24h"]) == pytest.approx(currency, rel=1e-6)
    ticks = [fill.ticks for fill in pit.fills]
    prices = [spell(value, pit.listing.tick) for value in (ticks[0], max(ticks), min(ticks))]
    assert [row["open24h"], row["high24h"], row["low24h"]] == prices


def test_ticker_of_what_never_traded_is_empty_not_zero() -> None:
    okx = Okx(Market(random.Random(1), listings(), START, 0, history=0), Spells())
    (row,) = json.loads(okx.respond("/api/v5/market/ticker", {"instId": SWAP}, "a", START).body)["data"]
    assert (row["last"], row["open24h"], row["vol24h"], row["lastSz"]) == ("", "", "", "0")
    assert row["bidPx"]


def test_an_empty_side_is_an_empty_list_and_no_price(okx: Okx) -> None:
    option = "BTC-USD-301227-90000-C"
    okx.market.pits[option].book.trade("sell", 1, 10**9)
    (row,) = subscribe(okx, "bbo-tbt", option)[1]["data"]
    assert row["bids"] == []
    (row,) = subscribe(okx, "tickers", option)[1]["data"]
    assert (row["bidPx"], row["bidSz"]) == ("", "")
    assert row["askPx"]


def test_pushes_of_one_turn_are_in_the_documented_order(okx: Okx) -> None:
    channels = ("tickers", "books5", "books", "bbo-tbt")
    names = (SWAP, "BTC-USDT", "ETH-USDT")
    topics = {(channel, name) for channel in channels for name in names}
    for name in ("BTC-USDT-PERP", "BTC-USDT", "ETH-USDT"):
        okx.printed(okx.market.order(name, START + SECOND), set())
    order = [frame.topic for frame in okx.due(topics, START + SECOND)]
    assert order == [(channel, name) for channel in channels[::-1] for name in sorted(names)]


@pytest.mark.parametrize(
    ("channel", "path", "code"),
    [
        *((channel, BUSINESS, "64002") for channel in ("books", "books5", "bbo-tbt", "tickers", "instruments")),
        ("books-l2-tbt", PUBLIC, "64003"),
        ("books50-l2-tbt", PUBLIC, "64003"),
        ("books-l2-tbt", BUSINESS, "64002"),
        ("books-elp", PUBLIC, "60018"),
    ],
)
def test_books_that_are_elsewhere_or_not_for_everybody(okx: Okx, channel: str, path: str, code: str) -> None:
    (error,) = subscribe(okx, channel, path=path)
    assert (error["event"], error["code"]) == ("error", code)


def test_instruments_are_told_of_when_they_change_only(okx: Okx) -> None:
    topic = ("instruments", "SWAP")
    (ack,) = subscribe(okx, "instruments", "SWAP", key="instType")
    assert ack["arg"] == {"channel": "instruments", "instType": "SWAP"}
    assert pushed(okx, topic, 100) == []
    okx.market.relist("BTC-USDT-PERP", START + SECOND)
    okx.market.relist("BTC-USDT", START + SECOND)
    (message,) = pushed(okx, topic, 1001)
    assert message["arg"] == {"channel": "instruments", "instType": "SWAP"}
    (row,) = message["data"]
    assert (row["instId"], row["listTime"]) == (SWAP, str((START + SECOND) // MILLISECOND))
    query = {"instType": "SWAP", "instId": SWAP}
    assert json.loads(okx.respond("/api/v5/public/instruments", query, "a", START).body)["data"] == [row]
    assert pushed(okx, topic, 2000) == []
    for name, key in ((SWAP, "instId"), ("SHARES", "instType")):
        assert subscribe(okx, "instruments", name, key=key)[0]["code"] == "60018"


def test_merged_trades_share_the_numbers_of_the_book(okx: Okx) -> None:
    before = okx.books(1)[SWAP].version
    frames = [
        frame
        for second in range(5)
        for frame in okx.printed(okx.market.order("BTC-USDT-PERP", START + second * SECOND), {("trades", SWAP)})
    ]
    numbers = [json.loads(frame.text)["data"][0]["seqId"] for frame in frames]
    assert numbers == sorted(numbers)
    assert before < numbers[0]
    okx.due(set(), START + 9 * SECOND)
    assert okx.books(1)[SWAP].version == numbers[-1]


def get(okx: Okx, path: str, now: int = START, **query: str) -> tuple[int, dict[str, Any]]:
    answer = okx.respond(f"/api/v5/market/{path}", query, "a", now)
    return answer.status, json.loads(answer.body)


def test_rest_books_have_the_depth_asked_for(okx: Okx) -> None:
    for asked, levels in (("", 1), ("20", 20), ("400", 400)):
        status, body = get(okx, "books", instId="BTC-USDT", sz=asked)
        assert (status, body["code"]) == (200, "0")
        (row,) = body["data"]
        assert row.keys() == {"asks", "bids", "ts", "seqId"}
        assert (len(row["bids"]), len(row["asks"])) == (levels, levels)
    assert row["seqId"] == okx.books(1)["BTC-USDT"].version
    view = okx.books(400)["BTC-USDT"]
    assert [tuple(level[:2]) for level in row["bids"]] == view.bids


def test_rest_books_are_cached_for_50_ms(okx: Okx) -> None:
    _, first = get(okx, "books", instId=SWAP)
    stir(okx, 50)
    assert get(okx, "books", START + 49 * MILLISECOND, instId=SWAP)[1] == first
    _, later = get(okx, "books", START + 50 * MILLISECOND, instId=SWAP)
    assert later["data"][0]["seqId"] > first["data"][0]["seqId"]


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("books", {}, 400, "50014"),
        ("books", {"instId": "NOPE-USDT"}, 200, "51001"),
        ("books", {"instId": SWAP, "sz": "401"}, 400, "51000"),
        ("books", {"instId": SWAP, "sz": "0"}, 400, "51000"),
        ("ticker", {}, 400, "50014"),
        ("ticker", {"instId": "NOPE-USDT"}, 200, "51001"),
        ("tickers", {}, 400, "50014"),
        ("tickers", {"instType": "SHARES"}, 400, "51000"),
    ],
)
def test_bad_requests_get_the_envelope(okx: Okx, path: str, query: dict[str, str], status: int, code: str) -> None:
    answered, body = get(okx, path, START, **query)
    assert (answered, body["code"], body["data"]) == (status, code, [])


def test_rest_tickers_are_those_of_a_type(okx: Okx) -> None:
    rows = get(okx, "tickers", instType="SWAP")[1]["data"]
    assert [row["instId"] for row in rows] == [SWAP, "ETH-USDT-SWAP", "BTC-USD_UM-SWAP", "BTC-USD-SWAP"]
    assert rows[0] == get(okx, "ticker", instId=SWAP)[1]["data"][0] == subscribe(okx, "tickers")[1]["data"][0]
    family = get(okx, "tickers", instType="SWAP", instFamily="BTC-USD")[1]["data"]
    assert [row["instId"] for row in family] == ["BTC-USD-SWAP"]


@pytest.mark.parametrize(("path", "allowed"), [("books", 40), ("ticker", 20), ("tickers", 20)])
def test_allowances_per_2_seconds(okx: Okx, path: str, allowed: int) -> None:
    kind, instrument = ("SPOT", "") if path == "tickers" else ("", SWAP)
    answers = [get(okx, path, START, instType=kind, instId=instrument)[0] for _ in range(allowed + 1)]
    assert answers == [200] * allowed + [429]


@pytest.mark.parametrize("channel", ["books", "bbo-tbt", "tickers", "trades", "trades-all", "candle1m"])
def test_every_channel_can_be_made_wrong(okx: Okx, channel: str) -> None:
    topic = (channel, SWAP)
    frames = okx.printed(okx.market.order("BTC-USDT-PERP", START + SECOND, 1), {topic})
    frames += okx.due({topic}, START + 2 * SECOND)
    frame: Frame = frames[0]
    right = json.loads(frame.text)["data"][0]
    for variant in ("types", "missing"):
        wrong = json.loads(okx.corrupt(frame, variant))["data"][0]
        assert wrong != right
        assert (len(wrong) == len(right)) == (variant == "types")
    with pytest.raises(json.JSONDecodeError):
        json.loads(okx.corrupt(frame, "broken"))
