"""store alone: `pipeline run store-0` over a trade stream that normalize filled, from records to committed rows.

A part of the stream is then stored a second time: duplicates must not become rows. Yardsticks: COPY of the same rows
into the same table, and cryptofeed's Postgres backend on the same frames, into a table of its own with a key.
"""

import time
from collections.abc import Iterator
from typing import Any

import psycopg

from bench.filling import fill, normalized
from bench.frames import Market
from bench.instance import Instance
from bench.observation import Observation, observe
from bench.part import Figures, Terms, expect, medians, ratio
from bench.yardsticks.rival import Rival
from pipeline.probes.redis import call

NAME = "store"
SUMMARY = "records to committed rows"
PROCESS = "store-0"
KEYS = {
    "store.rows_per_s": "committed rows of trades a second",
    "store.cpu_us_per_row": "µs of CPU of its process for a row",
    "store.postgres_us_per_row": "µs of CPU of Postgres, all its processes, for a row",
    "store.redis_us_per_row": "µs of CPU of Redis for an entry read",
    "store.ratio_to_copy": "our rows a second for one of COPY",
    "store.ratio_to_cryptofeed_postgres": "our rows a second for one of cryptofeed's Postgres backend",
    "yardstick.copy.rows_per_s": "rows a second of one COPY of the same rows, as text, into the same table",
    "yardstick.copy.postgres_us_per_row": "µs of CPU of Postgres for a row of that",
    "yardstick.cryptofeed_postgres.rows_per_s": "rows a second of cryptofeed's Postgres backend, in batches of 5,000",
}
AGAIN = 0.9
"""From where on the stream is stored a second time."""


def measure(terms: Terms, instance: Instance) -> Figures:
    """See KEYS."""
    return medians(_rounds(terms, instance))


def _rounds(terms: Terms, instance: Instance) -> Iterator[Figures]:
    trades = terms.size(300_000, 20_000)
    rival = Rival(terms, instance, trades)
    for _ in range(terms.rounds):
        ours = _run(terms, instance, trades)
        copied = _copy(instance, trades)
        theirs = rival.run("postgres")
        yield {
            "store.rows_per_s": ours.per_second,
            "store.cpu_us_per_row": ours.microseconds(PROCESS),
            "store.postgres_us_per_row": ours.microseconds("postgres"),
            "store.redis_us_per_row": ours.microseconds("redis"),
            "store.ratio_to_copy": ratio(ours.per_second, copied.per_second),
            "store.ratio_to_cryptofeed_postgres": ratio(ours.per_second, theirs.per_second),
            "yardstick.copy.rows_per_s": copied.per_second,
            "yardstick.copy.postgres_us_per_row": copied.microseconds("postgres"),
            "yardstick.cryptofeed_postgres.rows_per_s": theirs.per_second,
        }


def _run(terms: Terms, instance: Instance, trades: int) -> Observation:
    """One run; every trade must be one row, also after some came a second time."""
    instance.reset()
    fill(instance, Market("okx", terms.seed), trades)
    normalized(instance, "okx", trades)
    entries = int(call(instance.redis, "XLEN", instance.keys("okx").trade))
    with instance.postgres() as connection:
        with instance.running(PROCESS):
            stored = observe(instance, PROCESS, lambda: trades * _stored(instance, connection) / entries, trades)
        expect("rows stored", _rows(connection), trades)
        _rewind(instance, connection, entries)
        with instance.running(PROCESS):
            instance.until(lambda: _stored(instance, connection) >= entries, "store to store some again")
        expect("rows after some were stored again", _rows(connection), trades)
    return stored


def _stored(instance: Instance, connection: psycopg.Connection[Any]) -> int:
    """Entries of the trade stream up to its cursor in Postgres."""
    stream = instance.keys("okx").trade
    row = connection.execute("SELECT entries FROM cursors WHERE stream = %s", (stream,)).fetchone()
    return int(row[0]) if row else 0


def _rewind(instance: Instance, connection: psycopg.Connection[Any], entries: int) -> None:
    """Sets the cursor of the trade stream back, as after a Postgres that was restored from a copy."""
    stream, place = instance.keys("okx").trade, int(AGAIN * entries)
    (entry, _), *_ = call(instance.redis, "XREVRANGE", stream, "+", "-", "COUNT", entries - place)[-1:]
    values = (entry.decode(), place + 1, stream)
    connection.execute("UPDATE cursors SET id = %s, entries = %s WHERE stream = %s", values)


def _rows(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM trades").fetchone()
    assert row is not None
    return int(row[0])


def _copy(instance: Instance, trades: int) -> Observation:
    """Copies the rows out, empties the table, and times one COPY of them into it."""
    with instance.postgres() as connection, connection.cursor() as cursor:
        with cursor.copy("COPY (SELECT * FROM trades) TO STDOUT") as out:
            blocks = [bytes(block) for block in out]
        cursor.execute("TRUNCATE trades")
        before, begun = instance.cpu(), time.perf_counter()
        with cursor.copy("COPY trades FROM STDIN") as into:
            for place in range(0, len(blocks), 1_000):
                into.write(b"".join(blocks[place : place + 1_000]))
        seconds, after = time.perf_counter() - begun, instance.cpu()
        expect("rows copied", _rows(connection), trades)
    return Observation(trades, seconds, {name: after[name] - before[name] for name in before})
