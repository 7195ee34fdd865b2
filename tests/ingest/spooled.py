"""Numbered frames in entries, to be put on disk and found again."""

from ingest.buffer import Place
from pipeline.frames import Frame, RawEntry
from tests.ingest.conftest import frames_of

BIG = 1 << 30
Entries = list[RawEntry]


def frame(number: int, kind: str = "ws", conn: str = "c#1", size: int = 0) -> Frame:
    return Frame(number, conn, "in", kind, str(number).ljust(size, "."))  # type: ignore[arg-type]


def numbers(entries: Entries) -> list[int]:
    return [one.ts or 0 for one in frames_of(entries)]


def places(entries: Entries) -> list[Place]:
    return [(entry.w, entry.n) for entry in entries]


def entries_of(start: int, end: int, writer: int = 7, size: int = 1_000) -> Entries:
    return [RawEntry(writer, n, (frame(n, size=size),)) for n in range(start, end)]
