"""The spill on a real disk: it outlives the process, and tells what is not ours."""

import asyncio
import os
from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.steps import Entry
from store.spill import VERSION, Part, Spilled
from tests.store.spilled import made, size


def record(number: int, namespace: str = "test", version: int = VERSION) -> Spilled:
    part = Part("trade", f"{number - 1}-0", f"{number}-0", 1, False, [Entry(b"%d-0" % number, {b"data": b"x"})])
    return Spilled(version, namespace, number, [part], {"trade": (f"{number}-0", number)})


def tear(folder: Path) -> None:
    """As a kill in the middle of the last write leaves it."""
    (path,) = folder.glob("*.seg")
    os.truncate(path, path.stat().st_size - 3)


async def test_what_is_on_disk_outlives_the_process(tmp_path: Path) -> None:
    reports: list[str] = []
    spill, stop = made(tmp_path, reports), asyncio.Event()
    await spill.open(stop)
    assert await spill.append([record(n) for n in range(1, 11)]) == 10
    (*_, fifth, _, _, _, _, _) = await spill.read()
    assert fifth.record == record(5)
    await spill.drop(fifth.position)
    await spill.close()
    tear(tmp_path)
    spill = made(tmp_path, reports)
    await spill.open(stop)
    assert spill.row()["oldest"] == 6
    assert spill.reach == {"trade": ("9-0", 9)}
    assert [each.record for each in await spill.read()] == [record(n) for n in range(6, 10)]
    assert "torn by a crash" in reports[0]
    await spill.close()


async def test_the_pace_of_loading_shows(tmp_path: Path) -> None:
    spill = made(tmp_path, [])
    await spill.open(asyncio.Event())
    await spill.append([record(n) for n in range(1, 11)])
    assert (spill.row()["rate"], spill.row()["seconds_left"]) == (None, None)
    each = spill.waiting / 10
    first, second, *_ = await spill.read()
    await spill.drop(first.position)
    await spill.drop(second.position)
    row = spill.row()
    # Two records in the two seconds since the first row.
    assert row["rate"] == pytest.approx(each, abs=1)
    assert row["seconds_left"] == pytest.approx(8, abs=0.5)
    await spill.close()


@pytest.mark.parametrize(
    ("left", "text"), [(record(1, "sim"), "namespace sim"), (record(1, version=VERSION + 1), "of version")]
)
async def test_records_that_are_not_ours_stop_the_start_and_stay(tmp_path: Path, left: Spilled, text: str) -> None:
    other = made(tmp_path, [], "sim")
    await other.open(asyncio.Event())
    await other.append([left])
    await other.close()
    spill = made(tmp_path, [])
    with pytest.raises(SettingsError, match=text):
        await spill.open(asyncio.Event())
    await spill.close()
    assert size(tmp_path) > 70
