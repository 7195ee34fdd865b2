"""The CSV of a daily file cut into pieces: the trades wanted and no others, whatever the file looks like."""

import io
import zipfile
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import cutting
from ingest.cutting import BLOCK, LONGEST_LINE, Cutter
from ingest.exchanges.binance import Feed
from ingest.feed import Archive
from ingest.history import SLACK, Wanted
from pipeline.errors import ExchangeError
from pipeline.timeframes import SECOND

TIME = 1_790_000_000 * SECOND


def archive() -> Archive:
    found = Feed().archive
    assert found is not None
    return found


def line(number: int, time: int | None = None) -> str:
    told = TIME // 1_000 + number if time is None else time // 1_000
    return f"{number},251.07000000,0.12060000,30.27904200,{told},True,True"


def packed(text: str | bytes, *more: str, method: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        made.writestr("X-trades-2026-09-21.csv", text)
        for name in more:
            made.writestr(name, "")
    return file


def cut(file: io.BytesIO, first: int, last: int, slack: int = SLACK) -> tuple[list[str], list[tuple[int, int]]]:
    """(lines, ranges) of all pieces."""
    cutter = Cutter(file, archive(), Wanted(first, last, TIME - slack, TIME + slack))
    lines: list[str] = []
    ranges: list[tuple[int, int]] = []
    while (piece := cutter.next()) is not None:
        lines += piece.text.splitlines()
        ranges += piece.ranges
        assert len(piece.text) <= BLOCK + LONGEST_LINE
        assert piece.trades == len(piece.text.splitlines())
    return lines, ranges


def spelt(numbers: Sequence[int]) -> str:
    return "".join(f"{line(number)}\n" for number in numbers)


def test_only_what_is_wanted_is_taken() -> None:
    lines, ranges = cut(packed(spelt(range(1, 100))), 10, 20)
    assert lines == [line(number) for number in range(10, 21)]
    assert ranges == [(10, 20)]


def test_a_large_file_comes_in_pieces_and_what_follows_is_not_read() -> None:
    numbers = range(1_000, 30_000)
    file = packed(spelt(numbers) + "no trade\n" * 10_000)
    lines, ranges = cut(file, 5_000, 20_000)
    assert lines == [line(number) for number in range(5_000, 20_001)]
    assert len(ranges) > 10
    assert [low for low, _ in ranges[1:]] == [high + 1 for _, high in ranges[:-1]]
    assert (ranges[0][0], ranges[-1][1]) == (5_000, 20_000)


def test_what_the_file_lacks_is_in_no_range() -> None:
    lines, ranges = cut(packed(spelt([1, 2, 3, 6, 7, 9])), 2, 9)
    assert ranges == [(2, 3), (6, 7), (9, 9)]
    assert len(lines) == 5


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("head", ["", "id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n"])
def test_ends_of_lines_and_a_line_with_names(head: str, ending: str) -> None:
    text = head + "\r\n".join(line(number) for number in range(1, 5)) + ending
    lines, ranges = cut(packed(text), 2, 4)
    assert lines == [line(number) for number in range(2, 5)]
    assert [number for low, high in ranges for number in range(low, high + 1)] == [2, 3, 4]


def test_milliseconds_of_before_2025_are_read_too() -> None:
    read = archive().read
    assert read(b"1,1.0,1.0,1.0,1583709433583,True,True") == (1, 1583709433583 * 1_000_000)
    assert read(b"1,1.0,1.0,1.0,1735689600007172,True,True") == (1, 1735689600007172 * 1_000)


@pytest.mark.parametrize(
    "text",
    [
        f"{line(1)}\nhello\n",
        f"{line(1)}\n{line(2)},more\n",
        f"{line(1)}\nx{line(2)}\n",
        f"{line(1)}\n2,1,1,1,,True,True\n",
        f"{line(1)}\n{'1' * (BLOCK + LONGEST_LINE + 1)}\n",
    ],
)
def test_what_is_no_trade_spoils_the_file(text: str) -> None:
    with pytest.raises(ExchangeError):
        cut(packed(text), 1, 9)


def test_trades_of_another_listing_are_not_taken() -> None:
    text = "".join(f"{line(number, TIME - 3 * SLACK)}\n" for number in range(1, 5))
    with pytest.raises(ExchangeError, match="listed anew"):
        cut(packed(text), 2, 3)
    assert cut(packed(text), 7, 9) == ([], []), "what is not wanted may have any time"


def test_files_that_are_none() -> None:
    whole = packed(spelt(range(1, 5_000)), method=zipfile.ZIP_STORED).getvalue()
    damaged = bytearray(whole)
    damaged[3_000] ^= 1
    for content in (b"", b"no zip", whole[: len(whole) // 2], whole[:-30]):
        with pytest.raises(ExchangeError):
            cut(io.BytesIO(content), 1, 10_000)
    with pytest.raises(ExchangeError):
        cut(io.BytesIO(bytes(damaged)), 1, 10_000)
    with pytest.raises(ExchangeError, match="holds 2 files"):
        cut(packed(spelt([1]), "other.csv"), 1, 1)
    assert cut(packed(""), 1, 9) == ([], [])


def test_others_get_their_turn_in_what_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "BLOCKS", 2)
    cutter = Cutter(packed(spelt(range(1, 20_000))), archive(), Wanted(19_990, 19_999, None, None))
    pieces = []
    while (piece := cutter.next()) is not None:
        pieces.append(piece)
    assert len(pieces) > 5
    assert [piece.ranges for piece in pieces if piece.trades] == [((19_990, 19_999),)]


@given(
    content=st.binary(max_size=200)
    | st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6).map(
        lambda changes: _changed(packed(spelt(range(1, 60))).getvalue(), changes)
    )
)
def test_whatever_the_bytes_are_it_is_a_torn_file_or_trades(content: bytes) -> None:
    try:
        lines, ranges = cut(io.BytesIO(content), 1, 100)
    except ExchangeError:
        return
    assert len(lines) == sum(high - low + 1 for low, high in ranges)


def _changed(content: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content)
    for place, byte in changes:
        changed[place % len(changed)] = byte
    return bytes(changed)


@given(
    listed=st.sets(st.integers(1, 300)).map(sorted),
    first=st.integers(1, 300),
    length=st.integers(0, 300),
)
def test_whatever_is_listed_ranges_are_what_was_taken(listed: list[int], first: int, length: int) -> None:
    lines, ranges = cut(packed(spelt(listed)), first, first + length)
    taken = [number for number in listed if first <= number <= first + length]
    assert lines == [line(number) for number in taken]
    assert [number for low, high in ranges for number in range(low, high + 1)] == taken
