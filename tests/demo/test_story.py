"""The story of a gap, from streams as normalize and aggregate write them."""

from collections.abc import Iterator

import msgspec
import pytest
import redis

from pipeline.commands._demo.story import MOST, Story
from pipeline.records import Candle, Gap, encode
from pipeline.settings import ExchangeSettings, RedisSettings, Settings, SettingsFile, complete
from pipeline.timeframes import SECOND

T0 = 1_795_276_800 * SECOND


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture
def settings(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    pairs = ({"symbol": "BTC-USDT"},)
    exchanges = msgspec.convert({"okx": {"trading_pairs": pairs}}, dict[str, ExchangeSettings])
    file = SettingsFile(exchanges=exchanges, redis=RedisSettings(namespace="sim"), simulated=True)
    made = complete(file, tmp_path_factory.mktemp("story") / "settings.json", {})
    return msgspec.structs.replace(made, redis_url=redis_url)


def gap(first: int, state: str, **other: object) -> bytes:
    told = {
        "exchange": "okx", "market": "spot", "symbol": "BTC-USDT", "instrument": "BTC-USDT", "time": None,
        "received": T0, "epoch": 0, "from_sequence": first, "to_sequence": first + 4, "from_time": T0 + SECOND // 2,
        "to_time": T0 + SECOND, "cause": "sequence", "state": state, **other,
    }  # fmt: skip
    return encode(msgspec.convert(told, Gap))


def candle(revision: int, quality: str, trades: int) -> bytes:
    told = {
        "exchange": "okx", "market": "spot", "symbol": "BTC-USDT", "instrument": "BTC-USDT", "time": T0 + SECOND,
        "received": T0, "timeframe": "1s", "open_time": T0, "close_time": T0 + SECOND, "revision": revision,
        "quality": quality, "trades_count": trades, "missing": 0,
        **dict.fromkeys(("open", "high", "low", "close", "volume", "quote_volume", "buy_volume"), "1"),
        "buy_quote_volume": "1",
    }  # fmt: skip
    return encode(msgspec.convert(told, Candle))


def told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> tuple[Story, list[str]]:
    monkeypatch.setattr("pipeline.commands._demo.story.LOOK", 0.0)
    said: list[str] = []
    return Story(settings, said.append), said


def add(client: redis.Redis, kind: str, data: bytes) -> None:
    client.xadd(f"sim:{kind}:{{okx}}", {"symbol": "BTC-USDT", "data": data})


def test_a_gap_opens_is_filled_and_its_candle_revised(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    story, said = told(settings, monkeypatch)
    add(client, "gap", gap(7, "opened"))
    add(client, "candle:1s", candle(0, "partial", 3))
    story.turn()
    assert said == ["gap okx BTC-USDT 7…11: 5 trades missed, 16:00:00.500 to 16:00:01.000"]
    story.turn()
    assert len(said) == 1
    add(client, "gap", gap(7, "shrunk", repaired=2))
    add(client, "gap", gap(7, "closed", repaired=5, reason="filled"))
    add(client, "candle:1s", candle(1, "partial", 5))
    add(client, "candle:1s", candle(2, "repaired", 8))
    story.turn()
    assert said[1:] == [
        "gap okx BTC-USDT 7…11: filled, 5 fetched again",
        "candle okx BTC-USDT 1s 16:00:00.000: revision 0 partial, 3 trades -> revision 2 repaired, 8 trades",
    ]


def test_only_the_first_gaps_are_told_of_and_no_new_numbering(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    story, said = told(settings, monkeypatch)
    add(client, "gap", gap(1, "closed", cause="epoch", reason="relisted"))
    for number in range(MOST + 3):
        add(client, "gap", gap(10 * number, "opened"))
    story.turn()
    assert len(said) == MOST
    assert said[0].startswith("gap okx BTC-USDT 0…4:")
