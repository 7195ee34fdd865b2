"""Every rule of the verdict: what breaks it, what it says, and what it leaves alone. Pure."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline import settings as settings_module
from pipeline.collected import BOOK_GRACE, CLOCK_SKEW, WANT_GRACE
from pipeline.facts import DeadLetters, Group, Postgres, Process, Redis, Size, Snapshot, Stream
from pipeline.findings import DISK_FREE
from pipeline.health import Verdict, judge
from pipeline.liveness import HEARTBEAT_LATE, START_GRACE
from pipeline.losses import TOLD_FOR, Lost
from pipeline.rules import RULES
from pipeline.settings import CollectionSettings, RedisSettings, Settings, SettingsFile
from tests.commands.conftest import CONNECTION, asked, book, details_of, of_kind, report_of, seen, told

NOW = 1_763_719_200_000_000_000
SECOND = 1_000_000_000
NAMES = ("redis", "postgres", "store-0", "aggregate-0", "normalize-okx", "ingest-okx", "watchdog")


def given(**sections: Any) -> Settings:
    file: SettingsFile = msgspec.structs.replace(settings_module.default_file(), **sections)
    return settings_module.complete(file, Path("/srv/tapeline/config/data_collection.json"), {})


def process(name: str, **changes: Any) -> Process:
    report = None if name in ("redis", "postgres") else report_of(name, NOW)
    well = Process(name=name, state="RUNNING", pid=7, started=NOW - 60 * SECOND, report=report)
    return msgspec.structs.replace(well, **changes)


def snapshot(*changed: Process, **changes: Any) -> Snapshot:
    by_name = {name: process(name) for name in NAMES} | {one.name: one for one in changed}
    well = Snapshot(
        at=NOW,
        supervisor_error=None,
        processes=tuple(by_name.values()),
        redis=Redis(version="9.1.2", used_memory=10, budget=100, policy="noeviction", persistent=True),
        postgres=Postgres(bytes=1),
        disk_free=2 * DISK_FREE,
    )
    return msgspec.structs.replace(well, **changes)


def ingest(**details: Any) -> Process:
    return with_report("ingest-okx", details=details_of("ingest-okx", NOW) | details)


def normalize(**changes: Any) -> Process:
    """BTC-USDT as normalize sees it, changed; ETH-USDT well."""
    rows = {"BTC-USDT": seen("BTC-USDT", NOW, **changes), "ETH-USDT": seen("ETH-USDT", NOW)}
    return with_report("normalize-okx", details={"partitions": {"okx": {"subscriptions": rows}}})


def with_report(name: str, **changes: Any) -> Process:
    return process(name, report=msgspec.structs.replace(report_of(name, NOW), **changes))


def redis(**changes: Any) -> Snapshot:
    return snapshot(redis=msgspec.structs.replace(snapshot().redis, **changes))


def growing(rate: float | None) -> Postgres:
    """Bytes a day."""
    return Postgres(bytes=1, sizes={"database": Size(bytes=1, growth=rate)})


GIB = 1024**3
KINDS = {"orderbook": "books", "quote": "bbo-tbt", "ticker": "tickers", "kline": "candle1m"}
ALL_KINDS = given(
    exchanges={
        "okx": settings_module.ExchangeSettings(
            trading_pairs=(
                settings_module.TradingPair(symbol="BTC-USDT", data_types=("trade", "candle", *KINDS)),
                settings_module.TradingPair(symbol="ETH-USDT"),
            )
        )
    }
)


def everything(wants: Any = None, requests: Any = None, **changed: dict[str, Any]) -> Snapshot:
    """BTC-USDT with all kinds, those named changed as normalize sees them; ETH-USDT with trades."""
    asking = asked()
    for kind, channel in KINDS.items():
        asking |= of_kind("BTC-USDT", kind, channel)
    latest = {
        kind: {"BTC-USDT": told("BTC-USDT", NOW, **changed.get(kind, {}))} for kind in KINDS if kind != "orderbook"
    }
    partition = {
        "subscriptions": {
            "BTC-USDT": seen("BTC-USDT", NOW, **changed.get("trade", {})),
            "ETH-USDT": seen("ETH-USDT", NOW),
        },
        "books": {"BTC-USDT": book("BTC-USDT", NOW, **changed.get("orderbook", {}))},
        "latest": latest,
        "wants": wants or {},
    }
    return snapshot(
        ingest(subscriptions=asking, requests=requests or {}),
        with_report("normalize-okx", details={"partitions": {"okx": partition}}),
    )


def want(since: int, number: int = 2) -> dict[str, Any]:
    key = f"resync BTC-USDT {CONNECTION}"
    return {key: {"what": "resync", "instrument": "BTC-USDT", "number": number, "since": since, "reason": "gap"}}


def invalid(since: int) -> Snapshot:
    return everything(orderbook={"valid": False, "reason": "gap"}, wants=want(since))


def quiet_connection(second: str) -> Snapshot:
    """Two instruments on one connection are silent, on another one BTC-USDT is told of."""
    late = NOW - 301 * SECOND
    rows = {pair: seen(pair, NOW, last_message=late) for pair in ("BTC-USDT", second)}
    asking = asked() | of_kind("BTC-USDT", "quote", "bbo-tbt", conn="other")
    partition = {"subscriptions": rows, "latest": {"quote": {"BTC-USDT": told("BTC-USDT", NOW)}}}
    return snapshot(
        ingest(subscriptions=asking),
        with_report("normalize-okx", details={"partitions": {"okx": partition}}),
    )


WITH_QUOTES = given(
    exchanges={
        "okx": settings_module.ExchangeSettings(
            trading_pairs=(
                settings_module.TradingPair(symbol="BTC-USDT", data_types=("trade", "quote")),
                settings_module.TradingPair(symbol="ETH-USDT"),
            )
        )
    }
)


def silent_everywhere(past: int = 301 * SECOND) -> Process:
    rows = {pair: seen(pair, NOW, last_message=NOW - past) for pair in ("BTC-USDT", "ETH-USDT")}
    return with_report("normalize-okx", details={"partitions": {"okx": {"subscriptions": rows}}})


def old_beats() -> tuple[Process, ...]:
    late = {"beat": NOW - HEARTBEAT_LATE - 1}
    return tuple(
        process(
            name,
            state=None,
            report=None if name in ("redis", "postgres") else msgspec.structs.replace(report_of(name, NOW), **late),
        )
        for name in NAMES
    )


LINK = details_of("ingest-okx", NOW)["connections"][CONNECTION]
STARTED_LONG_AGO = {"started": NOW - START_GRACE - 1}

LOST = Lost(stream="s", group="bot", entries=3, exact=True, since=NOW - SECOND, time=NOW, after="0-0", to="9-0")


def read_by(**outside: Any) -> Stream:
    """A stream with a group of others, on a Redis of 100 bytes."""
    group = Group(name="bot", lag=None, cursor="0-0", outside=True, **outside)
    return Stream(key="md:trade:{okx}", kind="trade", exchange="okx", partition="okx", entries=5, groups=(group,))


BREAKS: dict[str, Callable[[], tuple[Snapshot, str, str | None]]] = {
    "service_stopped": lambda: (snapshot(*old_beats(), supervisor_error="gone"), "service", None),
    "too_many_failed_collectors": lambda: (
        snapshot(*(process(name, state="FATAL") for name in NAMES[:4])),
        "service",
        None,
    ),
    "nothing_collected": lambda: (snapshot(process("ingest-okx", state="FATAL")), "service", None),
    "supervisor_away": lambda: (snapshot(supervisor_error="gone"), "supervisord", None),
    "not_running": lambda: (snapshot(process("store-0", state="EXITED")), "store-0", "store-0"),
    "failing": lambda: (snapshot(process("store-0", state="BACKOFF")), "store-0", "store-0"),
    "parked": lambda: (snapshot(process("store-0", state="EXITED", parked=True)), "store-0", "store-0"),
    "hung": lambda: (snapshot(with_report("store-0", beat=NOW - HEARTBEAT_LATE - 1)), "store-0", "store-0"),
    "stalled": lambda: (
        snapshot(with_report("store-0", stalled=NOW - SECOND, stalled_why="does nothing")),
        "store-0",
        "store-0",
    ),
    "starting": lambda: (snapshot(process("redis", state="STARTING")), "redis", "redis"),
    "stopping": lambda: (snapshot(process("store-0", state="STOPPING")), "store-0", "store-0"),
    "restarts": lambda: (snapshot(process("store-0", attempts=3)), "store-0", "store-0"),
    "waiting": lambda: (snapshot(with_report("store-0", waiting_for="postgres")), "store-0", "store-0"),
    "reconnecting": lambda: (
        snapshot(ingest(connections={CONNECTION: LINK | {"attempts": 5}})),
        CONNECTION,
        "ingest-okx",
    ),
    "no_data": lambda: (snapshot(silent_everywhere()), "okx", "ingest-okx"),
    "silent": lambda: (everything(orderbook={"last_message": NOW - 301 * SECOND}), "okx BTC-USDT", "ingest-okx"),
    "no_match": lambda: (snapshot(ingest(patterns={"*-EUR": 0, "*-USDT": 2})), "okx *-EUR", "ingest-okx"),
    "book_invalid": lambda: (invalid(NOW - BOOK_GRACE - 1), "okx BTC-USDT", "normalize-okx"),
    "want_old": lambda: (everything(wants=want(NOW - WANT_GRACE - 1)), "okx BTC-USDT", "ingest-okx"),
    "refused": lambda: (snapshot(ingest(subscriptions=asked(BTC_USDT="refused"))), "okx BTC-USDT", "ingest-okx"),
    "not_subscribed": lambda: (snapshot(ingest(subscriptions={})), "okx BTC-USDT", "ingest-okx"),
    "open_gaps": lambda: (snapshot(normalize(open_gaps=2, missing=7)), "okx BTC-USDT", "normalize-okx"),
    "clock_skew": lambda: (snapshot(ingest(clock_offset=-CLOCK_SKEW - 1)), "okx", "ingest-okx"),
    "dead_letters": lambda: (redis(dead=DeadLetters(reasons={"bad size": 3})), "dead letters", None),
    "redis_away": lambda: (snapshot(redis=Redis(error="refused")), "redis", "redis"),
    "redis_memory": lambda: (redis(used_memory=61), "redis", "redis"),
    "reader_lost": lambda: (redis(streams=(read_by(lost=LOST),)), "group bot", None),
    "reader_behind": lambda: (redis(streams=(read_by(held=11),)), "group bot", None),
    "redis_evicts": lambda: (redis(policy="allkeys-lru"), "redis", "redis"),
    "redis_version": lambda: (redis(version="6.2.14"), "redis", "redis"),
    "redis_volatile": lambda: (redis(persistent=False), "redis", "redis"),
    "postgres_away": lambda: (snapshot(postgres=Postgres(error="refused")), "postgres", "postgres"),
    "spill_full": lambda: (
        snapshot(with_report("store-0", details={"spill": {"okx": {"trouble": "the bound"}, "binance": {}}})),
        "store-0",
        "store-0",
    ),
    "disk": lambda: (snapshot(disk_free=DISK_FREE - 1), "disk", None),
    "disk_forecast": lambda: (snapshot(data_free=69 * GIB, postgres=growing(10 * GIB)), "disk", None),
    "unexpected": lambda: (snapshot(process("ingest-kraken", expected=False)), "ingest-kraken", "ingest-kraken"),
}

NEARLY: dict[str, Callable[[], Snapshot]] = {
    "half of the processes failed": lambda: snapshot(
        process("ingest-kraken"), *(process(name, state="FATAL") for name in NAMES[:4])
    ),
    "one ingest process of two failed": lambda: snapshot(process("ingest-kraken", state="FATAL")),
    "the oldest good Redis": lambda: redis(version="7.0.15"),
    "a refused pair has nothing to say": lambda: snapshot(
        with_report(
            "ingest-okx",
            started=NOW - 301 * SECOND,
            details=details_of("ingest-okx", NOW) | {"subscriptions": asked(BTC_USDT="refused")},
        ),
        normalize(last_message=None),
    ),
    "a beat just in time": lambda: snapshot(with_report("store-0", beat=NOW - HEARTBEAT_LATE)),
    "no report yet": lambda: snapshot(process("store-0", report=None, started=NOW - SECOND)),
    "restarted less often": lambda: snapshot(process("store-0", attempts=2)),
    "data just in time": lambda: everything(ticker={"last_message": NOW - 300 * SECOND}),
    "a pair that nobody trades": lambda: everything(
        **{kind: {"last_message": NOW - 9_999 * SECOND} for kind in ("trade", "quote", "kline")}
    ),
    "a book that is being repaired": lambda: invalid(NOW - BOOK_GRACE),
    "a want just in time": lambda: everything(wants=want(NOW - WANT_GRACE)),
    "a small skew": lambda: snapshot(ingest(clock_offset=CLOCK_SKEW)),
    "what a group lost long ago": lambda: redis(
        streams=(read_by(lost=msgspec.structs.replace(LOST, time=NOW - TOLD_FOR)),)
    ),
    "a group that holds little": lambda: redis(streams=(read_by(held=10),)),
    "memory at the mark": lambda: redis(used_memory=60),
    "no place to look": lambda: redis(persistent=None, policy=None),
    "just enough disk": lambda: snapshot(disk_free=DISK_FREE),
    "disk enough for a week": lambda: snapshot(data_free=70 * GIB, postgres=growing(10 * GIB)),
    "growth that is not known": lambda: snapshot(data_free=1, postgres=growing(None)),
    "a database elsewhere": lambda: snapshot(data_free=None, postgres=growing(10 * GIB)),
    "a server of the wrong sort of silence": lambda: snapshot(process("redis", report=None)),
    "a stopped process nobody asked for": lambda: snapshot(
        process("ingest-kraken", expected=False, state="STOPPED", report=None)
    ),
}
HARMLESS = {
    "half of the processes failed": {"failing"},
    "one ingest process of two failed": {"failing"},
    "a refused pair has nothing to say": {"refused"},
    "no report yet": {"starting"},
}
"""What each of them does say: the finding beside the one it is near to."""


def settings_of(found: Snapshot) -> Settings:
    """Settings that ask for what the snapshot's ingest subscribes."""
    report = next((one.report for one in found.processes if one.name == "ingest-okx"), None)
    asking = (report.details.get("subscriptions") or {}) if report else {}
    return ALL_KINDS if "books BTC-USDT" in asking else given()


def test_every_rule_has_a_case() -> None:
    assert set(BREAKS) == set(RULES)


def test_all_well_is_healthy() -> None:
    verdict = judge(snapshot(), given())
    assert (verdict.status, verdict.reasons) == ("healthy", ())
    assert {one.status for one in verdict.processes.values()} == {"running"}
    assert verdict.since == NOW


@pytest.mark.parametrize("code", BREAKS)
def test_a_rule_finds_what_it_is_for(code: str) -> None:
    broken, subject, process_name = BREAKS[code]()
    verdict = judge(broken, settings_of(broken))
    reason = next(reason for reason in verdict.reasons if reason.code == code)
    assert (reason.subject, reason.process) == (subject, process_name)
    assert reason.text
    overall = RULES[code].overall
    assert verdict.status == ("healthy" if overall == "notice" else overall) or code == "too_many_failed_collectors"
    if process_name is not None:
        level = RULES[code].process
        assert verdict.processes[process_name].level == ("healthy" if level == "notice" else level)


@pytest.mark.parametrize("case", NEARLY)
def test_a_rule_leaves_alone_what_is_within_its_bound(case: str) -> None:
    broken = NEARLY[case]()
    codes = {reason.code for reason in judge(broken, settings_of(broken)).reasons}
    assert codes == HARMLESS.get(case, set())


def test_more_than_half_failed_is_unhealthy() -> None:
    broken, *_ = BREAKS["too_many_failed_collectors"]()
    verdict = judge(broken, given())
    assert verdict.status == "unhealthy"
    assert verdict.reasons[0].code == "too_many_failed_collectors"
    assert "4 of 7" in verdict.reasons[0].text


def test_nothing_else_is_said_of_a_stopped_service() -> None:
    broken, *_ = BREAKS["service_stopped"]()
    verdict = judge(broken, given())
    assert [reason.code for reason in verdict.reasons] == ["service_stopped"]
    assert verdict.since == NOW - HEARTBEAT_LATE - 1
    assert {one.status for one in verdict.processes.values()} == {"stopped"}


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"state": "STARTING"}, "starting"),
        ({"state": "STOPPED"}, "stopped"),
        ({"state": "EXITED"}, "stopped"),
        ({"state": "FATAL"}, "error"),
        ({"state": "EXITED", "parked": True}, "parked"),
        ({"attempts": 3}, "degraded"),
        ({}, "running"),
    ],
)
def test_states_of_a_process(changed: dict[str, Any], status: str) -> None:
    assert judge(snapshot(process("aggregate-0", **changed)), given()).processes["aggregate-0"].status == status


def test_thresholds_come_from_the_settings() -> None:
    quiet = given(collection_settings=CollectionSettings(max_silence_duration=10.0))
    late = snapshot(silent_everywhere(10 * SECOND + 1))
    assert "no_data" in {reason.code for reason in judge(late, quiet).reasons}
    assert judge(late, given()).status == "healthy"
    careless = given(redis=RedisSettings(accept_eviction=True))
    assert judge(redis(policy="allkeys-lru"), careless).status == "healthy"


def test_a_connection_on_which_all_is_silent_is_named() -> None:
    reasons = judge(quiet_connection("ETH-USDT"), WITH_QUOTES).reasons
    assert [(reason.code, reason.subject) for reason in reasons] == [("silent", CONNECTION)]
    assert "2 subscriptions" in reasons[0].text


def test_every_silent_kind_is_named() -> None:
    late = {"last_message": NOW - 301 * SECOND}
    reasons = judge(everything(orderbook=late, ticker=late, trade=late), ALL_KINDS).reasons
    assert [reason.text for reason in reasons] == ["no orderbook", "no ticker"]


def test_a_book_that_is_wanted_for_long_says_what_became_of_it() -> None:
    key = next(iter(want(0)))
    since = NOW - WANT_GRACE - 1
    for number, told_of in ((2, "refused: HTTP 429"), (1, "not asked for")):
        requests = {key: {"number": number, "state": "refused", "reason": "HTTP 429"}}
        (reason,) = judge(everything(wants=want(since), requests=requests), ALL_KINDS).reasons
        assert reason.text.endswith(told_of)
        assert reason.since == since


def test_a_pattern_gives_the_rows_of_what_it_matches() -> None:
    from pipeline.subscriptions import subscriptions

    pattern = settings_module.TradingPair(symbol="*-usdt", data_types=("trade", "orderbook"))
    wanted = given(exchanges={"okx": settings_module.ExchangeSettings(trading_pairs=(pattern,))})
    asking: dict[str, Any] = {}
    for pair in ("BTC-USDT", "ETH-USDT"):
        asking |= of_kind(pair, "trade", "trades-all", wanted="*-usdt")
        asking |= of_kind(pair, "orderbook", "books", wanted="*-usdt")
    asking |= of_kind("SOL-USDC", "trade", "trades-all", wanted="SOL-USDC")
    partition = {"subscriptions": {"BTC-USDT": seen("BTC-USDT", NOW)}, "books": {"BTC-USDT": book("BTC-USDT", NOW)}}
    found = snapshot(
        ingest(subscriptions=asking, patterns={"*-usdt": 2}),
        with_report("normalize-okx", details={"partitions": {"okx": partition}}),
    )
    rows = subscriptions(found, wanted)
    assert [(row.symbol, row.kind, row.state) for row in rows] == [
        ("BTC-USDT", "trade", "subscribed"),
        ("BTC-USDT", "orderbook", "subscribed"),
        ("ETH-USDT", "trade", "subscribed"),
        ("ETH-USDT", "orderbook", "subscribed"),
    ]
    assert [row.book is not None and row.book.valid for row in rows] == [False, True, False, False]
    assert judge(found, wanted).status == "healthy"


def test_candles_have_the_row_of_their_trades_and_klines_one() -> None:
    from pipeline.subscriptions import subscriptions

    rows = [row for row in subscriptions(everything(), ALL_KINDS) if row.symbol == "BTC-USDT"]
    assert [row.kind for row in rows] == ["trade", "orderbook", "quote", "ticker", "kline"]
    bars = of_kind("BTC-USDT", "kline", "candle1m") | of_kind("BTC-USDT", "kline", "candle1s", state="refused")
    pair = settings_module.TradingPair(symbol="BTC-USDT", data_types=("kline",))
    wanted = given(exchanges={"okx": settings_module.ExchangeSettings(trading_pairs=(pair,))})
    (row,) = subscriptions(snapshot(ingest(subscriptions=bars)), wanted)
    assert row.state == "refused", "as good as its worst channel"


def test_reports_of_an_older_version_are_enough() -> None:
    asking = {key: {k: v for k, v in row.items() if k not in ("kinds", "wanted")} for key, row in asked().items()}
    rows = {pair: seen(pair, NOW) for pair in ("BTC-USDT", "ETH-USDT")}
    found = snapshot(
        with_report("ingest-okx", details={"subscriptions": asking}),
        with_report("normalize-okx", details={"partitions": {"okx": {"subscriptions": rows}}}),
    )
    assert judge(found, given()).status == "healthy"


def test_gaps_of_the_ledger_count_when_normalize_knows_of_none() -> None:
    found = snapshot(postgres=Postgres(bytes=1, open_gaps={("okx", "ETH-USDT"): 1}))
    verdict = judge(found, given())
    assert [(reason.code, reason.subject) for reason in verdict.reasons] == [("open_gaps", "okx ETH-USDT")]


def test_a_pair_may_be_named_as_the_exchange_does() -> None:
    pair = settings_module.TradingPair(symbol="btc-usdt-swap")
    wanted = given(exchanges={"okx": settings_module.ExchangeSettings(trading_pairs=(pair,))})
    row = seen("BTC-USDT-PERP", NOW)
    both = (
        with_report("normalize-okx", details={"partitions": {"okx": {"subscriptions": {"BTC-USDT-SWAP": row}}}}),
        ingest(
            subscriptions=of_kind(
                "BTC-USDT-SWAP", "trade", "trades-all", wanted="btc-usdt-swap", symbol="BTC-USDT-PERP"
            )
        ),
    )
    assert judge(snapshot(*both), wanted).status == "healthy"


def test_since_is_kept_while_the_status_stays() -> None:
    first = judge(snapshot(disk_free=0), given())
    later = msgspec.structs.replace(snapshot(disk_free=0), at=NOW + 5 * SECOND)
    second = judge(later, given(), first)
    assert (second.since, second.reasons[0].since, second.at) == (NOW, NOW, NOW + 5 * SECOND)
    well = msgspec.structs.replace(snapshot(), at=NOW + 9 * SECOND)
    assert judge(well, given(), second).since == NOW + 9 * SECOND


def test_since_is_when_a_finding_began_where_that_is_known() -> None:
    ended = process("store-0", state="EXITED", stopped=NOW - 40 * SECOND)
    assert judge(snapshot(ended), given()).since == NOW - 40 * SECOND
    seen_well = judge(msgspec.structs.replace(snapshot(), at=NOW - 10 * SECOND), given())
    assert judge(snapshot(ended), given(), seen_well).since == NOW - 10 * SECOND


def test_a_verdict_survives_its_file() -> None:
    verdict = judge(snapshot(process("store-0", state="FATAL"), disk_free=0), given())
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_the_table_of_the_docs_is_the_table_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "status.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \| (\w+) \| (.+) \|$", text, re.MULTILINE)
    assert {code: (process, overall, when) for code, process, overall, when in rows} == {
        code: tuple(rule) for code, rule in RULES.items()
    }
