"""The spool on a real disk: in order, whose they were, bounded, harm told."""

from pathlib import Path

import msgspec

from ingest.spool import Spool
from pipeline.frames import RawEntry
from pipeline.segments import Segments
from tests.ingest.spooled import BIG, Entries, entries_of, frame, numbers, places

SENT = (0, 0)


class Told:
    """Errors for people."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str) -> None:
        self.texts.append(text)


async def opened(folder: Path, most_bytes: int = BIG) -> tuple[Spool, Told]:
    told = Told()
    spool = Spool(folder, most_bytes, told)
    await spool.open()
    return spool, told


async def drain(spool: Spool) -> Entries:
    entries: Entries = []
    while spool.unread:
        entries += [each.entry for each in await spool.read()]
    return entries


async def test_the_next_process_finds_what_was_left_and_says_whose_it_is(tmp_path: Path) -> None:
    spool, told = await opened(tmp_path)
    assert await spool.append(entries_of(1, 50), SENT) == (49, False)
    assert await spool.append(entries_of(1, 5, writer=9), SENT) == (4, False)
    first = await spool.read()
    await spool.drop(first[9].position)
    await spool.close()
    spool, told = await opened(tmp_path)
    assert spool.newest_writer == 9
    assert spool.unread
    row = spool.row()
    assert (row["records"], row["oldest"], row["dropped"], row["damaged"]) == (43, 11, 0, 0)
    assert row["bytes"] > 43_000
    assert await drain(spool) == [*entries_of(11, 50), *entries_of(1, 5, writer=9)]
    assert spool.row()["oldest"] is None
    assert told.texts == []
    await spool.close()


async def test_where_the_bound_is_reached_the_oldest_go_and_a_number_stays_out(tmp_path: Path) -> None:
    spool, told = await opened(tmp_path, most_bytes=100_000)
    given = 0
    while spool.dropped == 0:
        given += 10
        assert await spool.append(entries_of(given - 9, given + 1), SENT) == (10, False)
    left = await drain(spool)
    assert left == entries_of(given - len(left) + 1, given + 1)
    assert spool.dropped == given - len(left) > 1
    assert len(told.texts) == 1
    assert "the spool is full" in told.texts[0]
    await spool.close()


async def test_what_later_frames_are_read_by_outlives_the_bound(tmp_path: Path) -> None:
    spool, _ = await opened(tmp_path, most_bytes=100_000)
    kinds = ["open", "subscription", "ws", "ws"]
    head = [RawEntry(7, n, (frame(n, kind),)) for n, kind in enumerate(kinds, start=1)]
    await spool.append([*head, *entries_of(5, 60)], SENT)
    await spool.append(entries_of(60, 120), SENT)
    left = await drain(spool)
    saved, rest = left[0], left[1:]
    assert [one.kind for one in saved.frames] == ["open", "subscription"]
    assert saved.n == rest[0].n - 1, "the last of those that are lost"
    assert places(left) == [(7, n) for n in range(saved.n, 120)]
    assert spool.dropped == saved.n - 2
    await spool.close()


async def test_of_a_process_that_is_gone_altogether_nothing_is_saved(tmp_path: Path) -> None:
    spool, _ = await opened(tmp_path, most_bytes=100_000)
    await spool.append([RawEntry(6, 1, (frame(1, "open"),)), *entries_of(1, 60)], SENT)
    await spool.append(entries_of(60, 120), SENT)
    left = await drain(spool)
    assert {entry.w for entry in left} == {7}
    assert numbers(left) == list(range(numbers(left)[0], 120))
    await spool.close()


async def test_an_entry_larger_than_the_bound_stays_in_memory(tmp_path: Path) -> None:
    spool, told = await opened(tmp_path, most_bytes=100_000)
    assert await spool.append(entries_of(1, 2, size=200_000), SENT) == (0, False)
    assert "frames wait in memory" in told.texts[0]
    await spool.close()


async def test_an_entry_of_another_version_is_told_and_counted(tmp_path: Path) -> None:
    segments = Segments(tmp_path, most_bytes=BIG)
    segments.append([b"garbage", msgspec.msgpack.encode((99, 7, 1, ()))])
    segments.sync()
    segments.close()
    spool, told = await opened(tmp_path)
    await spool.append(entries_of(2, 3), SENT)
    assert await drain(spool) == entries_of(2, 3)
    assert spool.row()["damaged"] >= 2
    assert any("version 99" in text for text in told.texts)
    await spool.close()


def harm(folder: Path, what: bytes) -> None:
    """Turns a bit in the only file."""
    (file,) = folder.glob("*.seg")
    text = bytearray(file.read_bytes())
    text[text.index(what) + 1] ^= 1
    file.write_bytes(text)


async def test_a_damaged_entry_is_told_and_its_number_stays_out(tmp_path: Path) -> None:
    spool, _ = await opened(tmp_path)
    await spool.append(entries_of(1, 5), SENT)
    await spool.close()
    harm(tmp_path, b"2....")
    spool, told = await opened(tmp_path)
    assert [entry.n for entry in await drain(spool)] == [1, 3, 4]
    assert spool.row()["damaged"] == 1
    assert "1 entries on disk are damaged" in told.texts[0]
    await spool.close()


async def test_without_a_folder_frames_wait_in_memory(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    spool, told = await opened(tmp_path / "spool")
    assert not spool.usable
    assert len(told.texts) == 1
    assert await spool.append(entries_of(1, 2), SENT) == (0, False)
    await spool.close()
