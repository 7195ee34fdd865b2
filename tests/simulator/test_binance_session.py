"""The Binance dialect without sockets: strictness, limits that take hours, pushes by time."""

import json
import random
from decimal import Decimal
from typing import Any

import pytest

from pipeline.errors import SettingsError
from simulator.dialect import Close, Frame, Ping, Reply
from simulator.exchanges.binance import Binance, BinanceSession
from simulator.faults import Spells, fault_from
from simulator.listings import listings
from simulator.market import MILLISECOND, SECOND, Market
from simulator.rows.binance import INTERVALS, fixed, lists, terms
from tests.simulator.clients import START

DAY = 24 * 3600 * SECOND


@pytest.fixture
def binance() -> Binance:
    listed = [terms(listing) for listing in listings() if lists(listing)]
    return Binance(Market(random.Random(1), listed, START, 0), Spells())


@pytest.fixture
def session(binance: Binance) -> BinanceSession:
    return binance.open("/stream", START)


def ask(session: BinanceSession, method: str, *params: object, now: int = START, identity: object = 1) -> Any:
    """Send a request a second after the one before; its only answer, decoded."""
    (answer,) = session.receive(json.dumps({"method": method, "params": params, "id": identity}), now)
    assert isinstance(answer, str)
    return json.loads(answer)


def data(frames: list[Frame]) -> list[dict[str, Any]]:
    return [json.loads(frame.text) for frame in frames]


VARIANTS = "`SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}),
        ("{", {"code": 3}),
        ("ping", {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}),
        ("[]", {"code": 2, "id": None}),
        ("5", {"code": 2, "id": None}),
        ('{"params":[],"id":4}', {"code": 2, "id": 4}),
        (
            '{"method":"SUBSCRIB","params":["btcusdt@trade"],"id":7}',
            {
                "code": 2,
                "msg": f"Invalid request: unknown variant SUBSCRIB, expected one of {VARIANTS} at line 1 column 20",
                "id": 7,
            },
        ),
        ('{"method":null,"id":7}', {"code": 2, "id": 7}),
        ('{"method":["SUBSCRIBE"],"id":7}', {"code": 2, "id": 7}),
        ('{"method":"subscribe","params":[],"id":7}', {"code": 2, "id": 7}),
        ('{"method":"SUBSCRIBE","id":7}', {"code": 2, "id": 7}),
        ('{"method":"SUBSCRIBE","params":"btcusdt@trade","id":7}', {"code": 2, "id": 7}),
        ('{"method":"SUBSCRIBE","params":[5],"id":7}', {"code": 2, "id": 7}),
        ('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1.5}', {"code": 2, "id": None}),
        ('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":true}', {"code": 2, "id": None}),
        ('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":9223372036854775808}', {"code": 2, "id": None}),
        ('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":"%s"}' % ("x" * 37), {"code": 2, "id": None}),
        ('{"method":"SET_PROPERTY","params":["combined",1],"id":7}', {"code": 1, "id": 7}),
        ('{"method":"SET_PROPERTY","params":["nothing",true],"id":7}', {"code": 0, "id": 7}),
        ('{"method":"SET_PROPERTY","params":[true,"combined"],"id":7}', {"code": 2, "id": 7}),
        ('{"method":"SET_PROPERTY","params":["combined"],"id":7}', {"code": 2, "id": 7}),
        ('{"method":"GET_PROPERTY","params":["combined",true],"id":7}', {"code": 2, "id": 7}),
        ('{"method":"GET_PROPERTY","params":["nothing"],"id":7}', {"code": 0, "id": 7}),
    ],
)
def test_breaches_get_the_error_binance_sends(session: BinanceSession, text: str, answer: dict[str, Any]) -> None:
    (reply,) = session.receive(text, START)
    assert isinstance(reply, str)
    error = json.loads(reply)
    assert error["msg"]
    assert error.items() >= answer.items()
    assert ("id" in error) == (answer["code"] != 3)
    assert not session.topics


@pytest.mark.parametrize("identity", [0, -5, 2**63 - 1, -(2**63), "x" * 36, "", None])
def test_every_kind_of_id_is_echoed(session: BinanceSession, identity: object) -> None:
    assert ask(session, "SUBSCRIBE", "btcusdt@trade", identity=identity) == {"result": None, "id": identity}


def test_a_request_without_id_is_answered_with_null(session: BinanceSession) -> None:
    assert session.receive('{"method":"LIST_SUBSCRIPTIONS"}', START) == ['{"result":[],"id":null}']


def test_what_is_unknown_is_acknowledged_and_stays_silent(session: BinanceSession) -> None:
    unknown = ["nopeusdt@trade", "BTCUSDT@trade", "btcusdt@Trade", "btcusdt@kline_7m", "btcusdt", "btcusdt@depth50", ""]
    assert ask(session, "SUBSCRIBE", *unknown, "btcusdt@aggTrade") == {"result": None, "id": 1}
    assert session.topics == {("aggTrade", "BTCUSDT")}
    assert ask(session, "LIST_SUBSCRIPTIONS")["result"] == [*unknown, "btcusdt@aggTrade"]


def test_subscriptions_are_a_set(session: BinanceSession) -> None:
    for _ in range(2):
        assert ask(session, "SUBSCRIBE", "btcusdt@trade", "ethusdt@depth@100ms") == {"result": None, "id": 1}
    assert ask(session, "LIST_SUBSCRIPTIONS")["result"] == ["btcusdt@trade", "ethusdt@depth@100ms"]
    assert ask(session, "UNSUBSCRIBE", "btcusdt@trade", "never@there") == {"result": None, "id": 1}
    assert session.topics == {("depth@100ms", "ETHUSDT")}


@pytest.mark.parametrize(
    ("path", "query", "topics", "combined"),
    [
        ("/ws", "", set(), False),
        ("/ws/", "", set(), False),
        ("/ws/btcusdt@trade", "", {("trade", "BTCUSDT")}, False),
        ("/ws/btcusdt@trade/ethusdt@kline_1m", "", {("trade", "BTCUSDT"), ("kline_1m", "ETHUSDT")}, False),
        ("/stream", "", set(), True),
        ("/stream", "streams=btcusdt@trade", {("trade", "BTCUSDT")}, True),
        ("/stream", "streams=btcusdt%40trade%2Fnope@trade", {("trade", "BTCUSDT")}, True),
        ("/stream", "x=1&streams=BTCUSDT@trade/solusdt@bookTicker", {("bookTicker", "SOLUSDT")}, True),
    ],
)
def test_urls_name_streams(binance: Binance, path: str, query: str, topics: set[Any], combined: bool) -> None:
    assert binance.serves(path)
    session = binance.open(path, START, query)
    assert session.topics == topics
    assert ask(session, "GET_PROPERTY", "combined")["result"] == combined


@pytest.mark.parametrize("path", ["/", "/wss", "/stream/btcusdt@trade", "/ws-api/v3", "/market/stream"])
def test_other_paths_are_not_served(binance: Binance, path: str) -> None:
    assert not binance.serves(path)


def test_framing_is_the_connection_s_own(binance: Binance, session: BinanceSession) -> None:
    frame = Frame(("depth@100ms", "BTCUSDT"), '{"u":1}')
    assert session.spelled(frame) == '{"stream":"btcusdt@depth@100ms","data":{"u":1}}'
    assert ask(session, "SET_PROPERTY", "combined", False) == {"result": None, "id": 1}
    assert session.spelled(frame) == '{"u":1}'
    raw = binance.open("/ws/btcusdt@trade", START)
    assert raw.spelled(frame) == '{"u":1}'
    raw.tick(START + SECOND)
    shutdown = {"e": "serverShutdown", "E": (START + SECOND) // MILLISECOND}
    assert json.loads(raw.notice()) == shutdown
    assert ask(raw, "SET_PROPERTY", "combined", True)["result"] is None
    raw.tick(START + SECOND)
    assert json.loads(raw.notice()) == {"stream": "!serverShutdown", "data": shutdown}


def test_sixth_message_of_a_second_closes_whatever_it_is(binance: Binance) -> None:
    for last in ("text", "ping", "pong"):
        session = binance.open("/ws", START)
        assert session.receive('{"method":"LIST_SUBSCRIPTIONS","id":1}', START)
        for number in range(2):
            assert session.heard("ping", b"", START + number) == []
            assert session.heard("pong", b"unasked", START + number) == []
        now = START + SECOND - 1
        (reply,) = session.receive("{}", now) if last == "text" else session.heard(last, b"", now)
        assert reply == Close(1008, "Too many requests")
        later = binance.open("/ws", START)
        assert all(later.heard("pong", b"", START + number * SECOND // 5) == [] for number in range(100))


def test_1025th_stream_is_refused_whole(session: BinanceSession) -> None:
    names = [f"nope{number}@trade" for number in range(1024)]
    assert ask(session, "SUBSCRIBE", *names)["result"] is None
    assert ask(session, "SUBSCRIBE", names[0])["result"] is None
    refused = ask(session, "SUBSCRIBE", names[0], "btcusdt@trade")
    assert (refused["code"], refused["msg"]) == (2, "Invalid request: too many parameters")
    assert not session.topics


def test_301st_connection_of_five_minutes_is_refused(binance: Binance) -> None:
    assert all(binance.connect("a", START + number * SECOND // 2) for number in range(300))
    assert not binance.connect("a", START + 299 * SECOND)
    assert binance.connect("b", START)
    assert binance.connect("a", START + 300 * SECOND)


def pings(replies: list[Reply]) -> list[bytes]:
    assert all(isinstance(reply, Ping) for reply in replies)
    return [reply.payload for reply in replies if isinstance(reply, Ping)]


def test_a_ping_every_20_seconds_and_its_own_pong_within_60(session: BinanceSession) -> None:
    assert session.tick(START + 20 * SECOND - 1) == []
    (first,) = pings(session.tick(START + 20 * SECOND))
    assert session.tick(START + 21 * SECOND) == []
    (second,) = pings(session.tick(START + 40 * SECOND))
    assert first != second
    # A pong answers the pings before it too; one that nobody asked for answers nothing.
    session.heard("pong", second, START + 41 * SECOND)
    (third,) = pings(session.tick(START + 60 * SECOND))
    session.heard("pong", b"", START + 61 * SECOND)
    session.heard("pong", second, START + 61 * SECOND)
    assert len(pings(session.tick(START + 80 * SECOND))) == 1
    assert len(pings(session.tick(START + 100 * SECOND))) == 1
    assert session.tick(START + 120 * SECOND - 1) == []
    assert session.tick(START + 120 * SECOND) == [Close(1008, "Pong timeout")]
    assert third


def test_a_connection_ends_after_24_hours_or_what_the_fault_says(binance: Binance, session: BinanceSession) -> None:
    for now in range(START + 20 * SECOND, START + DAY, 20 * SECOND):
        (payload,) = pings(session.tick(now))
        session.heard("pong", payload, now)
    (reply,) = session.tick(START + DAY)
    assert isinstance(reply, Close)
    short = binance.open("/ws", START)
    binance.spells.cast(fault_from({"fault": "lifetime", "seconds": 5}), START)
    assert short.tick(START + 5 * SECOND - 1) == []
    assert isinstance(short.tick(START + 5 * SECOND)[0], Close)
    binance.spells.cast(fault_from({"fault": "clear"}), START)
    assert short.tick(START + 6 * SECOND) == []


def test_refused_symbol_is_not_listed_anywhere_and_silent(binance: Binance, session: BinanceSession) -> None:
    binance.spells.cast(fault_from({"fault": "refused_symbol", "instrument": "BTCUSDT", "seconds": 10}), START)
    assert ask(session, "SUBSCRIBE", "btcusdt@trade", "ethusdt@trade") == {"result": None, "id": 1}
    assert ask(session, "LIST_SUBSCRIPTIONS")["result"] == ["ethusdt@trade"]
    assert session.topics == {("trade", "ETHUSDT")}
    info = json.loads(binance.respond("/api/v3/exchangeInfo", {}, "a", START).body)
    assert "BTCUSDT" not in {row["symbol"] for row in info["symbols"]}
    assert binance.respond("/api/v3/depth", {"symbol": "BTCUSDT"}, "a", START).status == 400
    ask(session, "SUBSCRIBE", "btcusdt@trade", now=START + 10 * SECOND)
    assert ("trade", "BTCUSDT") in session.topics


def test_silence_after_the_acknowledgement_is_listed_all_the_same(binance: Binance, session: BinanceSession) -> None:
    binance.spells.cast(fault_from({"fault": "silence_after_ack", "instrument": "BTCUSDT"}), START)
    assert ask(session, "SUBSCRIBE", "btcusdt@trade") == {"result": None, "id": 1}
    assert ask(session, "LIST_SUBSCRIPTIONS")["result"] == ["btcusdt@trade"]
    assert not session.topics


def test_trades_and_aggregates_tile_the_same_fills(binance: Binance) -> None:
    wanted = {("trade", "BTCUSDT"), ("aggTrade", "BTCUSDT")}
    orders = [binance.market.order("BTC-USDT", START + number * SECOND, 6) for number in range(40)]
    frames = [frame for order in orders for frame in binance.printed(order, wanted)]
    fills = [fill for order in orders for fill in order]
    trades, aggregates = ([row for row in data(frames) if row["e"] == kind] for kind in ("trade", "aggTrade"))
    assert [row["t"] for row in trades] == [fill.sequence for fill in fills]
    assert [row["m"] for row in trades] == [fill.side == "sell" for fill in fills]
    assert {row["m"] for row in trades} == {True, False}
    assert list(trades[0]) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]
    assert list(aggregates[0]) == ["e", "E", "s", "a", "p", "q", "f", "l", "T", "m", "M"]
    assert [row["a"] for row in aggregates] == list(range(3, 3 + len(aggregates)))
    assert len(aggregates) < len(fills)
    left = iter(trades)
    for row in aggregates:
        inside = [next(left) for _ in range(row["l"] - row["f"] + 1)]
        assert {(one["p"], one["T"], one["m"]) for one in inside} == {(row["p"], row["T"], row["m"])}
        assert sum(round(float(one["q"]) * 1e8) for one in inside) == round(float(row["q"]) * 1e8)
    assert [frame.ids for frame in frames if frame.topic[0] == "trade"] == [(fill.sequence,) for fill in fills]


def test_a_new_listing_begins_its_numbers_anew(binance: Binance) -> None:
    binance.market.relist("BTC-USDT", START + SECOND)
    order = binance.market.order("BTC-USDT", START + 2 * SECOND, 1)
    (trade, aggregate) = data(binance.printed(order, {("trade", "BTCUSDT"), ("aggTrade", "BTCUSDT")}))
    assert (trade["t"], aggregate["a"], aggregate["f"]) == (1, 0, 1)
    query = {"symbol": "BTCUSDT"}
    (row,) = json.loads(binance.respond("/api/v3/aggTrades", query, "a", START + 3 * SECOND).body)
    assert row["a"] == 0


@pytest.mark.parametrize("interval", ["1s", "1m", "5m"])
def test_every_bar_ends_once_traded_or_not(binance: Binance, interval: str) -> None:
    width = INTERVALS[interval] * MILLISECOND
    topic = (f"kline_{interval}", "BTCUSDT")
    rows: list[dict[str, Any]] = []
    begun = START - START % width + width
    for step in range(5 * 20 + 1):
        now = begun + step * width // 20
        if (step // 20) % 2 == 0:
            binance.printed(binance.market.order("BTC-USDT", now, 2), set())
        rows += [row["k"] for row in data(binance.due({topic}, now))]
    ended = [row for row in rows if row["x"]]
    assert [row["t"] for row in ended] == [(begun + number * width) // MILLISECOND for number in range(5)]
    assert [row["T"] - row["t"] for row in ended] == [INTERVALS[interval] - 1] * 5
    assert [row["n"] for row in ended] == [40, 0, 40, 0, 40]
    assert [(row["f"], row["L"]) for row in ended][1::2] == [(-1, -1)] * 2
    assert [row["L"] - row["f"] + 1 for row in ended][::2] == [40] * 3
    flat = ended[1]
    assert {flat[price] for price in "ohlc"} == {ended[0]["c"]}
    assert flat["v"] == flat["q"] == flat["V"] == flat["Q"] == "0.00000000"
    # Open bars go on being pushed after they were told, never after their end.
    assert [row["t"] for row in rows] == sorted(row["t"] for row in rows)
    every = SECOND if interval == "1s" else 2 * SECOND
    assert len(rows) - len(ended) == pytest.approx(min(5 * width // every, 100), abs=1)


def test_nothing_old_comes_to_a_new_subscription(binance: Binance) -> None:
    topic, width = ("kline_1s", "BTCUSDT"), SECOND
    binance.due({topic}, START)
    assert binance.due(set(), START + width) == []
    rows = data(binance.due({topic}, START + 10 * width))
    assert [row["k"]["x"] for row in rows] == [False]
    assert rows[0]["k"]["t"] == (START + 10 * width) // MILLISECOND // 1000 * 1000


def test_depth_events_are_contiguous_and_count_every_level(binance: Binance) -> None:
    fast, slow = ("depth@100ms", "BTCUSDT"), ("depth", "BTCUSDT")
    book = binance.market.pits["BTC-USDT"].book
    frames: list[Frame] = []
    binance.due({fast, slow}, START)
    for step in range(1, 101):
        if step % 4:
            book.stir(3)
        frames += binance.due({fast, slow}, START + step * SECOND // 20)
    for topic, most in ((fast, 50), (slow, 6)):
        events = data([frame for frame in frames if frame.topic == topic])
        assert 4 <= len(events) <= most
        assert events[0]["U"] == 1
        assert [later["U"] for later in events[1:]] == [event["u"] + 1 for event in events[:-1]]
        assert {tuple(event) for event in events} == {("e", "E", "s", "U", "u", "b", "a")}
    updates = [frame.update for frame in frames if frame.topic == fast]
    assert [update[0] + 1 for update in updates if update] == [
        event["U"] for event in data([frame for frame in frames if frame.topic == fast])
    ]


def test_depth_events_tell_of_every_level_touched(binance: Binance) -> None:
    """A level that came and went within an event too: a snapshot taken in between has it."""
    topic, pit = ("depth@100ms", "BTCUSDT"), binance.market.pits["BTC-USDT"]
    binance.due({topic}, START)
    vanished = 0
    for step in range(1, 200):
        had, touched = set(pit.book.bids.keys) | set(pit.book.asks.keys), set()
        for _ in range(30):
            version = pit.book.version
            pit.book.stir()
            bids, asks = pit.book.changed(version) or ([], [])
            touched |= {-ticks for ticks, _ in bids} | {ticks for ticks, _ in asks}
        (event,) = data(binance.due({topic}, START + step * SECOND // 10))
        told = {-Decimal(price) for price, _ in event["b"]} | {Decimal(price) for price, _ in event["a"]}
        assert told == {key * pit.listing.tick for key in touched}
        vanished += len(touched - had - set(pit.book.bids.keys) - set(pit.book.asks.keys))
    assert vanished


def test_best_prices_come_at_once_and_with_a_number_of_the_depth_stream(binance: Binance) -> None:
    topic, book = ("bookTicker", "BTCUSDT"), binance.market.pits["BTC-USDT"].book
    (first,) = data(binance.due({topic}, START))
    assert list(first) == ["u", "s", "b", "B", "a", "A"]
    before, count = book.side("bid", 1) + book.side("ask", 1), 0
    for step in range(200):
        book.stir()
        events = data(binance.due({topic}, START + step))
        best = book.side("bid", 1) + book.side("ask", 1)
        assert [event["u"] for event in events] == ([book.version] if best != before else [])
        before, count = best, count + len(events)
    assert 0 < count < 200


@pytest.mark.parametrize("levels", [5, 10, 20])
def test_partial_books_have_the_best_levels_when_something_changed(binance: Binance, levels: int) -> None:
    fast, slow = (f"depth{levels}@100ms", "BTCUSDT"), (f"depth{levels}", "BTCUSDT")
    pit = binance.market.pits["BTC-USDT"]
    counts = {fast: 0, slow: 0}
    for step in range(31):
        now = START + step * SECOND // 10
        if step != 15:
            pit.book.stir(4)
        for frame in binance.due({fast, slow}, now):
            counts[frame.topic] += 1
            body = json.loads(frame.text)
            assert list(body) == ["lastUpdateId", "bids", "asks"]
            assert body["lastUpdateId"] == pit.book.version
            assert (len(body["bids"]), len(body["asks"])) == (levels, levels)
            assert float(body["bids"][0][0]) < float(body["asks"][0][0])
    assert counts == {fast: 30, slow: 4}


def test_mini_ticker_is_the_ticker_s_short_form(binance: Binance) -> None:
    binance.printed(binance.market.order("BTC-USDT", START, 3), set())
    frames = binance.due({("ticker", "BTCUSDT"), ("miniTicker", "BTCUSDT")}, START + SECOND)
    rows = {row["e"]: row for row in data(frames)}
    full, mini = rows["24hrTicker"], rows["24hrMiniTicker"]
    assert list(mini) == ["e", "E", "s", "c", "o", "h", "l", "v", "q"]
    assert all(mini[key] == full[key] for key in mini if key != "e")
    assert full["C"] - full["O"] == 86_400_000
    assert full["n"] == full["L"] - full["F"] + 1 == 6
    assert binance.due({("ticker", "BTCUSDT")}, START + SECOND + SECOND // 2) == []


def test_a_frame_of_any_channel_can_be_harmed(binance: Binance) -> None:
    wanted = {(channel, "BTCUSDT") for channel in binance.channels}
    frames = binance.due(wanted, START)
    frames += binance.printed(binance.market.order("BTC-USDT", START + SECOND, 1), wanted)
    frames += binance.due(wanted, START + 2 * SECOND)
    assert {frame.topic for frame in frames} == wanted
    for frame in frames:
        message = json.loads(frame.text)
        assert json.loads(binance.corrupt(frame, "types")).keys() == message.keys()
        assert len(json.loads(binance.corrupt(frame, "missing"))) == len(message) - 1
        with pytest.raises(json.JSONDecodeError):
            json.loads(binance.corrupt(frame, "broken"))


def test_numbers_are_spelt_with_8_decimals() -> None:
    assert [fixed(units) for units in (0, 1, 10**8, -5, 268380000000)] == [
        "0.00000000",
        "0.00000001",
        "1.00000000",
        "-0.00000005",
        "2683.80000000",
    ]


def test_values_are_exact_on_binance_s_terms() -> None:
    for listing in (terms(listing) for listing in listings(3) if lists(listing)):
        assert int(listing.tick * listing.lot * 10**16) % 10**8 == 0
        assert listing.minimum % listing.lot == 0


def test_there_is_no_reset_of_a_book(binance: Binance) -> None:
    with pytest.raises(SettingsError, match="begin anew"):
        binance.reset("BTCUSDT")
