"""The buffer beside a disk: every frame once, whatever happens to memory, disk and stream."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.buffer import Buffer, Spooled
from pipeline.frames import MOST_FRAMES
from pipeline.segments import Position
from tests.ingest.spooled import BIG, Entries, frame, numbers, places


class Disk:
    """What Segments do, in memory: it outlives the buffer."""

    def __init__(self) -> None:
        self.entries: Entries = []
        self.read = self.dropped = 0

    def load(self) -> list[Spooled]:
        start, self.read = self.read, min(self.read + 3, len(self.entries))
        return [Spooled(self.entries[at], Position(1, at + 1, at + 1)) for at in range(start, self.read)]


class Process:
    """A buffer used as the writer uses it; `stream` and `disk` outlive it."""

    def __init__(self, writer: int, stream: Entries, disk: Disk) -> None:
        self.buffer = Buffer(BIG, keep=30)
        self.writer, self.stream, self.disk = writer, stream, disk
        self.disk.read = self.disk.dropped
        self.wrote = len(stream)
        self.resume(0)

    def resume(self, now: int) -> None:
        self.buffer.resume(self.writer, places(self.stream)[-1] if self.stream else None, now)

    def burst(self, now: int) -> Entries:
        if not self.buffer.sending and self.disk.read < len(self.disk.entries):
            self.buffer.load(self.disk.load(), now)
        return self.buffer.burst(fresh=self.disk.read == len(self.disk.entries))

    def commit(self, now: int) -> bool:
        entries = self.burst(now)
        self.stream += entries
        self.buffer.confirm(len(entries), now)
        if (position := self.buffer.take_droppable()) is not None:
            self.disk.dropped = max(self.disk.dropped, position.record)
        return bool(entries) or self.disk.read < len(self.disk.entries)

    def spool(self, share: float, doubt: bool) -> None:
        entries = self.buffer.spool()
        count = round(len(entries) * share)
        self.disk.entries += entries[:count]
        self.buffer.spooled(count, doubt=doubt)


EVENTS = ["frames", "commit", "applied, reply lost", "lost", "tail lost", "doubt", "spool", "part", "none", "in doubt"]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from([*EVENTS, "kill"]), max_size=80))
def test_every_frame_once_and_in_order_whatever_happens_to_memory_disk_and_stream(events: list[str]) -> None:
    """`tail lost`: Redis forgets what it had confirmed just now. `kill`: what was in memory only is gone."""
    stream: Entries = []
    disk = Disk()
    process = Process(7, stream, disk)
    number, burnt = 0, False
    gone: set[int] = set()
    for now, event in enumerate(events):
        if event == "frames":
            for _ in range(70):
                process.buffer.append(frame(number))
                number += 1
        elif event == "commit":
            process.commit(now)
        elif event in ("applied, reply lost", "lost"):
            entries = process.burst(now)
            stream += entries if event == "applied, reply lost" else []
            process.resume(now)
        elif event == "tail lost":
            # Not what an earlier process wrote: that is not kept in our memory.
            del stream[max(process.wrote, len(stream) - 2) :]
            process.resume(now)
        elif event == "doubt":
            process.resume(now)
        elif event == "kill":
            gone |= set(range(number)) - {*numbers(stream), *numbers(disk.entries)}
            process = Process(process.writer + 1, stream, disk)
        else:
            process.spool({"spool": 1, "part": 0.5}.get(event, 0), event == "in doubt")
            burnt = burnt or event == "in doubt"
    while process.commit(len(events)) or not process.buffer.empty:
        pass
    assert numbers(stream) == [each for each in range(number) if each not in gone]
    assert places(stream) == sorted(set(places(stream)))
    if not burnt:
        for writer in {w for w, _ in places(stream)}:
            of_it = [n for w, n in places(stream) if w == writer]
            assert of_it == list(range(1, len(of_it) + 1)), "no number stays out where nothing was dropped"
    for later in range(2):
        process.buffer.append(frame(number + later))
        while process.commit(len(events) + 100 * (later + 1)):
            pass
    assert disk.dropped == len(disk.entries), "all of it may go once it was kept long enough"


def test_what_comes_back_from_disk_is_older_than_what_was_dropped_meanwhile() -> None:
    """One hole, told before what comes after it."""
    buffer = Buffer(6 * MOST_FRAMES * 160, 30)
    buffer.resume(7, None, 0)
    for number in range(3 * MOST_FRAMES):
        buffer.append(frame(number))
    assert [entry.n for entry in buffer.spool()] == [1, 2, 3]
    lost = sum(buffer.append(frame(number)) for number in range(3 * MOST_FRAMES, 12 * MOST_FRAMES))
    assert lost > 0
    lost += buffer.spooled(1)
    entries: Entries = []
    while burst := buffer.burst():
        entries += burst
        buffer.confirm(len(burst), 0)
    assert [entry.n for entry in entries] == list(range(3, len(entries) + 3)), "1 is on disk, 2 stays out"
    assert MOST_FRAMES + lost + len(numbers(entries)) == 12 * MOST_FRAMES
    assert numbers(entries) == list(range(MOST_FRAMES + lost, 12 * MOST_FRAMES))
