"""A line of a recording: a frame, and where in a raw stream it stood when `record` wrote it. No I/O.

Every reader of the frame format can read it and leave the additional keys alone; `replay` makes the raw entries
of them again, byte for byte.
"""

from collections.abc import Iterator

import msgspec

from pipeline.errors import DecodeError
from pipeline.exchanges import EXCHANGES, Exchange
from pipeline.frames import Frame, RawEntry
from pipeline.records import Instrument


class RecordedFrame(Frame, frozen=True, gc=False, omit_defaults=True):
    """`partition`, `entry` (stream id), `w` and `n` are those of the raw entry the frame came from; null in recordings
    by others. `instruments` stands on the first line of a partition whose stream was joined in mid-course: what was
    known of them then, because the lists came before."""

    partition: str | None = None
    entry: str | None = None
    w: int | None = None
    n: int | None = None
    instruments: tuple[Instrument, ...] = ()

    @property
    def frame(self) -> Frame:
        """The frame alone, as ingest wrote it."""
        return Frame(self.ts, self.conn, self.dir, self.kind, self.data, self.url, self.key)


_LINE = msgspec.json.Encoder()
_READ_LINE = msgspec.json.Decoder(RecordedFrame)


def lines_of(
    partition: str, entry_id: str, entry: RawEntry, instruments: tuple[Instrument, ...] = ()
) -> Iterator[bytes]:
    """The entry's frames as lines, newline included; the first of them carries `instruments`."""
    for frame in entry.frames:
        yield (
            _LINE.encode(
                RecordedFrame(
                    frame.ts,
                    frame.conn,
                    frame.dir,
                    frame.kind,
                    frame.data,
                    frame.url,
                    frame.key,
                    partition=partition,
                    entry=entry_id,
                    w=entry.w,
                    n=entry.n,
                    instruments=instruments,
                )
            )
            + b"\n"
        )
        instruments = ()


def read_line(line: bytes) -> RecordedFrame:
    """The frame of one line. Raises DecodeError."""
    try:
        return _READ_LINE.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError("line is not a frame", str(error)) from error


def exchange_of_partition(partition: str) -> Exchange | None:
    """The exchange whose partition (`okx`, `okx.0`) it is, or None."""
    return EXCHANGES.get(partition.partition(".")[0])
