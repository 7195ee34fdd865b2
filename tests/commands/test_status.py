"""`pipeline status` and `health` on real servers: what they show, in which form, and that nothing hangs them."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis as redis_client

from pipeline.losses import Lost, lost_field
from pipeline.probes import postgres as probe
from pipeline.snapshot import gather
from pipeline.streams import Keys, index_key, progress_key
from pipeline.supervisor import Supervisor
from store.prepare import prepare
from tests.commands.conftest import (
    CONNECTION,
    PROCESSES,
    SECOND,
    Instance,
    asked,
    book,
    details_of,
    of_kind,
    report_of,
    seen,
    told,
)
from tests.servers import PostgresServer, RedisServer, wait_until

KEYS = Keys("md", "okx")
DOCS = Path(__file__).parents[2] / "docs" / "status.md"
MAPS = {
    "newest",
    "time_since_newest",
    "counters",
    "rates",
    "reasons",
    "patterns",
    "budgets",
    "kept_since",
    "days",
    "held",
}
"""Objects whose keys are not fields: tables, counters, reasons of dead letters, patterns, allowances."""


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_client.Redis.from_url(redis_server.url) as connection:
        yield connection


@pytest.fixture
def well(instance: Instance, supervisor: Supervisor) -> Instance:
    """Supervisord runs everything, everything reports, the servers answer."""
    assert supervisor.answers()
    instance.report_all()
    return instance


def document(instance: Instance, *arguments: str) -> dict[str, Any]:
    result = instance.run("status", "--json", *arguments)
    assert result.stdout, result.exception or result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def codes(whole: dict[str, Any]) -> set[str]:
    return {reason["code"] for reason in whole["reasons"]}


def test_all_well_is_0(well: Instance) -> None:
    result = well.run("status")
    assert result.exit_code == 0, result.output
    assert "HEALTHY" in result.stdout
    assert str(well.path) in result.stdout.replace("\n           ", "")
    assert "namespace  md, live" in result.stdout


def test_a_process_that_ended_is_1_and_named(instance: Instance, supervisor: Supervisor) -> None:
    instance.report_all()
    supervisor.stop("store-0")
    wait_until(lambda: supervisor.programs()["store-0"].state == "STOPPED", "the program to stop")
    result = instance.run("status")
    assert result.exit_code == 1
    assert re.search(r"^store-0 +stopped", result.stdout, re.MULTILINE)
    assert instance.run("health").exit_code == 0
    assert instance.run("health", "--strict").exit_code == 1
    assert instance.run("health", "store-0").exit_code == 3
    assert instance.run("health", "aggregate-0").exit_code == 0
    assert instance.run("status", "store-0").exit_code == 3


def test_a_late_heartbeat_counts_although_supervisord_says_running(well: Instance) -> None:
    well.report("aggregate-0", beat=time.time_ns() - 40 * SECOND)
    whole = document(well)
    row = whole["processes"]["aggregate-0"]
    assert row["supervisor_state"] == "RUNNING"
    assert row["health"]["time_since_heartbeat"] >= 40
    # Within the grace after the program's start it is starting, later it hangs; test_health has the border.
    assert (row["status"], codes(whole)) in (("starting", {"starting"}), ("error", {"hung"}))
    assert whole["status"] == "degraded"


def test_nothing_running_is_3_with_the_command_to_type(away: Instance) -> None:
    result = away.run("status")
    assert result.exit_code == 3
    assert "STOPPED" in result.stdout
    assert "pipeline up" in result.stdout
    assert away.run("health").exit_code == 3
    assert not away.settings.run_dir.exists(), "a look at what never ran leaves nothing behind"


def test_a_stopped_redis_holds_nothing_up(well: Instance, redis_server: RedisServer) -> None:
    redis_server.pause()
    try:
        result, whole = well.run("status"), document(well)
    finally:
        redis_server.resume()
    assert result.exit_code == 3
    assert codes(whole) == {"redis_away"}
    assert whole["redis"]["error"]
    assert whole["postgres"]["bytes"] > 0
    assert {name: row["status"] for name, row in whole["processes"].items()} == dict.fromkeys(PROCESSES, "running")
    assert document(well)["redis"]["error"] is None, "it answers again"


def test_unreachable_servers_hold_nothing_up(away: Instance) -> None:
    away.report_all()
    whole = document(away)
    assert codes(whole) == {"redis_away", "postgres_away", "supervisor_away"}
    assert whole["status"] == "unhealthy"
    assert whole["exchanges"]["okx"]["subscriptions"][0]["trades"] == 600


def test_a_stopped_postgres_holds_nothing_up(well: Instance, own_postgres: PostgresServer) -> None:
    well.environment["DATABASE_URL"] = own_postgres.url
    well.report_all()
    own_postgres.pause()
    try:
        result, whole = well.run("status"), document(well)
    finally:
        own_postgres.resume()
    assert result.exit_code == 1
    assert codes(whole) == {"postgres_away"}
    assert whole["redis"]["error"] is None


def test_a_stopped_supervisord_holds_nothing_up(instance: Instance, supervisor: Supervisor) -> None:
    pid = supervisor.pid()
    instance.report_all()
    os.kill(pid, signal.SIGSTOP)
    try:
        whole = document(instance)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert codes(whole) == {"supervisor_away"}
    assert whole["processes"]["ingest-okx"]["supervisor_state"] is None
    assert whole["processes"]["ingest-okx"]["is_running"] is True


def test_facts_of_redis(well: Instance, client: Any) -> None:
    client.hset(index_key("md"), KEYS.trade, json.dumps({"kind": "trade", "exchange": "okx", "partition": "okx"}))
    for number in range(30):
        client.xadd(KEYS.trade, {"symbol": "BTC-USDT", "data": number})
        client.xadd(KEYS.trade, {"control": "clock", "data": number})
    client.xgroup_create(KEYS.trade, "aggregate", id="0")
    for reason in ("bad size", "bad size", "unknown instrument"):
        client.xadd(KEYS.dead, {"reason": reason, "data": "{}"})
    client.xadd(KEYS.dead, {"reason": "long ago", "data": "{}"}, id=f"{int(time.time() * 1000) + 1}-0")
    whole = document(well)
    assert whole["dead_letters"]["reasons"]["bad size"] == 2
    assert whole["dead_letters"]["last_hour"] == 4
    assert codes(whole) == {"dead_letters"}
    assert "bad size" in whole["reasons"][0]["text"]
    rows = {row["symbol"]: row for row in whole["exchanges"]["okx"]["subscriptions"]}
    assert rows["BTC-USDT"]["rate"] > 0
    assert rows["ETH-USDT"]["rate"] == 0
    assert whole["processes"]["aggregate-0"]["lag"] == 60
    assert whole["redis"]["used_bytes"] > 0
    assert whole["redis"]["budget_bytes"] == 256 * 1024**2
    assert whole["redis"]["persistent"] is True


def test_dead_letters_of_yesterday_do_not_count(well: Instance, client: Any) -> None:
    client.xadd(KEYS.dead, {"reason": "bad size", "data": "{}"}, id=f"{int(time.time() * 1000) - 3_700_000}-0")
    assert document(well)["dead_letters"]["last_hour"] == 0


def test_an_evicting_redis_is_named(well: Instance, client: Any) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("appendonly", "no")
    whole = document(well)
    assert codes(whole) == {"redis_evicts", "redis_volatile"}
    assert [reason["level"] for reason in whole["reasons"]] == ["degraded", "notice"]


def test_reports_of_other_machines_come_from_redis(instance: Instance, client: Any) -> None:
    import msgspec

    for name in PROCESSES:
        client.hset(progress_key("md"), name, msgspec.json.encode(report_of(name, time.time_ns())))
    whole = document(instance)
    assert codes(whole) == {"supervisor_away"}
    assert whole["processes"]["store-0"]["is_running"] is True


def test_facts_of_postgres(well: Instance, database_url: str) -> None:
    import psycopg

    prepare(database_url)
    well.report_all()
    assert document(well)["postgres"]["newest"] == {}
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO instruments (exchange, instrument, symbol) VALUES ('okx', 'BTC-USDT', 'BTC-USDT')"
        )
        connection.execute(
            "INSERT INTO coverage (instrument_id, entry_ms, entry_seq, time, received, partition, state, cause)"
            " VALUES (1, 1, 1, now(), now(), 'okx', 'covered', 'open')"
        )
        insert_gap(connection, from_sequence=10, state="opened")
        insert_gap(connection, from_sequence=20, state="closed")
    well.report_all()
    whole = document(well)
    assert set(whole["postgres"]["newest"]) == {"coverage", "trade_gaps"}
    assert whole["postgres"]["time_since_newest"]["coverage"] < 60
    assert codes(whole) == {"open_gaps"}
    rows = {row["symbol"]: row["open_gaps"] for row in whole["exchanges"]["okx"]["subscriptions"]}
    assert rows == {"BTC-USDT": 1, "ETH-USDT": 0}


def test_growth_is_measured_over_a_day_or_not_said(well: Instance, database_url: str) -> None:
    import psycopg

    prepare(database_url)
    assert document(well)["postgres"]["growth_bytes_per_day"] is None
    assert "growth not measured yet" in well.run("status").stdout
    with psycopg.connect(database_url, autocommit=True) as connection:
        # 5000 bytes were there a day and a half ago; 2000 of them were dropped since, and 10000 came.
        connection.execute(
            "INSERT INTO sizes (kind, at, bytes, dropped, since) VALUES"
            " ('trade', now() - interval '36 hours', 5000, 100, now() - interval '5 days'),"
            " ('trade', now() - interval '12 hours', 8000, 100, now() - interval '5 days'),"
            " ('trade', now(), 13000, 2100, now() - interval '5 days'),"
            " ('database', now() - interval '23 hours', 1, 0, NULL), ('database', now(), 20000, 2100, NULL)"
        )
        connection.execute(
            "INSERT INTO dropped VALUES ('trade', '2026-01-01Z', '2026-01-02Z', 2000, now()),"
            " ('trade', '2026-01-03Z', '2026-01-04Z', 100, now())"
        )
        facts = probe.read(well.settings)
        assert facts.sizes["trade"].growth == pytest.approx(10_000 / 1.5)
        assert facts.sizes["database"].growth is None, "less than a day"
        connection.execute("UPDATE sizes SET at = at - interval '2 hours' WHERE bytes = 1")
        told = document(well)["postgres"]
        assert told["growth_bytes_per_day"] == pytest.approx(22_099 * 24 / 25, abs=1)
        assert (told["kept_since"], told["dropped_bytes"]) == ({"trade": "2026-01-04T00:00:00.000000Z"}, 2100)
        # A store that has not measured for a day says nothing of today.
        connection.execute("UPDATE sizes SET at = at - interval '27 hours'")
        assert document(well)["postgres"]["growth_bytes_per_day"] is None


def test_room_is_looked_for_where_our_own_database_lies(instance: Instance, tmp_path: Path) -> None:
    assert gather(instance.settings).data_free is None, "the server may be on another host"
    del instance.environment["DATABASE_URL"]
    instance.settings.state_dir.mkdir(parents=True, exist_ok=True)
    (instance.settings.state_dir / "postgres").symlink_to(tmp_path)
    found = gather(instance.settings).data_free
    assert found is not None
    assert found > 0


def test_what_is_not_kept_for_ever_is_shown(well: Instance, database_url: str) -> None:
    prepare(database_url)
    well.write(retention={"days": {"trade": 90, "candle_seconds": 7}})
    held = {"trades_20260101": "an open gap, or one closed within the last hour"}
    row = {"dropped": 3, "last_dropped": 1_700_000_000 * SECOND, "held": held, "trouble": None}
    well.report_all()
    well.report("store-0", details={"retention": row})
    told = document(well)["retention"]
    assert told["days"] == {"trade": 90, "candle_seconds": 7}
    assert (told["dropped"], told["last_dropped"], told["held"]) == (3, "2023-11-14T22:13:20.000000Z", held)
    page = " ".join(well.run("status").stdout.split())
    assert "kept trade 90 days; candle_seconds 7 days; too old, but stays: trades_20260101 (an open gap" in page


async def test_the_newest_rows_of_the_new_kinds(well: Instance, database_url: str) -> None:
    from tests.store import made

    made.ready(database_url)
    now = time.time_ns()
    late = now - 3 * 24 * 3_600 * SECOND
    minute = now - now % (60 * SECOND)
    await made.write(
        database_url,
        *(made.quote(1, instrument=name, symbol=name, received=now - 5 * SECOND) for name in ("BTC-USDT", "ETH-USDT")),
        made.quote(2, instrument="ETH-USDT", symbol="ETH-USDT", received=now - 2 * SECOND),
        made.ticker(1, received=late),
        made.book(1, received=now, snapshot_time=now),
        made.kline(1, received=now, open_time=minute, close_time=minute + 60 * SECOND),
    )
    well.report_all()
    found = document(well)["postgres"]
    assert found["error"] is None
    assert found["time_since_newest"]["quotes"] < 5
    assert {"orderbooks", "klines"} <= set(found["newest"])
    assert "tickers" not in found["newest"], "not within two days"


def insert_gap(connection: Any, *, from_sequence: int, state: str) -> None:
    last = from_sequence + 4
    remaining = "{}" if state == "closed" else f"{{[{from_sequence},{from_sequence + 3}),[{last},{last + 1})}}"
    connection.execute(
        "INSERT INTO trade_gaps (instrument_id, epoch, from_sequence, to_sequence, from_time, to_time, cause, state,"
        " repaired, remaining, opened, time, received, entry_ms, entry_seq)"
        " VALUES (1, 0, %s, %s, now(), now(), 'sequence', %s, %s, %s, now(), now(), now(), 1, 1)",
        (from_sequence, last, state, 5 if state == "closed" else 1, remaining),
    )


def test_since_when_outlives_the_command(well: Instance) -> None:
    well.report("store-0", waiting_for="postgres")
    first, second = document(well), document(well)
    assert first["status"] == "degraded"
    assert (second["since"], second["reasons"][0]["since"]) == (first["since"], first["reasons"][0]["since"])
    assert second["at"] > first["at"]
    well.report("store-0")
    assert document(well)["since"] > second["at"]


def test_an_exchange_shows_each_subscription(well: Instance) -> None:
    now = time.time_ns()
    details = details_of("ingest-okx", now) | {"subscriptions": asked(ETH_USDT="refused")}
    well.report("ingest-okx", details=details)
    result = well.run("status", "okx")
    assert result.exit_code == 1
    assert re.search(r"^BTC-USDT +trade +\S+ +\S+ +2 +complete since \d{4}", result.stdout, re.MULTILINE)
    assert "ETH-USDT trade refused: 60018 no such channel" in result.stdout
    part = document(well, "okx")
    assert part["symbols"] == ["BTC-USDT", "ETH-USDT"]
    assert part["websocket_stats"] == {"reconnections": 1, "pings_sent": 3, "pongs_received": 3}


def test_ingest_shows_its_connections(well: Instance) -> None:
    result = well.run("status", "ingest-okx")
    assert "wss://ws.okx.com/ws/v5/public#1" in result.stdout
    assert "1 reconnects, pings 3/3" in result.stdout


def test_an_unknown_name_is_2_with_the_nearest(well: Instance) -> None:
    result = well.run("status", "ingest-okc")
    assert result.exit_code == 2
    assert "'ingest-okx'" in result.stderr


def crowd(instance: Instance, count: int = 12) -> None:
    """Everything that is long or many: errors, paths, gaps, symbols, numbers."""
    now = time.time_ns()
    symbols = [f"VERYLONGBASE{number:03d}-USDT-261225-90000-C" for number in range(count)]
    instance.write(exchanges={"okx": {"trading_pairs": [{"symbol": symbol} for symbol in symbols]}})
    instance.report_all()
    rows = {s: seen(s, now, open_gaps=12_345, missing=10**12, duplicates=10**9) for s in symbols}
    instance.report("normalize-okx", details={"partitions": {"okx": {"subscriptions": rows}}})
    text = "wss://ws.okx.com:443/ws/v5/public#12 ended: 1006 " + "no reason given " * 20
    instance.report("ingest-okx", errors=10**7, last_error=text, last_error_at=now, rates={"written": 123_456.7})


@pytest.mark.parametrize("name", ["", "okx", "ingest-okx", "normalize-okx"])
def test_no_line_is_longer_than_80_columns(well: Instance, name: str) -> None:
    crowd(well)
    result = well.run("status", *([name] if name else []))
    assert "VERYLONGBASE" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "\x1b" not in result.stdout


def test_a_terminal_gets_colour_and_a_pipe_does_not(well: Instance) -> None:
    piped = well.start("status")
    plain, _ = piped.communicate(timeout=60)
    assert piped.returncode == 0
    assert "\x1b" not in plain
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pipeline", "-c", str(well.path), "status"]
    environment = {**os.environ, **well.environment, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(command, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert process.wait(60) == 0
    assert b"\x1b[" in os.read(ours, 65_536)
    os.close(ours)


def test_watch_goes_on_until_interrupted(well: Instance) -> None:
    process = well.start("status", "--watch", "0.5")
    assert process.stdout is not None
    seen_twice = 0
    for line in process.stdout:
        seen_twice += line.startswith("tapeline ")
        if seen_twice == 2:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors


def collect_all_kinds(instance: Instance) -> None:
    """A pair with every kind, its book broken for 30 s and wanted; and a pattern that matches one more."""
    now = time.time_ns()
    channels = {"orderbook": "books", "quote": "bbo-tbt", "ticker": "tickers", "kline": "candle1m"}
    pairs = [{"symbol": "BTC-USDT", "data_types": ["trade", *channels]}, {"symbol": "*-USDT"}]
    instance.write(exchanges={"okx": {"trading_pairs": pairs}})
    instance.report_all()
    asking = asked()
    asking["trades-all ETH-USDT"]["wanted"] = "*-USDT"
    for kind, channel in channels.items():
        asking |= of_kind("BTC-USDT", kind, channel)
    key, since = f"resync BTC-USDT {CONNECTION}", now - 30 * SECOND
    want = {"what": "resync", "instrument": "BTC-USDT", "number": 3, "since": since, "reason": "gap"}
    gap = "trades ETH-USDT 0 101"
    missed = {"what": "trades", "instrument": "ETH-USDT", "number": 1, "since": since + SECOND, "reason": "gap"}
    missed |= {"first": 101, "last": 800, "from_time": now - 60 * SECOND, "to_time": now - 50 * SECOND}
    instance.report(
        "ingest-okx",
        details=details_of("ingest-okx", now)
        | {
            "subscriptions": asking,
            "patterns": {"*-USDT": 1},
            "requests": {
                key: {"number": 3, "state": "asked", "reason": None},
                gap: {"number": 1, "state": "asked", "reason": None, "done": 300, "wanted": 700, "pages": 3}
                | {"rate": 100.0, "left": 4.0, "deadline": now + 3_600 * SECOND, "late": True},
            },
            "budgets": {"weight": {"used": 120, "limit": 6000, "period": 60 * SECOND, "held": 2 * SECOND}},
        },
    )
    partition = {
        "subscriptions": {pair: seen(pair, now) for pair in ("BTC-USDT", "ETH-USDT")},
        "books": {"BTC-USDT": book("BTC-USDT", now, valid=False, reason="gap", resyncs=2, invalid=2)},
        "latest": {kind: {"BTC-USDT": told("BTC-USDT", now)} for kind in ("quote", "ticker", "kline")},
        "wants": {key: want, gap: missed},
    }
    instance.report("normalize-okx", details={"partitions": {"okx": partition}})


def test_each_kind_has_a_row_and_what_is_wanted_is_shown(well: Instance, client: Any) -> None:
    collect_all_kinds(well)
    for kind in ("quote", "orderbook"):
        client.xadd(KEYS.stream(kind), {"symbol": "BTC-USDT", "data": "{}"})
    result = well.run("status", "okx")
    assert result.exit_code == 1
    for shown in (
        r"^BTC-USDT +trade .* complete since \d{4}-\d\d-\d\d \d\d:\d\d$",
        r"^BTC-USDT +orderbook .* INVALID: gap, 2 resyncs$",
        r"^BTC-USDT +quote +\S+ +1.0 +1 +subscribed$",
        r"^BTC-USDT +kline +\S+ +- +1 +subscribed$",
        r"^ETH-USDT +trade ",
        r"^pattern +\*-USDT matches 1 instruments$",
        r"^wanted +resync BTC-USDT because of gap, for 30s: asked$",
        r"^wanted +trades ETH-USDT 101-800 because of gap, for 29s: asked, 300 of 700\n? +numbers, 4.0s left, the",
        r"^allowances +weight 120 of 6000 in 1m, nothing goes for 2.0s$",
    ):
        assert re.search(shown, result.stdout, re.MULTILINE), shown
    assert max(map(len, result.stdout.splitlines())) <= 80
    whole = document(well)
    assert codes(whole) == {"book_invalid", "want_old"}
    rows = {(row["symbol"], row["kind"]): row for row in whole["exchanges"]["okx"]["subscriptions"]}
    book_row = rows["BTC-USDT", "orderbook"]
    assert (book_row["book"]["valid"], book_row["book"]["resyncs"], book_row["rate"]) == (False, 2, 1.0)
    assert book_row["book"]["time_invalid"] >= 30
    assert book_row["trades"] is None
    assert rows["BTC-USDT", "quote"]["records"] == 900
    want, missed = whole["exchanges"]["okx"]["wants"]
    assert (want["what"], want["number"], want["state"], want["trades"]) == ("resync", 3, "asked", None)
    assert (missed["trades"]["done"], missed["trades"]["seconds_left"], missed["trades"]["late"]) == (300, 4.0, True)
    assert whole["exchanges"]["okx"]["patterns"] == {"*-USDT": 1}
    assert whole["exchanges"]["okx"]["budgets"]["weight"] == {"used": 120, "limit": 6000, "period": 60.0, "held": 2.0}


def test_many_subscriptions_are_summed_up(well: Instance) -> None:
    crowd(well, 25)
    shown = well.run("status").stdout
    assert "25 subscriptions, 0 refused, trades of 25 of 25 covered" in " ".join(shown.split())


def fields(tree: Any, path: str = "") -> Iterator[str]:
    """The paths of a document's fields, with `[]` for lists and `<…>` left to the docs."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            where = f"{path}.{key}" if path else key
            if isinstance(value, dict) and key in MAPS:
                yield where
            elif isinstance(value, dict | list):
                yield from fields(value, where)
            else:
                yield where
    elif tree and isinstance(tree[0], dict):
        for element in tree:
            yield from fields(element, path + "[]")
    else:
        yield path


def documented() -> set[str]:
    section = DOCS.read_text().split("## `status --json`")[1].split("## `health --json`")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    names = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    return {re.sub(r"\.<\w+>$", "", name) for name in names}


def test_every_json_field_is_documented_and_every_documented_field_is_there(well: Instance, client: Any) -> None:
    client.xadd(KEYS.dead, {"reason": "bad size", "data": "{}"})
    client.xadd(KEYS.trade, {"symbol": "BTC-USDT", "data": "{}"})
    for group in ("bot", "well"):
        client.xgroup_create(KEYS.trade, group, id="0")
    lost = Lost(stream=KEYS.trade, group="bot", entries=3, exact=False, since=1, time=2, after="0-0", to="9-0")
    client.hset(KEYS.lost, lost_field(KEYS.trade, "bot"), msgspec.json.encode(lost))
    collect_all_kinds(well)
    whole = document(well)
    top = {key: value for key, value in whole.items() if key not in ("processes", "exchanges")}
    found = {
        *fields(top),
        *(field for row in whole["processes"].values() for field in fields(row)),
        *(field for row in whole["exchanges"].values() for field in fields(row)),
    }
    assert found == documented()


def test_the_seeds_names_and_types(well: Instance) -> None:
    row = document(well, "okx")
    assert row["exchange"] == "okx"
    assert row["status"] == "running"
    assert row["should_be_running"] is True
    assert row["data_types"] == ["trade"]
    assert row["auto_restart"] is True
    assert 0 <= row["health"]["time_since_heartbeat"] < 60
    assert 0.5 <= row["health"]["time_since_data"] < 60
    assert row["health"]["max_silence_duration"] == 300.0
    assert row["statistics"]["messages_received"] == 5_000
    assert row["statistics"]["messages_processed"] == 5_000
    assert row["statistics"]["reconnect_attempts"] == 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", row["statistics"]["connection_uptime"])
    whole = document(well)
    assert (whole["collectors_total"], whole["collectors_running"], whole["collectors_failed"]) == (5, 5, 0)
    assert whole["configuration"]["total_trading_pairs"] == 2


def test_health_json(well: Instance) -> None:
    whole = json.loads(well.run("health", "--json").stdout)
    assert whole == {"status": "healthy", "reason": None, "since": whole["since"], "is_healthy": True, "issues": []}
    part = json.loads(well.run("health", "ingest-okx", "--json").stdout)
    assert part["is_healthy"] is True
    assert part["is_running"] is True
    assert part["issues"] == []


def test_health_is_one_line(well: Instance, redis_server: RedisServer) -> None:
    assert well.run("health").stdout == "tapeline healthy\n"
    redis_server.kill()
    result = well.run("health")
    assert result.exit_code == 3
    assert result.stdout.count("\n") == 1
    assert result.stdout.startswith("tapeline unhealthy: redis ")
