"""`pipeline gaps` on the real ledger."""

import json
from typing import Any

import psycopg
import pytest

from store.prepare import prepare
from tests.commands.conftest import Instance
from tests.commands.test_status import insert_gap


@pytest.fixture
def ledger(away: Instance, database_url: str) -> Instance:
    """Two gaps, one of them closed; Redis is not needed."""
    away.environment["DATABASE_URL"] = database_url
    prepare(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO instruments (exchange, instrument, symbol)"
            " VALUES ('okx', 'BTC-USDT-SWAP', 'BTC-USDT-PERP'), ('okx', 'ETH-USDT', NULL)"
        )
        insert_gap(connection, from_sequence=10, state="closed")
        insert_gap(connection, from_sequence=20, state="shrunk")
        connection.execute("UPDATE trade_gaps SET received = now() - interval '2 days' WHERE from_sequence = 10")
    return away


def listed(ledger: Instance, *arguments: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(ledger.run("gaps", "--json", *arguments).stdout)
    return rows


def test_open_gaps_are_1(ledger: Instance) -> None:
    result = ledger.run("gaps")
    assert result.exit_code == 1
    assert "okx BTC-USDT-PERP  20-24" in result.stdout
    assert "2 gaps, 1 open with 4 trades missing" in result.stdout.replace("\n           ", " ")
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_all_closed_is_0(ledger: Instance, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE trade_gaps SET state = 'closed', remaining = '{}'")
    assert ledger.run("gaps").exit_code == 0
    result = ledger.run("gaps", "--open")
    assert (result.exit_code, result.stdout) == (0, "no gaps\n")


def test_json_says_which_numbers_are_missing(ledger: Instance) -> None:
    row = next(row for row in listed(ledger) if row["state"] == "shrunk")
    assert (row["from_sequence"], row["to_sequence"]) == (20, 24)
    assert (row["missing"], row["remaining"]) == (4, [[20, 22], [24, 24]])
    assert row["from_time"].endswith("Z")


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        ([], {10, 20}),
        (["--open"], {20}),
        (["--exchange", "OKX"], {10, 20}),
        (["--exchange", "kraken"], set()),
        (["--symbol", "btc-usdt-perp"], {10, 20}),
        (["--symbol", "BTC-USDT-SWAP"], {10, 20}),
        (["--symbol", "ETH-USDT"], set()),
        (["--since", "24h"], {20}),
        (["-n", "1"], {20}),
    ],
)
def test_filters(ledger: Instance, arguments: list[str], numbers: set[int]) -> None:
    assert {row["from_sequence"] for row in listed(ledger, *arguments)} == numbers


def test_a_limit_says_that_it_cut(ledger: Instance) -> None:
    result = ledger.run("gaps", "-n", "1")
    assert "more than 1 match" in result.stderr
    assert result.exit_code == 1


def tell(database_url: str, from_sequence: int, **columns: Any) -> None:
    """Changes a row of the ledger."""
    assignments = ", ".join(f"{name} = %({name})s" for name in columns)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            f"UPDATE trade_gaps SET {assignments} WHERE from_sequence = {from_sequence}".encode(), columns
        )


@pytest.fixture
def every_outcome(ledger: Instance, database_url: str) -> Instance:
    """One gap of each."""
    with psycopg.connect(database_url) as connection:
        for number in (30, 40, 50):
            insert_gap(connection, from_sequence=number, state="closed")
    tell(database_url, 30, remaining="{}", reason="reordered", repaired=5)
    tell(database_url, 40, remaining="{[40,42)}", reason="unrecoverable: the exchange does not have them")
    tell(database_url, 50, remaining="{}", cause="epoch", reason="numbers leapt", repaired=0, to_sequence=50)
    tell(database_url, 10, remaining="{}", reason="filled")
    return ledger


def test_outcomes_are_told_apart(every_outcome: Instance) -> None:
    found = {row["from_sequence"]: row["outcome"] for row in listed(every_outcome)}
    assert found == {10: "filled", 20: "open", 30: "reordered", 40: "unrecoverable", 50: "epoch"}
    shown = every_outcome.run("gaps").stdout
    assert "reason   the exchange does not have them" in shown
    assert "from 50" in shown
    words = " ".join(shown.split())
    assert "4 gaps, 1 open with 4 trades missing" in words
    assert "1 were reordering; 2 trades of 1 gaps are lost for good; numbers began again 1 times" in words
    assert max(map(len, shown.splitlines())) <= 80


def test_lost_trades_alone_are_0(every_outcome: Instance) -> None:
    result = every_outcome.run("gaps", "--outcome", "unrecoverable", "--outcome", "epoch", "--json")
    assert {row["from_sequence"] for row in json.loads(result.stdout)} == {40, 50}
    assert result.exit_code == 0


def test_the_progress_of_a_repair_is_shown(ledger: Instance) -> None:
    key = "trades BTC-USDT-SWAP 0 20"
    row = {"number": 2, "state": "asked", "reason": None, "done": 1, "wanted": 4, "pages": 1, "rate": 12.5}
    told = row | {"left": 3.0, "deadline": 1_800_000_000_000_000_000, "late": True}
    ledger.report("ingest-okx", details={"requests": {key: told, "snapshot BTC-USDT-SWAP": {"state": "asked"}}})
    open_one, closed = listed(ledger, "--open")[0], next(row for row in listed(ledger) if row["state"] == "closed")
    assert closed["repair"] is None
    assert open_one["repair"] == {
        "state": "asked",
        "reason": None,
        "done": 1,
        "wanted": 4,
        "pages": 1,
        "rate": 12.5,
        "seconds_left": 3.0,
        "forgotten_at": "2027-01-15T08:00:00.000000Z",
        "late": True,
    }
    words = " ".join(ledger.run("gaps").stdout.split())
    assert "fetching asked, 1 of 4 numbers, 12.5 a second, 3.0s left, the exchange forgets them before that" in words


def test_what_waits_to_be_fetched_again_says_why(ledger: Instance) -> None:
    want = {"what": "trades", "instrument": "BTC-USDT-SWAP", "number": 2, "since": 0, "reason": "gap"}
    again = {"trades BTC-USDT-SWAP 0 20": want | {"waits": 5_000_000_000, "answer": "repair is off"}}
    ledger.report("normalize-okx", details={"partitions": {"okx": {"wants": again}}})
    (repair,) = [row["repair"] for row in listed(ledger, "--open")]
    assert (repair["state"], repair["reason"], repair["done"]) == ("waiting", "repair is off", None)
    assert "fetching waiting: repair is off" in " ".join(ledger.run("gaps").stdout.split())


def test_every_field_is_documented(ledger: Instance) -> None:
    from tests.commands.test_status import DOCS

    section = DOCS.read_text().split("## `gaps --json`")[1]
    assert all(f"`{field}`" in section for field in listed(ledger)[0])


def test_a_database_without_a_ledger_is_no_clean_bill(away: Instance, database_url: str) -> None:
    away.environment["DATABASE_URL"] = database_url
    result = away.run("gaps")
    assert result.exit_code == 1
    assert "no ledger of gaps yet" in result.stderr
