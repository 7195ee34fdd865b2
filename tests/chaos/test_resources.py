"""Figures of a run: the most and the last of each process, and how long streams stood still."""

from pipeline.commands._chaos.resources import Resources, Sample, Silence, Use

MIB = 2**20
STREAM = "sim:trade:{okx}"


def sample(time: float, newest: bytes | None, *, postgres: bool = True, **uses: Use) -> Sample:
    return Sample(
        time=time,
        uses={name.replace("_", "-"): use for name, use in uses.items()},
        newest=None if newest is None else {STREAM: newest},
        postgres=postgres,
        redis=None if newest is None else (7 * MIB, 256 * MIB),
    )


def test_the_most_and_the_last_are_kept() -> None:
    found = Resources()
    found.add(sample(0, b"1-0", store_0=Use(memory=5 * MIB, peak=9 * MIB, files=20, disk=0), redis=Use(disk=90 * MIB)))
    found.add(sample(1, b"2-0", store_0=Use(memory=7 * MIB, peak=7 * MIB, files=18, disk=3 * MIB)))
    found.add(
        sample(2, None, store_0=Use(memory=6 * MIB, peak=7 * MIB, files=19, disk=1), ingest_okx=Use(disk=2 * MIB))
    )
    store = found.processes["store-0"]
    assert (store.memory.most, store.memory.last) == (9 * MIB, 6 * MIB)
    assert (store.files.most, store.files.last) == (20, 19)
    assert (store.disk.most, store.disk.last) == (3 * MIB, 1)
    assert (found.memory.most, found.waiting.most) == (7 * MIB, 3 * MIB)
    assert (found.redis.most, found.maxmemory) == (7 * MIB, 256 * MIB)
    assert found.figures == {"memory_mib": 7, "disk_mib": 3, "longest_silence_s": None, "longest_return_s": None}


def test_what_nobody_knows_is_no_number() -> None:
    found = Resources()
    found.add(sample(0, None, watchdog=Use()))
    assert found.figures == dict.fromkeys(("memory_mib", "disk_mib", "longest_silence_s", "longest_return_s"))
    assert found.table().row_count == 4


def test_a_stream_is_silent_from_its_newest_entry_to_the_next() -> None:
    one = Silence()
    for time, newest in ((0, b"1"), (1, b"2"), (2, b"2"), (4, b"2"), (5, b"3"), (6, b"4")):
        one.look(newest, time, postgres=True)
    assert (one.longest, one.without_postgres, one.again) == (4, 0, 0)


def test_of_a_silence_what_falls_while_postgres_is_away_is_told_apart() -> None:
    one = Silence()
    for time, newest, postgres in (
        (0, b"1", True),
        (1, b"2", True),
        (6, b"3", True),
        (7, b"4", False),
        (9, b"5", False),
    ):
        one.look(newest, time, postgres=postgres)
    assert (one.longest, one.without_postgres) == (5, 2)


def test_while_redis_is_away_nothing_is_silent() -> None:
    one = Silence()
    for time, newest in ((0, b"1"), (1, b"2"), (2, None), (60, None), (61, b"2"), (63, b"2"), (64, b"3"), (65, b"4")):
        one.look(newest, time, postgres=True)
    assert (one.longest, one.again) == (1, 3)


def test_streams_are_told_with_and_without_postgres() -> None:
    found = Resources()
    for time, postgres in ((0.0, True), (1.0, False), (2.0, True)):
        made = sample(time, str(time).encode(), postgres=postgres)
        found.add(made)
        found.listen(made, [STREAM])
    assert found.figures["longest_silence_s"] == 1.0
    cells = [list(column.cells) for column in found.streams_table().columns]
    assert [str(column[0]) for column in cells] == [STREAM, "1.0", "1.0", "0.0"]
