"""Records on disk: bounded, in order, exact after any death; what is damaged is counted, never made up."""

import contextlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.segments.tail
from pipeline.segments import DiskFull, Position, Segments, SegmentsFull, SegmentsInUse
from pipeline.segments.file import HEADER, RECORD, header, read_mark, write_mark
from tests.servers import DEADLINE

BIG = 1 << 30
PROJECT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "okx"


@contextlib.contextmanager
def opened(folder: Path, most_bytes: int = BIG, segment_bytes: int = 1 << 20) -> Iterator[Segments]:
    segments = Segments(folder, most_bytes=most_bytes, segment_bytes=segment_bytes)
    try:
        yield segments
    finally:
        segments.close()


def numbered(start: int, end: int) -> list[bytes]:
    """Records of different lengths, one of them empty."""
    return [b"" if number == 3 else b"%d " % number * (number % 7 + 1) for number in range(start, end)]


def large(start: int, end: int) -> list[bytes]:
    """Records of 4,000 bytes."""
    return [b"%08d" % number * 500 for number in range(start, end)]


def everything(segments: Segments, at_once: int = BIG) -> list[bytes]:
    """All that can be read, by steps of `at_once` bytes."""
    data: list[bytes] = []
    while records := segments.read(at_once):
        data += [record.data for record in records]
    return data


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


def flip(path: Path, offset: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("segment_bytes", [1, 60, 1 << 20])
@pytest.mark.parametrize("at_once", [1, 50, BIG])
def test_what_goes_in_comes_out_in_order_also_after_reopening(folder: Path, segment_bytes: int, at_once: int) -> None:
    with opened(folder, segment_bytes=segment_bytes) as segments:
        assert segments.read(at_once) == []
        for start in range(0, 60, 6):
            segments.append(numbered(start, start + 6))
        assert segments.waiting_records == 60
        assert everything(segments, at_once) == numbered(0, 60)
        assert segments.read(at_once) == []
        segments.append(numbered(60, 70))
        assert everything(segments, at_once) == numbered(60, 70)
        segments.rewind()
        assert everything(segments, at_once) == numbered(0, 70)
    with opened(folder, segment_bytes=segment_bytes) as segments:
        assert segments.waiting_records == 70
        segments.append(numbered(70, 75))
        assert everything(segments, at_once) == numbered(0, 75)
        assert (segments.torn, segments.lost) == (0, 0)
        assert segments.waiting_bytes >= sum(map(len, numbered(0, 75)))


def test_dropped_is_dropped_for_good_and_its_files_go(folder: Path) -> None:
    with opened(folder, segment_bytes=100) as segments:
        for number in range(40):
            segments.append(numbered(number, number + 1))
        before = len(files(folder))
        records = segments.read(BIG)
        segments.drop(records[24].position)
        assert len(files(folder)) < before
        assert segments.waiting_records == 15
        segments.rewind()
        assert everything(segments) == numbered(25, 40)
        segments.drop(records[3].position)
        assert segments.waiting_records == 15, "what is dropped already changes nothing"
    with opened(folder, segment_bytes=100) as segments:
        assert segments.waiting_records == 15
        records = segments.read(BIG)
        assert [record.data for record in records] == numbered(25, 40)
        segments.drop(records[-1].position)
        assert (segments.waiting_records, segments.waiting_bytes) == (0, 0)
        assert files(folder) == []
    with opened(folder) as segments:
        assert segments.read(BIG) == []
        segments.append(numbered(40, 42))
        assert everything(segments) == numbered(40, 42)


def test_reading_goes_on_where_it_was_dropped_although_nobody_read(folder: Path) -> None:
    with opened(folder, segment_bytes=100) as segments:
        segments.append(numbered(0, 10))
        position = segments.read(BIG)[6].position
        segments.rewind()
        segments.drop(position)
        assert everything(segments) == numbered(7, 10)


def test_the_bound_holds_for_the_files_themselves(folder: Path) -> None:
    most = 10_000
    with opened(folder, most) as segments:
        written = fill(segments, [b"x" * 90] * 1000, SegmentsFull)
        size = sum(path.stat().st_size for path in files(folder))
        assert most - 200 <= size <= most
        assert segments.waiting_records == written, "nothing of the refused ones"
        oldest = segments.read(most // 4)
        segments.drop(oldest[-1].position)
        segments.append([b"y" * 90])
        rest = everything(segments)
        assert rest == [b"x" * 90] * (written - len(oldest)) + [b"y" * 90]
        assert sum(path.stat().st_size for path in files(folder)) <= most
        with pytest.raises(SegmentsFull):
            segments.append([bytes(most)])


def test_files_are_for_their_owner_only(folder: Path) -> None:
    mask = os.umask(0)
    try:
        with opened(folder) as segments:
            segments.append([b"secret"])
            segments.drop(segments.read(1)[0].position)
            segments.append([b"secret"])
    finally:
        os.umask(mask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name for path in folder.iterdir()} >= {"mark", "lock"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_one_process_at_a_time(folder: Path) -> None:
    program = f"import sys; from pathlib import Path; from pipeline.segments import Segments\n\
Segments(Path({str(folder)!r}), most_bytes=1000)"
    with opened(folder):
        with pytest.raises(SegmentsInUse):
            Segments(folder, most_bytes=BIG)
        other = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, check=False)
        assert b"SegmentsInUse" in other.stderr
    assert subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=False).returncode == 0


@pytest.mark.parametrize("cut", [1, 3, 7, 8, 9])
def test_a_torn_last_record_is_cut_and_counted(folder: Path, cut: int) -> None:
    with opened(folder) as segments:
        segments.append([b"first", b"second", b"0123456789"])
    (file,) = files(folder)
    os.truncate(file, file.stat().st_size - cut)
    with opened(folder) as segments:
        assert segments.torn == 1
        assert segments.torn_bytes == RECORD.size + 10 - cut
        segments.append([b"third"])
        assert everything(segments) == [b"first", b"second", b"third"]
        assert segments.lost == 0
    with opened(folder) as segments:
        assert segments.torn == 0


def test_a_kill_while_a_file_is_made_leaves_nothing_behind(folder: Path) -> None:
    with opened(folder) as segments:
        segments.append([b"first", b"last"])
        assert segments.newest is None
    text = files(folder)[0].read_bytes()
    (folder / "000000000002.seg").write_bytes(header(2))
    (folder / "000000000003.seg").write_bytes(text[:11])
    with opened(folder) as segments:
        assert segments.newest == b"last"
        assert len(files(folder)) == 1
        segments.append([b"new"])
        assert everything(segments) == [b"first", b"last", b"new"]
        assert (segments.lost, segments.waiting_records) == (0, 3)


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_a_block_that_never_reached_the_disk_is_no_record(folder: Path, fill: bytes) -> None:
    """As a power loss leaves it: the file is long, and what was not synced reads as zeros."""
    with opened(folder) as segments:
        segments.append([b"first"])
    (file,) = files(folder)
    with file.open("ab") as tail:
        tail.write(fill * 4096)
    with opened(folder) as segments:
        assert (segments.torn, segments.torn_bytes) == (1, 4096)
        assert everything(segments) == [b"first"]


def test_a_damaged_record_whose_length_holds_is_skipped_alone(folder: Path) -> None:
    with opened(folder) as segments:
        segments.append([b"aaaa", b"bbbb", b"cccc"])
    (file,) = files(folder)
    flip(file, HEADER.size + RECORD.size + 4 + RECORD.size + 2)
    for _ in range(2):
        with opened(folder) as segments:
            assert segments.torn == 0
            assert everything(segments) == [b"aaaa", b"cccc"]
            assert segments.lost == 1
            segments.rewind()
            assert everything(segments) == [b"aaaa", b"cccc"]
            assert segments.lost == 1, "counted once"
            assert segments.waiting_records == 3


def test_a_damaged_length_costs_the_rest_of_its_file_and_every_record_is_counted(folder: Path) -> None:
    with opened(folder, segment_bytes=100) as segments:
        for number in range(40):
            segments.append([b"%08d" % number])
    first, second, *_ = files(folder)
    per_file = (first.stat().st_size - HEADER.size) // (RECORD.size + 8)
    flip(first, HEADER.size + RECORD.size + 8 + 1)
    with opened(folder) as segments:
        records = segments.read(BIG)
        assert [record.data for record in records] == [b"%08d" % n for n in (0, *range(per_file, 40))]
        assert segments.lost == per_file - 1
        segments.drop(records[-1].position)
        assert segments.waiting_records == 0
    assert not second.exists()


def test_a_file_that_lost_its_beginning_is_counted_too(folder: Path) -> None:
    with opened(folder, segment_bytes=100) as segments:
        for number in range(40):
            segments.append([b"%08d" % number])
    _, second, *_ = files(folder)
    per_file = (second.stat().st_size - HEADER.size) // (RECORD.size + 8)
    size = second.stat().st_size
    flip(second, 9)
    with opened(folder) as segments:
        assert segments.torn_bytes == size
        assert everything(segments) == [b"%08d" % n for n in range(40) if not per_file <= n < 2 * per_file]
        assert segments.lost == per_file


def test_damage_at_the_very_end_leaves_nothing_waiting(folder: Path) -> None:
    """It came while we had the file open: else it would be a torn end."""
    with opened(folder) as segments:
        segments.append([b"aaaa", b"bbbb"])
        segments.sync()
        (file,) = files(folder)
        flip(file, HEADER.size + RECORD.size + 4 + RECORD.size + 1)
        (first,) = segments.read(BIG)
        assert segments.read(BIG) == []
        assert segments.waiting_records == 2, "the first is not dropped yet"
        segments.drop(first.position)
        assert segments.read(BIG) == []
        assert (segments.waiting_records, segments.waiting_bytes, segments.lost) == (0, 0, 1)
        segments.append([b"cccc"])
        assert everything(segments) == [b"cccc"]


def test_a_lost_mark_gives_all_there_is_again(folder: Path) -> None:
    with opened(folder) as segments:
        segments.append(numbered(0, 10))
        segments.drop(segments.read(BIG)[4].position)
    (folder / "mark").write_bytes(b"\xff" * 5000)
    with opened(folder) as segments:
        assert everything(segments) == numbered(0, 10)


def test_a_torn_mark_leaves_the_one_before(tmp_path: Path) -> None:
    with (tmp_path / "mark").open("w+b", buffering=0) as file:
        assert read_mark(file.fileno()) is None
        marks = [Position(1, 100, 7), Position(1, 200, 9), Position(2, 30, 11)]
        for turn, mark in enumerate(marks):
            write_mark(file.fileno(), mark, turn)
            assert read_mark(file.fileno()) == mark
        os.pwrite(file.fileno(), b"\0" * 12, 0)
        assert read_mark(file.fileno()) == marks[1]


def test_a_full_disk_takes_nothing_and_harms_nothing(tiny_disk: Path) -> None:
    folder = tiny_disk / "spool"
    with opened(folder, segment_bytes=64_000) as segments:
        written = fill(segments, large(0, 1000), DiskFull)
        assert segments.waiting_records == written
        records = segments.read(100_000)
        segments.drop(records[-1].position)
        segments.append(large(written, written + 1))
        assert everything(segments) == large(len(records), written + 1)
    with opened(folder) as segments:
        assert segments.torn == 0
        assert everything(segments) == large(len(records), written + 1)


def fill(segments: Segments, records: Iterable[bytes], error: type[SegmentsFull]) -> int:
    """Appends until it raises that very error; how many it took."""
    for number, record in enumerate(records):
        try:
            segments.append([record])
        except error as raised:
            if type(raised) is error:
                return number
            raise
    raise AssertionError("it was never full")


def test_a_limit_on_file_sizes_is_a_full_disk(folder: Path) -> None:
    """Half of the record is written before the limit is met: it is taken back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(folder) as segments:
        segments.append([b"a" * 10])
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
            written = fill(segments, large(0, 1000), DiskFull)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert written >= 1
        segments.append([b"b"])
    with opened(folder) as segments:
        assert segments.torn == 0
        assert everything(segments) == [b"a" * 10, *large(0, written), b"b"]


def test_what_a_failed_sync_leaves_in_doubt_is_taken_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with opened(folder, segment_bytes=50) as segments:
        segments.append(numbered(0, 5))
        segments.sync()
        segments.append(numbered(5, 9))
        segments.append(numbered(9, 20))
        with monkeypatch.context() as patch:
            patch.setattr(pipeline.segments.tail, "flush", broken)
            with pytest.raises(OSError, match="Input/output"):
                segments.sync()
        assert segments.waiting_records == 5
        segments.append(numbered(5, 12))
        assert everything(segments) == numbered(0, 12)
    with opened(folder) as segments:
        assert everything(segments) == numbered(0, 12)
        assert (segments.torn, segments.lost) == (0, 0)


CHILD = """
import sys
from pathlib import Path
from pipeline.segments import Segments
segments = Segments(Path(sys.argv[1]), most_bytes=1 << 30, segment_bytes=50_000)
number = int(sys.argv[2])
while True:
    batch = [b"%d " % n * (n % 50 + 1) for n in range(number, number + 7)]
    number += len(batch)
    segments.append(batch)
    print("a", number, flush=True)
    if number % 3 == 0:
        segments.sync()
        print("s", number, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 2, 17, 180])
def test_a_process_killed_while_it_appends_loses_nothing_it_was_told_of(folder: Path, lines: int) -> None:
    """Killed in the middle of appending, three times into the same folder. The rest of one pipe is what it told us."""
    number, told = 0, 0
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), str(number)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        try:
            said = [child.stdout.readline() for _ in range(lines)]
        finally:
            child.send_signal(signal.SIGKILL)
            said += child.stdout.readlines()
            child.stdout.close()
            child.wait(DEADLINE)
        assert all(said)
        told = max(int(line.split()[1]) for line in said if line.endswith("\n"))
        with opened(folder) as segments:
            there = everything(segments)
            number = len(there)
            assert number >= told
            assert there == [b"%d " % n * (n % 50 + 1) for n in range(number)]
            assert segments.lost == 0
    assert told > 0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_truncation_and_flips_anywhere_give_a_part_of_the_truth_and_count_the_rest(data: st.DataObject) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tl-segments-"))
    try:
        lengths = data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=30))
        records = [b"%d:" % number + b"x" * length for number, length in enumerate(lengths)]
        with opened(folder, segment_bytes=data.draw(st.sampled_from([1, 100, 400, 10_000]))) as segments:
            for record in records:
                segments.append([record])
            segments.sync()
            dropped = data.draw(st.integers(0, len(records)))
            if dropped:
                segments.drop(segments.read(BIG)[dropped - 1].position)
        silent = damage(folder, data)
        with opened(folder) as segments:
            there = everything(segments)
            numbers = [int(record.split(b":")[0]) for record in there]
            assert numbers == sorted(set(numbers)), "in order, nothing twice"
            assert there == [records[number] for number in numbers], "nothing made up"
            assert all(number >= dropped for number in numbers)
            missing = set(range(dropped, len(records))) - set(numbers)
            if missing and not silent:
                assert segments.torn or segments.torn_bytes or segments.lost
                inside = {number for number in missing if numbers and number < numbers[-1]}
                assert segments.lost >= len(inside)
            segments.append([b"new"])
            assert everything(segments) == [b"new"]
    finally:
        shutil.rmtree(folder)


def damage(folder: Path, data: st.DataObject) -> bool:
    """The last file is cut, and any file has bits turned. Whether the cut is between two records: no writer leaves
    that of what it synced, and nobody could see it."""
    present = files(folder)
    silent = False
    if not present:
        return silent
    if data.draw(st.booleans()):
        text = present[-1].read_bytes()
        size = data.draw(st.integers(0, len(text) - 1))
        os.truncate(present[-1], size)
        silent = size in borders(text)
    for _ in range(data.draw(st.integers(0, 3))):
        path = data.draw(st.sampled_from(present))
        if size := path.stat().st_size:
            flip(path, data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 7)))
    return silent


def borders(text: bytes) -> set[int]:
    """Where records begin and end in a file."""
    found = {HEADER.size}
    while max(found) < len(text):
        found.add(max(found) + RECORD.size + RECORD.unpack_from(text, max(found))[0])
    return found


@settings(max_examples=40, deadline=None)
@given(events=st.lists(st.sampled_from(["append", "read", "drop", "rewind", "sync", "reopen"]), max_size=40))
def test_like_a_list_whatever_is_done(events: list[str]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tl-segments-"))
    segments = Segments(folder, most_bytes=BIG, segment_bytes=200)
    try:
        model: list[bytes] = []
        dropped = read = 0
        positions: dict[int, Position] = {}
        for event in events:
            if event == "append":
                new = numbered(len(model), len(model) + 5)
                model += new
                segments.append(new)
            elif event == "read":
                for record in segments.read(30):
                    assert record.data == model[read]
                    read += 1
                    positions[read] = record.position
            elif event == "drop" and read > dropped:
                dropped += (read - dropped + 1) // 2
                segments.drop(positions[dropped])
            elif event == "rewind":
                segments.rewind()
                read = dropped
            elif event == "sync":
                segments.sync()
            elif event == "reopen":
                segments.close()
                segments = Segments(folder, most_bytes=BIG, segment_bytes=200)
                read = dropped
            assert segments.waiting_records == len(model) - dropped
        segments.rewind()
        assert everything(segments) == model[dropped:]
        assert (segments.torn, segments.lost) == (0, 0)
    finally:
        segments.close()
        shutil.rmtree(folder)
