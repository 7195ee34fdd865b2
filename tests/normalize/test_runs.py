"""Frames of one trade taken together: the bytes of the long way, whatever stands among them."""

import itertools
import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normalize import runs
from normalize.elements import together
from normalize.exchanges import okx
from normalize.runs import Runs
from normalize.values import all_near, all_positive, positive, whole, wholes
from pipeline.errors import DecodeError
from pipeline.frames import Frame, RawEntry
from pipeline.records import Trade
from tests.normalize.playing import (
    SECOND,
    SPOT,
    T0,
    A,
    B,
    book,
    clock,
    closed,
    data,
    entries,
    exchange_info,
    fill,
    opened,
    play,
    subscription,
)
from tests.normalize.test_mappers import VENUES, Venue, mutated
from tests.normalize.test_okx import OPTION, SWAP
from tests.normalize.test_okx import SPOT as SPOT_LISTING
from tests.normalize.test_one_trade import FILL, FITTING, TEXTS, TRADE, singles, without_short_way
from tests.normalize.test_stage import listing


def records(frames: Sequence[Frame], venue: Venue) -> list[Trade] | None:
    """What the venue says of the frames together, as records."""
    prints = venue.mapper.prints(frames, venue.known)
    if prints is None:
        return None
    return [
        Trade(
            exchange=instrument.exchange,
            market=instrument.market,
            symbol=instrument.symbol,
            instrument=instrument.instrument,
            time=time,
            received=frame.ts or 0,
            id=spelt,
            sequence=number,
            price=price,
            size=size,
            side=side,
            contracts=contracts,
        )
        for frame, (instrument, spelt, number, time, price, size, side, contracts) in zip(
            frames, zip(*prints, strict=True), strict=True
        )
    ]


def alone(frames: Sequence[Frame], venue: Venue) -> list[Trade | None]:
    return [venue.mapper.trade(frame, venue.known) for frame in frames]


def compare(frames: Sequence[Frame], venue: Venue) -> bool:
    """What the venue says of them together is what it says of each; whether it says anything."""
    said = records(frames, venue)
    if said is None or not all_near([row.time or 0 for row in said], [row.received for row in said]):
        return False
    assert said == alone(frames, venue)
    return True


@pytest.mark.parametrize("name", sorted(VENUES))
def test_live_frames_are_taken_together(name: str) -> None:
    venue = VENUES[name]
    marks = venue.mapper.short(venue.frames)
    shorts = [frame for frame, short in zip(venue.frames, marks, strict=True) if short]
    plain = [frame for frame in shorts if venue.mapper.trade(frame, venue.known)]
    common = [frame for frame in plain if records([frame], venue) is not None]
    assert len(common) >= 2
    assert records(common * 30, venue) == alone(common * 30, venue)


@settings(max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(mutated(), min_size=1, max_size=3), st.integers(0, 5))
def test_frames_taken_together_say_what_each_says(cases: list[tuple[str, Frame]], more: int) -> None:
    for name, found in itertools.groupby(cases, key=lambda case: case[0]):
        venue = VENUES[name]
        good = [frame for frame in venue.frames if frame.kind == "ws" and frame.dir == "in"][:more]
        frames = [*good, *(frame for _, frame in found)]
        kept = [frame for frame, short in zip(frames, venue.mapper.short(frames), strict=True) if short]
        for run in (kept, kept[-1:]):
            if run and all(frame.ts is not None for frame in run):
                compare(run, venue)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(TEXTS)), max_size=2),
    st.sampled_from(("", ',"event":"x"', ',"event":1', ',"code":0', ',"op":1', ',"arg":{"channel":"books"}')),
    st.integers(0, 3),
)
def test_a_bad_one_among_good_ones_is_left_to_the_long_way(bad: list[tuple[int, str]], more: str, place: int) -> None:
    texts = list(FITTING)
    for which, text in bad:
        texts[which] = text
    messages = [TRADE % ("{" + FILL % FITTING + "}", "")] * 3
    messages.insert(place, TRADE % ("{" + FILL % tuple(texts) + "}", more))
    listed = [text.replace("BTC-USDT", "QQQ-USDT") for text in messages]
    frames = [Frame(1_790_000_000 * SECOND, A, "in", "ws", text) for text in listed]
    assert compare(frames, VENUES["okx"]) or bad or more


@given(st.lists(st.sampled_from((*TEXTS, *FITTING)), min_size=1, max_size=4))
def test_checks_of_many_are_those_of_each(texts: list[str]) -> None:
    def passes(check: object, text: str) -> bool:
        assert callable(check)
        try:
            check(text, "it")
        except DecodeError:
            return False
        return True

    assert all_positive(texts) == all(passes(positive, text) for text in texts)
    try:
        numbers = wholes(texts, "it")
    except DecodeError:
        assert any(not passes(whole, text) or text != str(int(text)) for text in texts)
    else:
        assert numbers == [whole(text, "it") for text in texts]
        assert texts == [str(number) for number in numbers]


ONE = '{"arg":{"channel":"trades-all"},"data":[]}'


@pytest.mark.parametrize(
    "texts",
    [
        [ONE + ONE[:-1] + ',"q":[{}', ONE + "]}"],
        [ONE + ONE[:-1] + ',"q":[{},', ONE + "]}"],
        [ONE + ONE[:-1] + ',"q":"{}', ONE + '"}'],
        [ONE + ONE, ""],
        [ONE + ONE, " "],
        [ONE + ONE, "{}"],
        [ONE, ONE + ONE],
        [ONE, "1"],
        [ONE, " " + ONE],
        [ONE, '{"data":"' + "\ud800" + '"}'],
    ],
)
def test_texts_that_are_not_one_object_each_are_not_decoded_together(texts: list[str]) -> None:
    with pytest.raises(DecodeError):
        together(texts, msgspec.json.Decoder(okx.CommonFills))
    assert len(together([ONE] * 2, msgspec.json.Decoder(okx.CommonFills))) == 2


def test_text_with_a_break_is_taken_as_it_is() -> None:
    found = together([ONE.replace(",", ",\n"), ONE], msgspec.json.Decoder(okx.CommonFills))
    assert found == [okx.CommonFills(arg=okx.CommonArg(channel="trades-all"), data=[])] * 2


def market(seed: int) -> list[RawEntry]:
    """Busy sockets: mostly the next trade of one of four instruments, with now and then what ends a run. Some entries
    are lost, and another writer may take over."""
    chance = random.Random(seed)
    frames = [clock(0, chance.choice([0, SECOND, None])), listing(SWAP, SPOT_LISTING, OPTION)]
    frames += [opened(0), opened(0.1, B)]
    names = [SPOT, "BTC-USDT-SWAP", "ETH-USDT", "X\u00e9-USDT"]
    numbers, at = dict.fromkeys(names, 100), 1.0
    for _ in range(chance.randrange(100, 400)):
        at += chance.random() * 0.01
        name, conn = chance.choice(names), chance.choice([A, A, A, A, A, B])
        frame = data(fill(numbers[name], at - 0.01, name), at=at, conn=conn)
        numbers[name] += 1
        match chance.randrange(150):
            case 0:
                frame = clock(at, chance.choice([0, SECOND, None]), a=at - 0.1, b=at)
            case 1:
                frame = chance.choice([opened, closed])(at, conn)
            case 2:
                frame = data(fill(numbers[name] - chance.randrange(4), at, name), at=at, conn=conn)
            case 3:
                frame = msgspec.structs.replace(frame, ts=chance.choice([None, T0 + 5 * SECOND, T0 - 10**18]))
            case 4:
                frame = msgspec.structs.replace(frame, data=frame.data.replace("100.5", chance.choice(TEXTS)))
            case 5:
                frame = data(fill(1, at, name), fill(numbers[name], at, name), at=at, conn=conn)
            case 6:
                numbers[name] = chance.choice([1, numbers[name] + 5_000_000])
            case 7:
                frame = subscription(chance.choice(["unsubscribed", "subscribed"]), at, conn, instrument=name)
            case 8:
                frame = data(fill(numbers[name], at, name, source="1"), at=at, conn=conn)
            case 9:
                frame = data(fill(numbers[name], chance.choice([at - 10**8, at - 1, at + 1]), name), at=at, conn=conn)
            case _:
                pass
        frames.append(frame)
    raw = [entry for entry in entries(frames, size=chance.choice([1, 2, 5, 20, 64])) if chance.random() < 0.98]
    taken_over = chance.randrange(5 * len(raw))
    return [*raw[:taken_over], *(msgspec.structs.replace(entry, w=2) for entry in raw[taken_over:])]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.booleans(), st.integers(1, 9), st.booleans(), st.sampled_from([1, 2, runs.FEWEST]))
def test_the_same_bytes_together_and_one_by_one(seed: int, busy: bool, batch: int, restore: bool, fewest: int) -> None:
    raw = market(seed) if busy else singles(seed, 65)
    expected = without_short_way(raw, end=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "FEWEST", fewest)
        played = play(raw, batch=batch, restore=restore, end=True)
    # A want that is taken back in the step that made it wakes nobody.
    assert {key: rows for key, rows in played.streams.items() if ":request:" not in key} == {
        key: rows for key, rows in expected.streams.items() if ":request:" not in key
    }
    assert (played.state, played.last) == (expected.state, expected.last)
    assert msgspec.json.encode(played.stage.report()) == msgspec.json.encode(expected.stage.report())


@pytest.mark.parametrize("exchange", ["okx", "binance"])
def test_of_a_busy_socket_few_frames_go_the_long_way(exchange: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [clock(0), exchange_info(0.1, "BTCUSDT") if exchange == "binance" else listing(SPOT_LISTING), opened(0.2)]
    for number in range(1, 501):
        if exchange == "okx":
            frames.append(data(fill(number, 1 + number / 100), at=1 + number / 100))
        else:
            at = 1 + number / 100
            event = {"e": "trade", "s": "BTCUSDT", "t": number, "p": "1.5", "q": "0.20", "m": number % 2 == 0}
            event |= {"T": (T0 + round(at * SECOND)) // 1_000_000}
            text = msgspec.json.encode({"stream": "btcusdt@trade", "data": event}).decode()
            frames.append(Frame(T0 + round(at * SECOND), A, "in", "ws", text))
    taken: list[Frame] = []
    take = Runs.take

    def watched(self: Runs, frames: Sequence[Frame], otherwise: object) -> None:
        def counted(frame: Frame) -> None:
            assert callable(otherwise)
            taken.append(frame)
            otherwise(frame)

        take(self, frames, counted)

    monkeypatch.setattr(Runs, "take", watched)
    raw = entries(frames, size=64)
    played = play(raw, exchange=exchange)
    assert len(taken) < 70
    monkeypatch.undo()
    expected = without_short_way(raw, exchange=exchange)
    assert (played.streams, played.last, played.state) == (expected.streams, expected.last, expected.state)
    assert any(len(rows) >= 500 for rows in played.streams.values())


def test_a_replayed_trade_covers_but_only_the_next_one_ends_the_doubt() -> None:
    """What may have been missed in a break is known only from the next number."""
    frames = [clock(0), listing(SPOT_LISTING), opened(0.2), *(data(fill(n, 1), at=1) for n in (1, 2, 3))]
    frames += [closed(2), opened(3), data(fill(3, 1), at=4)]
    raw = [*entries(frames), RawEntry(1, len(frames) + 1, tuple(data(fill(n, 4), at=4 + n / 10) for n in range(4, 19)))]
    before, played, expected = play(raw[:-1]), play(raw), without_short_way(raw)
    assert b"tail:BTC-USDT" in before.state.keys() - played.state.keys()
    assert (played.streams, played.state) == (expected.streams, expected.state)


def test_books_among_trades_stand_where_they_did() -> None:
    """A checkpoint says how many frames of its entry came before it."""
    trades = [data(fill(n, 1), at=1) for n in range(1, 30)]
    books = [book(1, 10, bids="99@1", asks="101@1"), book(1, 11, 10, bids="99@2")]
    asked = subscription("subscribed", 0.5, channel="books")
    frames = [clock(0), listing(SPOT_LISTING), opened(0.2), asked, *trades[:10], books[0], *trades[10:], books[1]]
    raw = entries(frames, size=64)
    played, expected = play(raw), without_short_way(raw)
    assert (played.streams, played.state) == (expected.streams, expected.state)


def test_a_trade_from_before_the_numbers_began_again_is_not_the_next_one() -> None:
    before = [data(fill(100 + n, 1 + n / 100), at=1 + n / 100) for n in range(20)]
    after = [data(fill(n, 5 + n / 100), at=5 + n / 100) for n in range(1, 30)]
    late = data(fill(30, 1.05), at=6)
    frames = [clock(0), listing(SPOT_LISTING), opened(0.2), *before, *after, late, data(fill(30, 6), at=6)]
    raw = entries(frames, size=64)
    played, expected = play(raw), without_short_way(raw)
    assert played.trades()[-2:] == [(1, 29), (1, 30)]
    assert (played.streams, played.state) == (expected.streams, expected.state)
