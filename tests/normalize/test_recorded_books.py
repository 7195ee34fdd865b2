"""Recorded order books of OKX and Binance spot against an independent rebuild from plain dicts: valid from the first
book to the last frame, the best five levels equal at every hundredth change and at the end.

The rebuild knows the venues' rules by itself (sequence numbers, checksums) and says that nothing is missing in what was
recorded: then no book may ever be invalid.
"""

import json
from binascii import crc32
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from normalize.mapper import Mapper, load
from normalize.orderbooks import InstrumentBook
from pipeline.errors import DecodeError
from pipeline.exchanges import EXCHANGES
from pipeline.frames import Frame
from pipeline.records import Instrument, OrderBook
from tests.normalize.recorded import INSTRUMENTS, MARKS, Level, PlainBook, Replayed, frames, query, replay

pytestmark = MARKS

EVERY = 100
FULL = ("books", "books-l2-tbt")
OKX = ("okx/v5_multi_20220227.jsonl.gz", "okx/v5_multi_3conns_20210722.jsonl.gz", "okx/okcoin_v5_20230527.jsonl")
BINANCE = (
    ("binance/spot_dot_eth_20210404.jsonl.gz",),
    ("binance/spot_ethusdt_20240808.jsonl.gz", "binance/spot_ethusdt_20240809.jsonl.gz"),
    ("binance/spot_multi_20210405.jsonl.gz",),
    ("binance/spot_multi_20211012.jsonl",),
)
Five = tuple[list[Level], list[Level]]


class Rebuilt(NamedTuple):
    """After one frame: the instrument, the connection where there are several, the venue's times
    (ms) of the changes that made it, none for an answer by REST, and the best levels."""

    instrument: str
    connection: str
    times: tuple[int | None, ...]
    best: Five


def okx_checksum(book: PlainBook) -> int:
    bids, asks = book.best(25)
    texts: list[str] = []
    for place in range(25):
        texts += [":".join(side[place]) for side in (bids, asks) if place < len(side)]
    unsigned = crc32(":".join(texts).encode())
    return unsigned - 2**32 if unsigned >= 2**31 else unsigned


@cache
def rebuilt_okx(name: str) -> dict[int, Rebuilt]:
    """By position of the frame, each checked by the venue's own checksum."""
    books: dict[tuple[str, str], PlainBook] = defaultdict(PlainBook)
    found: dict[int, Rebuilt] = {}
    for position, frame in enumerate(frames(name)):
        message = json.loads(frame["data"])
        if frame["dir"] == "out" or message.get("arg", {}).get("channel") not in FULL or "data" not in message:
            continue
        instrument, (element,) = message["arg"]["instId"], message["data"]
        book = books[frame["conn"], instrument]
        if message["action"] == "snapshot":
            book.clear()
        book.put(element["bids"], element["asks"])
        assert okx_checksum(book) == element["checksum"], "the recording is whole"
        found[position] = Rebuilt(instrument, frame["conn"], (int(element["ts"]),), book.best(5))
    return found


@cache
def rebuilt_binance(names: tuple[str, ...]) -> dict[int, Rebuilt]:
    """The same by sequence numbers; positions run on from file to file."""
    books: dict[str, PlainBook] = {}
    stands: dict[str, int] = {}
    waiting: dict[str, list[dict[str, Any]]] = defaultdict(list)
    found: dict[int, Rebuilt] = {}

    def follow(event: dict[str, Any]) -> None:
        name = event["s"]
        if event["u"] > stands[name]:
            assert event["U"] <= stands[name] + 1, "the recording is whole"
            books[name].put(event["b"], event["a"])
            stands[name] = event["u"]

    for position, frame in enumerate(frame for name in names for frame in frames(name)):
        message = json.loads(frame["data"])
        times: tuple[int | None, ...]
        if frame["kind"] == "rest":
            name = query(frame["url"])[1]["symbol"]
            books[name], stands[name] = PlainBook(), message["lastUpdateId"]
            books[name].put(message["bids"], message["asks"])
            for event in waiting[name]:
                follow(event)
            times = (None, *(event["E"] for event in waiting[name]))
        elif message["data"].get("e") == "depthUpdate":
            name = message["data"]["s"]
            if name not in books:
                waiting[name].append(message["data"])
                continue
            follow(message["data"])
            times = (message["data"]["E"],)
        else:
            continue
        found[position] = Rebuilt(name, "", times, books[name].best(5))
    return found


def listed(exchange: str, mapper: Mapper) -> dict[str, Instrument]:
    known: dict[str, Instrument] = {}
    for raw in frames(INSTRUMENTS[exchange]):
        try:
            frame = Frame(raw["ts"] or 0, raw["conn"], "in", "rest", raw["data"], raw["url"])
            known |= {found.instrument: found for found in mapper.read(frame, {}).instruments}
        except DecodeError:
            assert "fapi" in raw["conn"]
    return known


def unlisted(name: str) -> Instrument:
    """A derivative of a day whose list was not recorded. Its books are kept in contracts all the same."""
    base, quote = name.split("-")[:2]
    return Instrument(
        exchange="okx",
        market="future",
        symbol=name,
        instrument=name,
        time=None,
        received=0,
        base=base,
        quote=quote,
        status="live",
        contract="linear",
        contract_value="1",
    )


class Kept:
    """The product's books of a recording: the mapper's readings given to one InstrumentBook each."""

    def __init__(self, exchange: str) -> None:
        self.mapper = load(EXCHANGES[exchange])
        self.known = listed(exchange, self.mapper)
        self.books: dict[str, InstrumentBook] = {}
        self.records: dict[str, list[OrderBook]] = defaultdict(list)

    def play(self, names: tuple[str, ...]) -> Iterator[tuple[int, str, InstrumentBook]]:
        """Position, instrument and its book after every frame that has to do with it."""
        for position, raw in enumerate(frame for name in names for frame in frames(name)):
            frame = Frame(raw["ts"], raw["conn"], raw["dir"], raw["kind"], raw["data"], raw.get("url"))
            for update in self.mapper.read(frame, self.known).books:
                name = update.instrument.instrument
                book = self.books.setdefault(name, InstrumentBook(update.instrument, self.mapper.book_rule))
                if frame.kind == "rest":
                    outcome = book.answer(update, raw["ts"])
                else:
                    outcome = book.update(frame.conn, update, raw["ts"])
                self.records[name] += outcome.records
                yield position, name, book


def best_five(book: InstrumentBook) -> Five | None:
    shown = book.chains.book
    return None if shown is None else (shown.bids.levels[:5], shown.asks.levels[:5])


def check(kept: Kept, names: tuple[str, ...], rebuilt: dict[int, Rebuilt]) -> int:
    """Compares; the number of books that were seen."""
    counts: dict[str, int] = defaultdict(int)
    newest: dict[tuple[str, str], Five] = {}
    compared = 0
    for position, name, book in kept.play(names):
        if position not in rebuilt:
            # A change of Binance before its snapshot came.
            assert best_five(book) is None
            continue
        plain = rebuilt[position]
        assert plain.instrument == name
        newest[name, plain.connection] = plain.best
        counts[name] += 1
        if counts[name] % EVERY == 0:
            shown = (book.chains.active or "") if plain.connection else ""
            assert best_five(book) == newest[name, shown], (name, position)
            compared += 1
    for name, book in kept.books.items():
        shown = "" if (name, "") in newest else book.chains.active or ""
        assert best_five(book) == newest[name, shown], name
        assert book.report()["valid"], (name, book.report())
        assert book.report()["invalid"] == 0, "never invalid since it was valid"
        assert not book.wants
        told = [record.valid for record in kept.records[name]]
        assert True in told
        assert all(told[told.index(True) :])
    assert compared > 0 or sum(counts.values()) < EVERY * len(counts)
    return len(kept.books)


@pytest.mark.parametrize(("name", "books"), list(zip(OKX, (9, 10, 4), strict=True)))
def test_okx_books_by_their_checksums(name: str, books: int) -> None:
    rebuilt = rebuilt_okx(name)
    kept = Kept("okx")
    for plain in rebuilt.values():
        if plain.instrument.count("-") > 1:
            kept.known.setdefault(plain.instrument, unlisted(plain.instrument))
    assert check(kept, (name,), rebuilt) == books


@pytest.mark.parametrize(("names", "books"), list(zip(BINANCE, (2, 1, 10, 4), strict=True)))
def test_binance_books_by_their_numbers(names: tuple[str, ...], books: int) -> None:
    assert check(Kept("binance"), names, rebuilt_binance(names)) == books


def compare(records: list[dict[str, Any]], rebuilt: Iterable[Rebuilt]) -> None:
    """Every record is the rebuild at its time, the last one its end.
    None is invalid after the first valid one."""
    states: dict[tuple[str, int | None], list[Any]] = defaultdict(list)
    ends: dict[str, Rebuilt] = {}
    for plain in rebuilt:
        ends[plain.instrument] = plain
        for time in plain.times:
            states[plain.instrument, time].append([in_numbers(side) for side in plain.best])
    last: dict[str, dict[str, Any]] = {}
    for record in records:
        name, time = record["instrument"], record["time"]
        assert record.get("valid", True) or name not in last, record
        if record.get("valid", True):
            last[name] = record
            shown = [in_numbers(record["bids"][:5]), in_numbers(record["asks"][:5])]
            assert shown in states[name, None if time is None else time // 1_000_000], record
    assert last.keys() == ends.keys()
    for name, end in ends.items():
        levels = [in_numbers(last[name]["bids"][:5]), in_numbers(last[name]["asks"][:5])]
        assert levels == [in_numbers(side) for side in end.best]


def in_numbers(levels: Iterable[Iterable[str]]) -> list[tuple[Decimal, ...]]:
    return [tuple(Decimal(text) for text in level) for level in levels]


def check_replay(played: Replayed, rebuilt: Iterable[Rebuilt]) -> None:
    compare(played.records("orderbook"), rebuilt)
    assert played.summary["books"]["never_valid"] == []
    assert played.summary["books"]["invalid"] == 0


@pytest.mark.parametrize("names", BINANCE)
def test_a_replay_of_binance_shows_the_same_books(names: tuple[str, ...], tmp_path: Path) -> None:
    """Both files of 2024-08 one after the other are one unbroken book."""
    check_replay(replay(tmp_path, INSTRUMENTS["binance"], *names), rebuilt_binance(names).values())


@pytest.mark.parametrize("name", OKX)
def test_a_replay_of_okx_shows_the_same_books(name: str, tmp_path: Path) -> None:
    """Sizes of linear contracts and options in base units, those of inverse ones in contracts."""
    played = replay(tmp_path, INSTRUMENTS["okx"], name)
    known = {row["instrument"]: row for row in played.records("instrument")}
    rebuilt = []
    for plain in rebuilt_okx(name).values():
        listing = known.get(plain.instrument, {})
        if not listing and plain.instrument.count("-") > 1:
            continue
        inverse = listing.get("contract") == "inverse"
        face = Decimal(1) if inverse else Decimal(listing.get("contract_value", 1))
        bids, asks = ([(price, str(Decimal(size) * face)) for price, size in side] for side in plain.best)
        rebuilt.append(plain._replace(best=(bids, asks)))
    check_replay(played, rebuilt)


def small_okx(name: str) -> list[dict[str, Any]]:
    """The recording with the channel `books5` beside the full one, as the rebuild has it."""
    rebuilt, found = rebuilt_okx(name), []
    for position, frame in enumerate(frames(name)):
        found.append(frame)
        if position in rebuilt:
            instrument, sides = rebuilt[position].instrument, rebuilt[position].best
            bids, asks = ([[price, size, "0", "1"] for price, size in side] for side in sides)
            row = {"bids": bids, "asks": asks, "ts": json.loads(frame["data"])["data"][0]["ts"], "instId": instrument}
            data = {"arg": {"channel": "books5", "instId": instrument}, "data": [row]}
            found.append(frame | {"data": json.dumps(data)})
    return found


def small_binance(name: str) -> list[dict[str, Any]]:
    """The same with `depth5`."""
    rebuilt, found = rebuilt_binance((name,)), []
    for position, frame in enumerate(frames(name)):
        found.append(frame)
        if position in rebuilt and frame["kind"] == "ws":
            bids, asks = rebuilt[position].best
            body = {"lastUpdateId": json.loads(frame["data"])["data"]["u"], "bids": bids, "asks": asks}
            stream = f"{rebuilt[position].instrument.lower()}@depth5@100ms"
            found.append(frame | {"data": json.dumps({"stream": stream, "data": body})})
    return found


@pytest.mark.parametrize(
    ("exchange", "name", "beside"),
    [
        ("okx", "okx/v5_multi_3conns_20210722.jsonl.gz", small_okx),
        ("binance", "binance/spot_ethusdt_20240808.jsonl.gz", small_binance),
    ],
)
def test_small_snapshots_beside_the_full_book_change_nothing(
    exchange: str, name: str, beside: Callable[[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    mixed = beside(name)
    assert len(mixed) > 1.1 * len(frames(name))
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(frame) + "\n" for frame in mixed))
    plain = replay(tmp_path / "plain", INSTRUMENTS[exchange], name)
    both = replay(tmp_path / "both", INSTRUMENTS[exchange], str(tmp_path / "mixed.jsonl"))
    assert both.summary["undecoded"].keys() == plain.summary["undecoded"].keys()
    assert both.records("orderbook") == plain.records("orderbook")
    assert len(plain.records("orderbook")) > 100
