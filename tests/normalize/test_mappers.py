"""What the mapper of every exchange must keep to: one suite, run for each of EXCHANGES over frames of our own writing.

A new exchange needs only its frames (`tests/frames/<name>/`, see golden.py) to be tested here.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normalize.mapper import BookUpdate, Mapper, Reading, load
from pipeline.errors import DecodeError
from pipeline.exchanges import EXCHANGES, exchange_of_connection
from pipeline.frames import Frame
from pipeline.records import KINDS, Instrument, Kline, OrderBook, Quote, Record, Ticker, Trade, encode
from pipeline.timeframes import DAY, WIDTHS
from tests.normalize import golden

PLAIN = re.compile(r"[0-9]+(\.[0-9]+)?")
PARTS: dict[str, type[Record]] = {
    "trade": Trade,
    "instrument": Instrument,
    "quote": Quote,
    "ticker": Ticker,
    "kline": Kline,
}
HOSTILE = ("", "0", "-1", "1e5", "NaN", "Infinity", " 1", "1.", "٣", "0x1", "9" * 60, "null", "\x00", "1,5", "🪙")
FIRST_PRICES = ("price", "open", "high", "low", "close", "bid", "ask", "last", "open_24h", "high_24h", "low_24h")
POSITIVE = (*FIRST_PRICES, "tick_size", "lot_size", "min_size", "contract_value", "strike")
NAMES = ("instrument", "symbol", "base", "quote", "status", "settle", "contract_currency", "id", "first_id", "last_id")
DECIMALS = (
    *POSITIVE,
    "size",
    "contracts",
    "bid_size",
    "ask_size",
    "volume",
    "quote_volume",
    "buy_volume",
    "buy_quote_volume",
    "volume_24h",
    "quote_volume_24h",
)


class Venue:
    """An exchange, its mapper, what it lists and every frame written for it."""

    def __init__(self, name: str) -> None:
        self.exchange = EXCHANGES[name]
        self.mapper: Mapper = load(self.exchange)
        self.known = golden.instruments(name, self.mapper)
        self.frames = [frame for topic in golden.TOPICS for frame in golden.frames(name, topic)]

    def read(self, frame: Frame) -> Reading:
        return golden.read(self.mapper, frame, self.known)


VENUES = {name: Venue(name) for name in EXCHANGES}


@pytest.fixture(params=sorted(EXCHANGES))
def venue(request: pytest.FixtureRequest) -> Venue:
    return VENUES[request.param]


def records(reading: Reading) -> Iterator[Record]:
    yield from reading.trades
    yield from reading.instruments
    yield from reading.quotes
    yield from reading.tickers
    yield from reading.klines


def check(reading: Reading, frame: Frame, venue: Venue) -> None:
    """Whatever a frame holds: what is read of it is right in form, and nothing in it is made up."""
    for record in records(reading):
        check_record(record, frame, venue)
    for book in reading.books:
        check_book(book, frame, venue)
    for fault in reading.faults:
        check_fault(fault)
    if reading.control is not None:
        assert 0 < len(reading.control) < 60


def check_fault(fault: DecodeError) -> None:
    assert isinstance(fault, DecodeError)
    assert 0 < len(fault.reason) < 120, "reasons group like cases"
    assert len(fault.detail) < 5_000
    msgspec.json.encode([fault.reason, fault.detail])


def check_record(record: Record, frame: Frame, venue: Venue) -> None:
    assert frame.ts is not None
    assert (record.exchange, record.received) == (venue.exchange.name, frame.ts)
    for name in NAMES:
        text = getattr(record, name, None)
        assert text is None or (text and text.isprintable()), (name, text)
    if record.time is not None:
        assert frame.ts - 400 * DAY <= record.time <= frame.ts + DAY, "nanoseconds"
    for name in DECIMALS:
        text = getattr(record, name, None)
        if text is not None:
            assert PLAIN.fullmatch(text), (name, text)
            if name in POSITIVE:
                assert text.strip("0."), (name, text)
    if not isinstance(record, Instrument) and record.instrument in venue.known:
        assert record.symbol == venue.known[record.instrument].symbol
        assert record.market == venue.known[record.instrument].market
    if isinstance(record, Trade):
        check_trade(record)
    if isinstance(record, Kline):
        check_kline(record)
    if isinstance(record, Quote | Ticker):
        assert record.bid is not None or record.bid_size is None, "no size without a price"
        assert record.ask is not None or record.ask_size is None, "no size without a price"
    kind = next(kind for kind in KINDS.values() if type(record) is kind)
    assert msgspec.json.decode(encode(record), type=kind) == record


def check_trade(trade: Trade) -> None:
    assert trade.epoch == 0
    assert not trade.repaired
    first = trade.sequence if trade.first_sequence is None else trade.first_sequence
    assert 0 <= first <= trade.sequence < 2**63
    assert trade.fills == trade.sequence - first + 1
    assert (trade.first_sequence is None) == (trade.fills == 1)
    assert trade.size.strip("0.") or trade.contracts, "only the rounding of an inverse contract may come to zero"
    assert (trade.contracts is None) == (trade.market == "spot")
    assert trade.time is not None


def check_kline(kline: Kline) -> None:
    width = WIDTHS[kline.timeframe]
    assert kline.close_time - kline.open_time == width
    assert kline.open_time % width == 0


def check_book(book: BookUpdate, frame: Frame, venue: Venue) -> None:
    assert frame.ts is not None
    assert book.instrument.exchange == venue.exchange.name
    for price, quantity in (*book.bids, *book.asks):
        assert PLAIN.fullmatch(price)
        assert price.strip("0.")
        assert PLAIN.fullmatch(quantity)
    for number in (book.first, book.last, book.previous):
        assert number is None or 0 <= number < 2**63
    if book.time is not None:
        assert frame.ts - 400 * DAY <= book.time <= frame.ts + DAY, "nanoseconds"
    assert book.cut is None or book.snapshot
    assert book.asked is None or frame.kind == "rest"


def test_no_attribute_is_missing(venue: Venue) -> None:
    mapper = venue.mapper
    for channels in (mapper.trade_channels, mapper.book_channels):
        assert isinstance(channels, frozenset)
        assert channels
        assert all(isinstance(channel, str) for channel in channels)
    assert not mapper.trade_channels & mapper.book_channels
    rule = mapper.book_rule
    assert rule.levels >= 100
    assert {type(rule.by_request), type(rule.shared), type(rule.partial)} == {bool}
    assert rule.checksum((), ()) is None or isinstance(rule.checksum((("1", "2"),), ()), int)


@pytest.mark.parametrize("topic", golden.TOPICS)
def test_frames_give_their_golden_records(venue: Venue, topic: str) -> None:
    known = {} if topic == "instruments" else venue.known
    said = [golden.said(golden.read(venue.mapper, frame, known)) for frame in golden.frames(venue.exchange.name, topic)]
    assert said == golden.golden(venue.exchange.name, topic)


def test_the_golden_frames_show_every_kind_and_are_this_exchanges(venue: Venue) -> None:
    readings = [venue.read(frame) for frame in venue.frames]
    kinds = {
        next(kind for kind, struct in PARTS.items() if type(record) is struct)
        for r in readings
        for record in records(r)
    }
    if any(reading.books for reading in readings):
        kinds.add("orderbook")
    assert kinds >= {kind for kind in venue.exchange.kinds if kind != "candle"} | {"instrument"}
    assert {type(record) for r in readings for record in records(r)} | {OrderBook} >= {
        KINDS[kind] for kind in venue.exchange.kinds if kind != "candle"
    }
    assert any(reading.faults and any(records(reading)) for reading in readings), "a bad element costs no other"
    assert {exchange_of_connection(frame.conn) for frame in venue.frames} == {venue.exchange}


def test_what_is_read_is_well_formed(venue: Venue) -> None:
    for frame in venue.frames:
        check(venue.read(frame), frame, venue)
        assert any(venue.read(frame)), "a frame that holds something says something, or names itself"


def test_frames_of_the_client_are_control(venue: Venue) -> None:
    for frame in venue.frames:
        sent = msgspec.structs.replace(frame, dir="out", kind="ws", url=None)
        reading = venue.mapper.read(sent, venue.known)
        assert reading == Reading(control=reading.control)
        assert (reading.control or "").startswith("out ")


def test_a_mapper_has_no_memory(venue: Venue) -> None:
    once = [golden.said(venue.read(frame)) for frame in venue.frames]
    backwards = [golden.said(venue.read(frame)) for frame in reversed(venue.frames)]
    assert once == backwards[::-1]
    assert once == [golden.said(golden.read(load(venue.exchange), frame, venue.known)) for frame in venue.frames]


def test_symbols_of_instruments_are_unique(venue: Venue) -> None:
    symbols = [instrument.symbol for instrument in venue.known.values()]
    assert len(symbols) == len(set(symbols)) > 1
    for name, instrument in venue.known.items():
        assert name == instrument.instrument
        assert instrument.time is None, "a list read again is no news"
        assert {instrument.base, instrument.quote} <= set(re.split("[-_]", instrument.symbol))


def test_the_time_of_a_frame_is_not_before_its_records(venue: Venue) -> None:
    told = 0
    for frame in venue.frames:
        time = venue.mapper.time(frame)
        reading = venue.read(frame)
        times = [*(record.time for record in records(reading)), *(book.time for book in reading.books)]
        known = [at for at in times if at]
        assert time is not None or not known
        if time is not None and known:
            told += 1
            assert max(known) <= time
            assert frame.ts is not None
            assert abs(time - frame.ts) < 400 * DAY, "nanoseconds"
    assert told > 5


def test_a_trade_is_the_same_record_however_it_came(venue: Venue) -> None:
    """But for when it was received: the audit's digest, and the key of its row, must not tell. By socket, by each REST
    request and from a daily file."""
    live, fetched = (
        [
            ((trade.instrument, trade.id), msgspec.structs.replace(trade, received=0), urlsplit(frame.conn).hostname)
            for frame in golden.frames(venue.exchange.name, topic)
            for trade in venue.read(frame).trades
        ]
        for topic in ("trades", "history")
    )
    known = {key: trade for key, trade, _ in live}
    both = [(key, trade, host) for key, trade, host in fetched if key in known]
    assert len({key for key, _, _ in both}) >= 3
    assert all(trade == known[key] for key, trade, _ in both)
    if venue.exchange.files_url is not None:
        files = urlsplit(venue.exchange.files_url).hostname
        assert len({key for key, _, host in both if host == files}) >= 3


def test_unknown_instruments_are_refused_never_guessed(venue: Venue) -> None:
    """Without any list nothing but spot pairs whose id spells both currencies can be read."""
    for frame in venue.frames:
        reading = golden.read(venue.mapper, frame, {})
        check(reading, frame, venue)
        for record in records(reading):
            if not isinstance(record, Instrument):
                assert record.market == "spot"
                assert record.symbol == record.instrument


def chain(venue: Venue) -> tuple[BookUpdate, list[BookUpdate]]:
    """The first full snapshot of the golden books, and all changes of its instrument."""
    books = [
        book
        for frame in golden.frames(venue.exchange.name, "books")
        for book in venue.read(frame).books
        if book.cut is None
    ]
    snapshot = next(book for book in books if book.snapshot)
    return snapshot, [book for book in books if not book.snapshot and book.instrument == snapshot.instrument]


def links(venue: Venue, snapshot: BookUpdate, changes: list[BookUpdate]) -> list[str]:
    """What the rule says to each, up to the first gap."""
    said: list[str] = []
    last, joining = snapshot.last, True
    for change in changes:
        said.append(venue.mapper.book_rule.link(last, joining, change))
        if said[-1] == "gap":
            break
        if said[-1] == "apply":
            last, joining = change.last, False
    return said


def test_the_rule_of_books_follows_a_whole_chain_and_finds_every_loss(venue: Venue) -> None:
    snapshot, changes = chain(venue)
    whole = links(venue, snapshot, changes)
    assert len(whole) == len(changes)
    assert whole.count("apply") >= 3
    assert "gap" not in whole
    before = snapshot.last
    for place, (said, change) in enumerate(zip(whole[:-1], changes[:-1], strict=True)):
        broken = links(venue, snapshot, changes[:place] + changes[place + 1 :])
        if said == "apply" and change.last != before:
            assert broken[place] == "gap", "a lost change is a gap at the next"
        before = change.last if said == "apply" else before


numbers = st.one_of(st.none(), st.integers(0, 40))


@given(last=numbers, joining=st.booleans(), first=numbers, end=numbers, previous=numbers)
def test_the_rule_of_books_never_goes_back_but_for_a_reset(
    last: int | None, joining: bool, first: int | None, end: int | None, previous: int | None
) -> None:
    for venue in VENUES.values():
        instrument = next(iter(venue.known.values()))
        change = BookUpdate(instrument, False, (), (), first=first, last=end, previous=previous)
        said = venue.mapper.book_rule.link(last, joining, change)
        assert said in ("apply", "skip", "gap")
        if said == "skip":
            assert last is not None
            assert end is not None
            assert end <= last
        if said == "apply" and last is not None:
            assert end is not None
            assert end > last or previous == last


# What a broken, cut or hostile frame does: a DecodeError or faults, never anything else, and nothing made up.


def spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a JSON value."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from spots(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from spots(inner, (*path, number))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = replaced(value[path[0]], path[1:], new)
    return copied


def without(value: Any, path: tuple[Any, ...]) -> Any:
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1:
        del copied[path[0]]
    else:
        copied[path[0]] = without(value[path[0]], path[1:])
    return copied


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(HOSTILE)
    | st.text(st.characters(codec="utf-8"), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("eEsStTdata", max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, Frame]:
    """An exchange and one of its frames, changed in one of many ways."""
    name = draw(st.sampled_from(sorted(VENUES)))
    frame = draw(st.sampled_from(VENUES[name].frames))
    way = draw(st.sampled_from(("cut", "byte", "value", "hostile", "gone", "twice", "url", "kind", "noise")))
    data = frame.data
    if way == "cut":
        return name, msgspec.structs.replace(frame, data=data[: draw(st.integers(0, len(data)))])
    if way == "byte":
        place, new = draw(st.integers(0, len(data))), draw(st.characters())
        return name, msgspec.structs.replace(frame, data=data[:place] + new + data[place + 1 :])
    if way == "noise":
        return name, msgspec.structs.replace(frame, data=draw(st.text(max_size=40)))
    if way == "url":
        return name, msgspec.structs.replace(frame, kind="rest", url=draw(st.none() | st.text(max_size=40)))
    if way == "kind":
        return name, msgspec.structs.replace(frame, kind="rest" if frame.kind == "ws" else "ws")
    try:
        value = json.loads(data)
    except ValueError:
        return name, frame
    path = draw(st.sampled_from(sorted(spots(value), key=repr)))
    if way == "gone" and path:
        value = without(value, path)
    elif way == "twice" and isinstance(value, dict) and isinstance(value.get("data"), list):
        value["data"] += value["data"]
    else:
        value = replaced(value, path, draw(st.sampled_from(HOSTILE) if way == "hostile" else json_values))
    return name, msgspec.structs.replace(frame, data=json.dumps(value, ensure_ascii=draw(st.booleans())))


@settings(max_examples=1_500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_no_frame_does_more_than_fail_to_decode(case: tuple[str, Frame]) -> None:
    name, frame = case
    venue = VENUES[name]
    time = venue.mapper.time(frame)
    assert time is None or 0 <= time < 2**63
    try:
        reading = venue.mapper.read(frame, venue.known)
    except DecodeError as error:
        check_fault(error)
        return
    check(reading, frame, venue)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"data":' + "[" * 100_000, "\ud800", '{"data":"\ud800"}']
)
def test_nesting_and_halves_of_characters(venue: Venue, text: str) -> None:
    for frame in venue.frames:
        broken = msgspec.structs.replace(frame, data=text, dir="in")
        reading = venue.read(broken)
        assert reading == Reading(faults=reading.faults, control=reading.control)
        assert bool(reading.faults) != bool(reading.control), "replies of no use are not looked into"
        check(reading, broken, venue)
        assert venue.mapper.time(broken) is None


def test_hostile_numbers_are_refused_in_every_place(venue: Venue) -> None:
    """Every text of every frame replaced by every hostile one, in turn: more than chance would try."""
    for frame in venue.frames:
        try:
            value = json.loads(frame.data)
        except ValueError:
            continue
        for path in list(spots(value)):
            for text in HOSTILE:
                changed = msgspec.structs.replace(frame, data=json.dumps(replaced(value, path, text)))
                check(venue.read(changed), changed, venue)
