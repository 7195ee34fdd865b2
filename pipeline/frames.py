"""Raw frames: what came over a socket or REST, stamped on arrival, and how they are packed.

As JSON Lines the same format serves record, replay, simulator and tests. Raw stream entries pack
several frames as msgpack; that packing is internal and versioned (`VERSION`).
"""

import gzip
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from pipeline.errors import ContractBroken, DecodeError

VERSION = 1
MOST_FRAMES = 64
MOST_BYTES = 256 * 1024

FrameKind = Literal["ws", "rest", "open", "close", "clock", "subscription", "request"]


class Frame(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`ts` ns UTC on arrival (null only in recordings that kept none); `conn` the endpoint, with `#n`
    to tell connections apart; `data` the text. Frames of our own making (`open`, `close`, `clock`,
    `subscription`, `request`) carry one of the structs below as JSON. `key`: the want that a REST answer is for."""

    ts: int | None
    conn: str
    dir: Literal["in", "out"]
    kind: FrameKind
    data: str
    url: str | None = None
    key: str | None = None


class ClockData(msgspec.Struct, frozen=True, omit_defaults=True):
    """Each 250 ms. `offset`: exchange clock minus host clock (ns), null while unknown, known to
    within `uncertainty` ns. `connections`: for each live one the host time of its last frame of any sort."""

    connections: dict[str, int]
    offset: int | None = None
    uncertainty: int = 0


class OpenData(msgspec.Struct, frozen=True):
    """A connection is up."""

    url: str


class CloseData(msgspec.Struct, frozen=True, omit_defaults=True):
    """A connection is gone. `reason` is short: `stopped`, `half-open`, `1006 …`."""

    reason: str


class SubscriptionData(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of one subscription on the frame's connection.

    `refused` carries the venue's code and text in `reason`. `timeframes`, `grace` (ns) and
    `quiet_from` are what the settings ask aggregate for; `depth` (levels), `interval` and `store_interval` (ns) what
    they ask of order books: at most one record in `interval`, one to be stored each `store_interval`."""

    channel: str
    instrument: str
    state: Literal["requested", "subscribed", "refused", "unsubscribed"]
    reason: str | None = None
    timeframes: tuple[str, ...] = ()
    grace: int = 1_000_000_000
    quiet_from: str = "1m"
    depth: int = 20
    interval: int = 100_000_000
    store_interval: int = 1_000_000_000


class RequestData(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a want: `asked` before the first request goes out, then `answered` (every frame of the answer
    stands before it in the stream) or `refused` with a short `reason`; `permanent`: asking again would not help. Of
    an answered want of trades `first` … `last` are the numbers that its pages span, whether the venue had them all or
    not."""

    key: str
    number: int
    state: Literal["asked", "answered", "refused"]
    reason: str | None = None
    permanent: bool = False
    first: int | None = None
    last: int | None = None


class RawEntry(msgspec.Struct, frozen=True):
    """One entry of a raw stream: writer `w` (ns at which that ingest started), its running number
    `n` (1, 2, 3 …), and the frames."""

    w: int
    n: int
    frames: tuple[Frame, ...]


_PACK = msgspec.msgpack.Encoder()
_UNPACK = msgspec.msgpack.Decoder(tuple[Frame, ...])
_LINE = msgspec.json.Encoder()
_READ_LINE = msgspec.json.Decoder(Frame)


def pack(entry: RawEntry) -> dict[bytes, bytes]:
    """The fields of the stream entry."""
    return {
        b"v": b"%d" % VERSION,
        b"w": b"%d" % entry.w,
        b"n": b"%d" % entry.n,
        b"frames": _PACK.encode(entry.frames),
    }


def unpack(fields: dict[bytes, bytes]) -> RawEntry:
    """The entry behind the fields. Raises ContractBroken for a packing we never wrote."""
    try:
        if int(fields[b"v"]) != VERSION:
            raise ContractBroken(f"raw entry of version {fields[b'v']!r}, this program reads {VERSION}")
        return RawEntry(w=int(fields[b"w"]), n=int(fields[b"n"]), frames=_UNPACK.decode(fields[b"frames"]))
    except (KeyError, ValueError, msgspec.DecodeError) as error:
        raise ContractBroken(f"raw entry is not ours: {error}") from error


def to_line(frame: Frame) -> bytes:
    """One JSON line, newline included."""
    return _LINE.encode(frame) + b"\n"


def from_line(line: bytes) -> Frame:
    """The frame of one JSON line. Raises DecodeError."""
    try:
        return _READ_LINE.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError("line is not a frame", str(error)) from error


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line without its newline) of a JSON Lines file, gzip or plain by content."""
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        lines: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if zipped else raw
        for number, line in enumerate(lines, start=1):
            if stripped := line.strip():
                yield number, stripped


def split(frames: Sequence[Frame]) -> Iterator[tuple[Frame, ...]]:
    """Groups of at most 64 frames and about 256 KiB; a larger frame is a group of its own."""
    group: list[Frame] = []
    size = 0
    for frame in frames:
        length = len(frame.data)
        if group and (len(group) == MOST_FRAMES or size + length > MOST_BYTES):
            yield tuple(group)
            group, size = [], 0
        group.append(frame)
        size += length
    if group:
        yield tuple(group)
