"""What is packed comes back; groups stay within their bounds; files are read plain or zipped."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ContractBroken, DecodeError
from pipeline.frames import (
    MOST_BYTES,
    MOST_FRAMES,
    Frame,
    RawEntry,
    from_line,
    pack,
    read_lines,
    split,
    to_line,
    unpack,
)

FRAMES = st.builds(
    Frame,
    ts=st.integers(min_value=0, max_value=2**62),
    conn=st.text(max_size=20),
    dir=st.sampled_from(["in", "out"]),
    kind=st.sampled_from(["ws", "rest", "open", "close", "clock"]),
    data=st.text(max_size=200),
    url=st.none() | st.text(max_size=20),
)


@given(st.integers(min_value=1, max_value=2**62), st.integers(min_value=1), st.lists(FRAMES, max_size=5))
def test_an_entry_comes_back(writer: int, number: int, frames: list[Frame]) -> None:
    entry = RawEntry(w=writer, n=number, frames=tuple(frames))
    assert unpack(pack(entry)) == entry


@given(FRAMES)
def test_a_line_comes_back(frame: Frame) -> None:
    line = to_line(frame)
    assert line.count(b"\n") == 1
    assert from_line(line) == frame


def test_an_unknown_packing_is_refused() -> None:
    fields = pack(RawEntry(w=1, n=1, frames=()))
    with pytest.raises(ContractBroken, match="version"):
        unpack({**fields, b"v": b"2"})
    with pytest.raises(ContractBroken, match="not ours"):
        unpack({b"v": b"1"})


def test_a_line_that_is_no_frame_says_so() -> None:
    with pytest.raises(DecodeError, match="not a frame"):
        from_line(b'{"ts": 1}')
    with pytest.raises(DecodeError):
        from_line(b"\xff\xfe")


@given(st.lists(st.integers(min_value=0, max_value=MOST_BYTES * 2), max_size=200))
def test_groups_keep_order_and_bounds(lengths: list[int]) -> None:
    frames = [Frame(ts=i, conn="c", dir="in", kind="ws", data="x" * n) for i, n in enumerate(lengths)]
    groups = list(split(frames))
    assert [frame.ts for group in groups for frame in group] == list(range(len(frames)))
    for group in groups:
        assert 1 <= len(group) <= MOST_FRAMES
        assert len(group) == 1 or sum(len(frame.data) for frame in group) <= MOST_BYTES


@pytest.mark.parametrize("zipped", [False, True])
def test_files_are_read_by_content_not_by_name(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "frames.jsonl"
    content = b'{"a":1}\n\n{"b":2}'
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert list(read_lines(path)) == [(1, b'{"a":1}'), (3, b'{"b":2}')]
