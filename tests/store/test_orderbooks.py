"""Which order books are stored, and how they are found again: on a real Postgres."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import OrderBook, encode
from pipeline.steps import Entry
from store.batch import Batch, Validity, changed_books
from store.found import Found, InstrumentKey
from store.orderbooks import OrderBookRepository
from store.postgres import Database
from tests.store.made import KEYS, NOON, SECOND, book, entry, query, ready, write

BOOKS = KEYS.stream("orderbook")


def broken(number: int, reason: str = "gap", **fields: Any) -> OrderBook:
    return book(number, grid=False, valid=False, reason=reason, **fields)


def between(number: int, **fields: Any) -> OrderBook:
    return book(number, grid=False, **fields)


STORY = (
    between(1), between(2), book(10), between(11), broken(12), broken(13), broken(14), between(15), between(16),
    book(20), broken(21), book(30, valid=False, reason="gap"), broken(31), broken(32, "closed"), broken(33, "closed"),
    book(40, valid=False, reason="closed"), between(41), between(42), book(50), between(51),
)  # fmt: skip
"""What normalize would write of one book in five seconds."""
STORED = [1, 10, 12, 15, 20, 21, 30, 32, 40, 41, 50]
"""The first, the grid, and what differs in validity from the one before it."""


async def store(database_url: str, books: Sequence[OrderBook], size: int, *, anew: bool = False) -> Database:
    """Writes the books in batches of `size`; `anew`: by another process each time."""
    database = await Database.open(database_url, "store-0")
    for first in range(0, len(books), size):
        if anew:
            await database.close()
            database = await Database.open(database_url, "store-0")
        at = (await database.cursors("test", [BOOKS]))[BOOKS].id
        batch = Batch("okx")
        taken = [entry(number, made) for number, made in enumerate(books[first : first + size], start=first + 1)]
        batch.take("orderbook", BOOKS, at, taken)
        await database.write("test", batch, no_letters)
    return database


async def no_letters(letters: object) -> None:
    raise AssertionError(f"unusable: {letters}")


def stored(database_url: str) -> list[int]:
    return [row[0] for row in query(database_url, "SELECT sequence FROM orderbooks ORDER BY entry_ms, entry_seq")]


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_the_same_books_are_stored_wherever_batches_and_processes_end(
    database_url: str, size: int, anew: bool
) -> None:
    await (await store(ready(database_url), STORY, size, anew=anew)).close()
    assert stored(database_url) == STORED


async def test_each_instrument_has_a_validity_of_its_own(database_url: str) -> None:
    other = {"instrument": "ETH-USDT", "symbol": "ETH-USDT"}
    story = [made for number in range(1, 4) for made in (between(number), broken(number, **other))]
    await (await store(ready(database_url), story, 2)).close()
    assert query(
        database_url,
        "SELECT i.symbol, o.valid, o.sequence FROM orderbooks o JOIN instruments i ON i.id = instrument_id ORDER BY 1",
    ) == [("BTC-USDT", True, 1), ("ETH-USDT", False, 1)]


async def test_what_need_not_be_stored_is_counted_and_makes_no_row(database_url: str) -> None:
    database = await store(ready(database_url), STORY[:1], 1)
    batch = Batch("okx")
    batch.take("orderbook", BOOKS, "1700000000000-1", [entry(number, between(number)) for number in range(2, 50)])
    assert not batch.holds_rows
    written = await database.write("test", batch, no_letters)
    await database.close()
    assert (written.rows["orderbooks"], written.skipped, written.known) == (0, 48, 0)
    assert query(database_url, "SELECT id FROM cursors") == [("1700000000000-49",)]


async def test_a_change_that_was_refused_is_told_by_the_next_record(database_url: str) -> None:
    letters: list[object] = []

    async def bury(found: Sequence[object]) -> None:
        letters.extend(found)

    database = await store(ready(database_url), [book(10)], 1)
    for number, made in ((2, broken(11, bids=[["NaN", "1"]])), (3, broken(12)), (4, broken(13))):
        batch = Batch("okx")
        batch.take("orderbook", BOOKS, f"1700000000000-{number - 1}", [entry(number, made)])
        await database.write("test", batch, bury)
    await database.close()
    assert (stored(database_url), len(letters)) == ([10, 12], 1)


def test_only_the_head_is_read_of_what_is_passed_over() -> None:
    """A tenth of the entries of a book are stored: the rest costs no more than its head."""
    odd = encode(between(2)).replace(b'"0.5"', b"0.5")
    batch = Batch("okx")
    batch.take("orderbook", BOOKS, "0-0", [entry(1, between(1)), Entry(b"1-2", {b"data": odd}), entry(3, book(10))])
    assert ([found.record.sequence for found in batch.books], batch.skipped, batch.letters) == ([1, 10], 1, [])


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([None, "gap", "closed"])), max_size=40), st.randoms())
def test_no_change_is_lost_and_none_is_told_twice(steps: list[tuple[bool, str | None]], rng: random.Random) -> None:
    """Against the plain rule, with the batches cut anywhere."""
    story = [
        book(number, grid=grid, valid=reason is None, reason=reason) for number, (grid, reason) in enumerate(steps)
    ]
    before: tuple[bool, str | None] | None = None
    expected = []
    for made in story:
        if made.snapshot_time is not None or (made.valid, made.reason) != before:
            expected.append(made.sequence)
        before = (made.valid, made.reason)
    known: dict[InstrumentKey, Validity] = {}
    kept: list[Found[OrderBook]] = []
    rest = [entry(number, made) for number, made in enumerate(story)]
    while rest:
        size = rng.randint(1, 10)
        batch = Batch("okx")
        batch.take("orderbook", BOOKS, "0-0", rest[:size])
        books, known = changed_books(batch.books, known)
        kept += books
        rest = rest[size:]
    assert [found.record.sequence for found in kept] == expected


async def test_books_come_back_as_they_went_in(database_url: str) -> None:
    made = [
        book(10, bids=[["64000.10", "0.00000001"], ["0.10", "7"]], sequence=None, time=None),
        broken(15, "crossed", bids=[], asks=[], unit="contracts"),
        book(20, received=NOON + 3 * SECOND),
    ]
    await write(database_url, *made)
    floored = [
        {
            name: None if (time := getattr(record, name)) is None else time // 1000 * 1000
            for name in ("time", "received")
        }
        for record in made
    ]
    with OrderBookRepository(database_url) as books:
        found = books.between("okx", "btc-usdt", NOON, NOON + 10 * SECOND)
        for record, times, got in zip(made, floored, found, strict=True):
            assert {name: getattr(got, name) for name in got.__struct_fields__} == {
                name: getattr(record, name) for name in record.__struct_fields__
            } | times
        assert list(books.stream("okx", "BTC-USDT", NOON, NOON + 10 * SECOND, chunk=1)) == found
        assert books.at("okx", "BTC-USDT", NOON + 2 * SECOND) == found[2]
        assert books.at("okx", "BTC-USDT", NOON + 2 * SECOND - 1000) == found[1]
        assert books.at("okx", "BTC-USDT", NOON + SECOND) == found[0]
        assert books.at("okx", "BTC-USDT", NOON + SECOND - 1) is None
    best = query(
        database_url, "SELECT bid::text, bid_size::text, ask::text, ask_size::text FROM orderbooks ORDER BY at"
    )
    assert best == [
        ("64000.10", "0.00000001", "64000.20", "1.25"),
        (None,) * 4,
        ("64000.10", "0.5", "64000.20", "1.25"),
    ]


async def test_a_book_closed_long_after_its_last_update_is_invalid_from_then_on(database_url: str) -> None:
    """Its record carries the time of the last update, before the last point of the grid."""
    await write(database_url, book(600), broken(700, "closed", time=NOON + 50 * SECOND))
    with OrderBookRepository(database_url) as books:
        states = [books.at("okx", "BTC-USDT", NOON + second * SECOND) for second in (65, 71)]
    assert [state.valid for state in states if state is not None] == [True, False]


@pytest.mark.parametrize("behind", [0, 2, -2])
async def test_the_stream_tells_the_order_where_the_clocks_differ(database_url: str, behind: int) -> None:
    """This host's clock is `behind` the exchange's by seconds. The book heals just before a point of the grid, and is
    closed just after it."""
    story = [book(100), broken(101), book(110, valid=False, reason="gap"), between(119), book(120)]
    closed = broken(121, "closed", time=NOON + 119 * SECOND // 10)
    await write(
        database_url,
        *(msgspec.structs.replace(made, received=made.received - behind * SECOND) for made in (*story, closed)),
    )
    with OrderBookRepository(database_url) as books:
        told = [books.at("okx", "BTC-USDT", NOON + tenths * SECOND // 10) for tenths in (110, 120, 160)]
    # The last but one is wrong by less than the clocks differ, and only until the next point of the grid.
    assert [state.reason for state in told if state is not None] == ["gap", "closed" if behind > 0 else None, "closed"]
