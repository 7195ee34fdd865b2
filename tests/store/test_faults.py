"""Whose fault a failed write is."""

from collections.abc import Sequence

import psycopg
import pytest

from store.faults import TooManyFaults, fault_of_row, load_sound, most_faults


def refused(database_url: str, statement: str) -> psycopg.Error:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS days (at date NOT NULL, n int CONSTRAINT few CHECK (n < 9))"
            " PARTITION BY RANGE (at)"
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-01-02')"
        )
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(statement.encode())
    return caught.value


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("INSERT INTO days VALUES ('2026-01-01', 10)", "row refused: few"),
        ("INSERT INTO days VALUES (NULL, 1)", None),  # No partition for null: not the row's, until it has a day.
        ("INSERT INTO days_1 VALUES (NULL, 1)", "row refused: at"),
        ("INSERT INTO days VALUES ('2026-01-01', 99999999999)", "row refused: NumericValueOutOfRange"),
        ("INSERT INTO days VALUES ('yesterday-ish', 1)", "row refused: InvalidDatetimeFormat"),
        ("INSERT INTO days VALUES ('2027-01-01', 1)", None),  # 23514 of a missing partition.
        ("INSERT INTO nowhere VALUES (1)", None),
        ("SELECT 1 FROM days WHERE", None),
    ],
)
def test_a_row_is_at_fault_only_where_a_value_of_it_is_named(
    database_url: str, statement: str, reason: str | None
) -> None:
    fault = fault_of_row(refused(database_url, statement))
    assert (fault.reason if fault else None) == reason


def test_a_lost_connection_is_no_rows_fault() -> None:
    assert fault_of_row(psycopg.OperationalError("server closed the connection unexpectedly")) is None


class Refusing:
    """A loader that refuses batches with bad rows, as Postgres does: all or nothing."""

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad
        self.stored: list[int] = []
        self.calls = 0

    async def __call__(self, rows: Sequence[int]) -> int:
        self.calls += 1
        if self.bad.intersection(rows):
            raise psycopg.errors.InvalidTextRepresentation("no number")
        self.stored += rows
        return len(rows)


async def test_bad_rows_are_found_by_halving_and_the_others_stored_in_order() -> None:
    load = Refusing({17, 400})
    written, bad = await load_sound(load, range(1000), most_faults(1000))
    assert written == 998
    assert [row for row, _ in bad] == [17, 400]
    assert load.stored == [row for row in range(1000) if row not in load.bad]
    assert load.calls < 50


async def test_more_bad_rows_than_chance_explains_stop_the_batch() -> None:
    with pytest.raises(TooManyFaults):
        await load_sound(Refusing(set(range(0, 1000, 50))), range(1000), most_faults(1000))


@pytest.mark.parametrize(("rows", "most"), [(1, 10), (1000, 10), (5000, 50)])
def test_ten_rows_or_one_in_a_hundred(rows: int, most: int) -> None:
    assert most_faults(rows) == most
