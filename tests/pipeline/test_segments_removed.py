"""Somebody frees the disk by hand while segments are in use: what was removed is lost and counted, the rest goes on."""

import shutil
from pathlib import Path

import pytest

from pipeline.segments import Segments
from tests.pipeline.test_segments import everything, files, large, opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "okx"


def synced(segments: Segments, start: int, end: int) -> None:
    """Records on disk, one at a time: several files."""
    for record in large(start, end):
        segments.append([record])
    segments.sync()


def test_a_file_that_was_removed_is_counted_and_the_others_are_read(folder: Path) -> None:
    with opened(folder, segment_bytes=20_000) as segments:
        synced(segments, 0, 20)
        assert len(files(folder)) >= 4
        gone = files(folder)[1]
        held = gone.stat().st_size // 4_000
        gone.unlink()
        found = everything(segments)
        assert len(found) == 20 - held
        assert segments.lost == held
        assert found[-1] == large(19, 20)[0]


def test_the_file_that_is_written_was_removed(folder: Path) -> None:
    """What was synced into it is lost; what comes after is not put where nobody would find it."""
    with opened(folder) as segments:
        synced(segments, 0, 5)
        files(folder)[0].unlink()
        segments.append(large(5, 6))
        with pytest.raises(OSError, match="removed while it was written"):
            segments.sync()
        synced(segments, 5, 8)
        assert everything(segments) == large(5, 8)
        assert segments.lost == 5


@pytest.mark.parametrize("read_before", [False, True])
def test_the_folder_was_removed(folder: Path, read_before: bool) -> None:
    """It is made anew; the next process finds what was written since."""
    with opened(folder) as segments:
        synced(segments, 0, 5)
        if read_before:
            assert segments.read(1)
        shutil.rmtree(folder.parent)
        segments.append(large(5, 6))
        with pytest.raises(OSError, match=r"o such file|removed"):
            segments.sync()
        synced(segments, 5, 8)
        assert everything(segments)[-3:] == large(5, 8)
    with opened(folder) as segments:
        assert everything(segments) == large(5, 8)


def test_nothing_is_left(folder: Path) -> None:
    """All of it lost is no reason to stand still."""
    with opened(folder) as segments:
        synced(segments, 0, 5)
        shutil.rmtree(folder)
        assert segments.read(1) == []
        assert (segments.lost, segments.waiting_records, segments.waiting_bytes) == (5, 0, 0)
