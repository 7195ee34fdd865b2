"""The OKX dialect without sockets: strictness, limits that take hours, bars."""

import json
import random
from typing import Any

import pytest

from simulator.dialect import Close, Reply
from simulator.exchanges.okx import BUSINESS, PUBLIC, Okx, OkxSession
from simulator.faults import Spells, fault_from
from simulator.listings import listings
from simulator.market import SECOND, Market, spell
from tests.simulator.clients import START


@pytest.fixture
def okx() -> Okx:
    return Okx(Market(random.Random(1), listings(), START, 0), Spells())


@pytest.fixture
def session(okx: Okx) -> OkxSession:
    return okx.open(BUSINESS, START)


def subscribe(*instruments: str, channel: str = "trades-all", **more: object) -> str:
    args = [{"channel": channel, "instId": instrument} for instrument in instruments]
    return json.dumps({"op": "subscribe", "args": args, **more})


def decoded(replies: list[Reply]) -> list[dict[str, Any]]:
    assert all(isinstance(reply, str) for reply in replies)
    return [json.loads(reply) for reply in replies if isinstance(reply, str)]


def codes(replies: list[Reply]) -> list[str | None]:
    return [reply.get("code") for reply in decoded(replies)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "60012"),
        ("[]", "60012"),
        ("Ping", "60012"),
        ('{"op":"subscribe","argss":[{"channel":"trades-all","instId":"BTC-USDT"}]}', "60012"),
        ('{"op":1,"args":[]}', "60012"),
        ('{"op":"subscribe","args":[]}', "60013"),
        ('{"op":"subscribe","args":{"channel":"trades-all"}}', "60013"),
        ('{"op":"subscribe","args":["trades-all"]}', "60013"),
        ('{"op":"subscribe","args":[{"instId":"BTC-USDT"}]}', "60013"),
        ('{"op":"subscribe","args":[{"channel":"trades-all","instId":5}]}', "60013"),
        ('{"op":"listen","args":[{"channel":"trades-all","instId":"BTC-USDT"}]}', "60019"),
        ('{"op":"login","args":[{"apiKey":"k"}]}', "60009"),
        ('{"op":"subscribe","args":[{"channel":"trades-all"}]}', "60018"),
        (subscribe("NOPE-USDT"), "60018"),
        (subscribe("btc-usdt"), "60018"),
        (subscribe("BTC-USDT", channel="no-such"), "60018"),
        (subscribe("BTC-USDT", channel="candle7m"), "60018"),
        (subscribe("BTC-USDT", id="not alphanumeric"), "60033"),
        (subscribe("BTC-USDT", id="a" * 33), "60033"),
        (subscribe("BTC-USDT", id=7), "60033"),
    ],
)
def test_breaches_get_the_error_okx_sends(session: OkxSession, text: str, code: str) -> None:
    (error,) = decoded(session.receive(text, START))
    assert (error["event"], error["code"], error["connId"]) == ("error", code, session.name)
    assert error["msg"]
    assert not session.topics


@pytest.mark.parametrize(
    ("path", "channel", "code"),
    [(PUBLIC, "trades-all", "64001"), (PUBLIC, "candle1m", "64001"), (BUSINESS, "trades", "64002")],
)
def test_channels_belong_to_a_path(okx: Okx, path: str, channel: str, code: str) -> None:
    session = okx.open(path, START)
    assert codes(session.receive(subscribe("BTC-USDT", channel=channel), START)) == [code]


def test_one_ack_per_arg_echoes_the_id_and_a_bad_arg_is_refused_alone(session: OkxSession) -> None:
    replies = decoded(session.receive(subscribe("BTC-USDT", "NOPE-USDT", "BTC-USD-SWAP", id="q7"), START))
    answers = [reply for reply in replies if "event" in reply]
    assert [answer["id"] for answer in answers] == ["q7"] * 3
    assert [answer["event"] for answer in answers] == ["subscribe", "error", "subscribe"]
    assert answers[0]["arg"] == {"channel": "trades-all", "instId": "BTC-USDT"}
    assert "arg" not in answers[1]
    assert "channel:trades-all,instId:NOPE-USDT" in answers[1]["msg"]


def test_ack_without_id_has_none(session: OkxSession) -> None:
    assert "id" not in decoded(session.receive(subscribe("BTC-USDT"), START))[0]


def test_last_trade_is_replayed_on_every_subscribe(okx: Okx, session: OkxSession) -> None:
    last = okx.market.pits["QUIET-USDT"].fills[-1]
    for _ in range(2):
        ack, replay = decoded(session.receive(subscribe("QUIET-USDT"), START))
        assert ack["event"] == "subscribe"
        assert replay["data"] == [
            {
                "instId": "QUIET-USDT",
                "tradeId": str(last.sequence),
                "px": last.price,
                "sz": last.size,
                "side": last.side,
                "source": "0",
                "ts": str(last.time // 1_000_000),
            }
        ]
    assert START - int(replay["data"][0]["ts"]) * 1_000_000 > 3 * 3600 * SECOND


def test_481st_request_of_an_hour_is_refused_and_the_hour_slides(session: OkxSession) -> None:
    for number in range(480):
        assert codes(session.receive(subscribe("BTC-USDT"), START + number * SECOND))[0] is None
    assert codes(session.receive(subscribe("BTC-USDT"), START + 480 * SECOND)) == ["60014"]
    assert session.receive("ping", START + 480 * SECOND) == ["pong"]
    assert codes(session.receive(subscribe("BTC-USDT"), START + 3600 * SECOND))[0] is None
    assert codes(session.receive(subscribe("BTC-USDT"), START + 3600 * SECOND)) == ["60014"]


def test_logins_count_towards_the_480(session: OkxSession) -> None:
    login = '{"op":"login","args":[{"apiKey":"K"}]}'
    assert [codes(session.receive(login, START)) for _ in range(480)] == [["60009"]] * 480
    assert codes(session.receive(login, START)) == codes(session.receive(subscribe("BTC-USDT"), START)) == ["60014"]


def test_args_over_64_kilobytes_close_1009(session: OkxSession) -> None:
    (reply,) = session.receive(subscribe(*["BTC-USDT"] * 2000), START)
    assert isinstance(reply, Close)
    assert reply.code == 1009


def test_connection_without_subscription_closes_after_30_s_pings_or_not(session: OkxSession) -> None:
    session.receive("ping", START + 20 * SECOND)
    session.sent(START + 20 * SECOND)
    assert session.tick(START + 30 * SECOND - 1) == []
    assert [reply.code for reply in session.tick(START + 30 * SECOND) if isinstance(reply, Close)] == [4004]


def test_connection_without_a_push_closes_after_30_s(session: OkxSession) -> None:
    session.receive(subscribe("QUIET-USDT"), START)
    session.sent(START)
    session.sent(START + 25 * SECOND)
    assert session.tick(START + 54 * SECOND) == []
    assert session.tick(START + 55 * SECOND)


def test_unsubscribing_the_last_starts_the_30_s_anew(session: OkxSession) -> None:
    session.receive(subscribe("BTC-USDT"), START)
    session.sent(START + 100 * SECOND)
    (ack,) = decoded(
        session.receive(subscribe("BTC-USDT").replace("subscribe", "unsubscribe"), START + 100 * SECOND),
    )
    assert ack["event"] == "unsubscribe"
    assert not session.topics
    assert session.tick(START + 129 * SECOND) == []
    assert session.tick(START + 130 * SECOND)


def test_fourth_connection_within_a_second_is_refused(okx: Okx) -> None:
    taken = [okx.connect("a", START + number * SECOND // 10) for number in range(4)]
    assert taken == [True, True, True, False]
    assert okx.connect("b", START + SECOND // 2)
    assert okx.connect("a", START + SECOND)


def test_refused_symbol_and_the_whole_request(okx: Okx, session: OkxSession) -> None:
    okx.spells.cast(fault_from({"fault": "refused_symbol", "instrument": "BTC-USDT", "seconds": 10}), START)
    assert codes(session.receive(subscribe("BTC-USDT", "ETH-USDT"), START)) == ["60018", None, None]
    assert codes(session.receive(subscribe("BTC-USDT"), START + 10 * SECOND)) == [None, None]
    whole = {"fault": "refused_symbol", "instrument": "SOL-USDT", "whole_request": True}
    okx.spells.cast(fault_from(whole), START)
    assert codes(session.receive(subscribe("ETH-USDT", "SOL-USDT", "BTC-USDT"), START + SECOND)) == ["60018", "60018"]
    okx.spells.cast(fault_from({"fault": "clear"}), START)
    assert codes(session.receive(subscribe("SOL-USDT"), START + SECOND)) == [None, None]


def test_merged_trades_cover_consecutive_ids(okx: Okx) -> None:
    orders = [okx.market.order("BTC-USDT-PERP", START + number * SECOND, 6) for number in range(20)]
    covered: list[int] = []
    for order in orders:
        for frame in okx.printed(order, {("trades", "BTC-USDT-SWAP")}):
            (row,) = json.loads(frame.text)["data"]
            last, count = int(row["tradeId"]), int(row["count"])
            assert frame.ids == tuple(range(last - count + 1, last + 1))
            covered += frame.ids
    assert covered == [fill.sequence for order in orders for fill in order]


def test_trades_all_gives_single_fills_some_frames_with_several(okx: Okx) -> None:
    orders = [okx.market.order("BTC-USDT", START + number * SECOND, 3) for number in range(20)]
    frames = [frame for order in orders for frame in okx.printed(order, {("trades-all", "BTC-USDT")})]
    rows = [row for frame in frames for row in json.loads(frame.text)["data"]]
    assert [row["tradeId"] for row in rows] == [str(fill.sequence) for order in orders for fill in order]
    assert {len(json.loads(frame.text)["data"]) for frame in frames} == {1, 3}
    assert all("count" not in row and "seqId" not in row for row in rows)


def test_open_bar_is_pushed_once_a_second_and_closed_once(okx: Okx) -> None:
    topic = ("candle1m", "BTC-USDT")
    minute = START - START % (60 * SECOND) + 60 * SECOND
    rows: list[list[str]] = []
    for quarter in range(4 * 61):
        now = minute + quarter * SECOND // 4
        okx.printed(okx.market.order("BTC-USDT", now, 1), set())
        for frame in okx.due({topic}, now):
            rows += json.loads(frame.text)["data"]
    opened = str(minute // 1_000_000)
    assert [row[-1] for row in rows if row[0] == opened] == ["0"] * 60 + ["1"]
    fills = [fill for fill in okx.market.pits["BTC-USDT"].fills if minute <= fill.time < minute + 60 * SECOND]
    (closed,) = [row for row in rows if row[-1] == "1"]
    tick, lot = okx.market.pits["BTC-USDT"].listing.tick, okx.market.pits["BTC-USDT"].listing.lot
    assert closed[1:6] == [
        fills[0].price,
        spell(max(fill.ticks for fill in fills), tick),
        spell(min(fill.ticks for fill in fills), tick),
        fills[-1].price,
        spell(sum(fill.lots for fill in fills), lot),
    ]


def test_bar_volumes_follow_the_contract(okx: Okx) -> None:
    for symbol, instrument in (("BTC-USDT-PERP", "BTC-USDT-SWAP"), ("BTC-USD-PERP", "BTC-USD-SWAP")):
        (fill,) = okx.market.order(symbol, START, 1)
        okx.printed((fill,), set())
        query = {"instId": instrument, "bar": "1s", "limit": "1"}
        (row,) = json.loads(okx.respond("/api/v5/market/candles", query, "a", START).body)["data"]
        contracts, price = float(fill.size), float(fill.price)
        base = contracts * 0.01 if symbol == "BTC-USDT-PERP" else contracts * 100 / price
        quote = base * price
        assert row[5] == fill.size
        assert float(row[6]) == pytest.approx(base, rel=1e-3)
        assert float(row[7]) == pytest.approx(quote, rel=1e-3)
