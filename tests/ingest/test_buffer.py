"""The buffer against a stream that confirms, loses and forgets: every frame once, in order, drops visible."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.buffer import BURST_BYTES, OVERHEAD, Buffer
from pipeline.frames import MOST_FRAMES, Frame, RawEntry

W = 7
BIG = 1 << 40


def frame(number: int, kind: str = "ws", conn: str = "c#1", size: int = 0, url: str | None = None) -> Frame:
    return Frame(number, conn, "in", kind, str(number).ljust(size, "."), url)  # type: ignore[arg-type]


def written(stream: list[RawEntry]) -> list[int | None]:
    return [frame.ts for entry in stream for frame in entry.frames]


def drain(buffer: Buffer, stream: list[RawEntry], now: int = 0) -> None:
    while entries := buffer.burst():
        stream += entries
        buffer.confirm(len(entries), now)


def last_of(stream: list[RawEntry]) -> tuple[int, int] | None:
    return (stream[-1].w, stream[-1].n) if stream else None


def test_entries_are_numbered_from_one_and_hold_at_most_64_frames() -> None:
    buffer, stream = Buffer(BIG, 10), list[RawEntry]()
    buffer.resume(W, None, 0)
    for number in range(200):
        buffer.append(frame(number))
    drain(buffer, stream)
    assert [(entry.w, entry.n) for entry in stream] == [(W, number) for number in range(1, len(stream) + 1)]
    assert max(len(entry.frames) for entry in stream) == MOST_FRAMES
    assert written(stream) == list(range(200))
    assert buffer.empty
    assert buffer.waiting_bytes == 0


def test_a_burst_is_bounded_by_bytes_but_takes_one_large_entry() -> None:
    buffer = Buffer(BIG, 10)
    buffer.resume(W, None, 0)
    for number in range(12):
        buffer.append(frame(number, size=BURST_BYTES // 4))
    first = buffer.burst()
    assert 3 <= len(first) <= 5
    assert buffer.burst() == first, "not confirmed: the same again"
    other = Buffer(BIG, 10)
    other.resume(W, None, 0)
    other.append(frame(1, size=3 * BURST_BYTES))
    assert len(other.burst()) == 1


@settings(max_examples=200)
@given(
    st.lists(st.lists(st.sampled_from([0, 100, 90_000, 300_000]), max_size=150), max_size=6),
    st.sampled_from([BIG, 700_000, 200]),
)
def test_frames_in_a_row_make_the_same_entries_as_one_by_one(runs: list[list[int]], capacity: int) -> None:
    one, many = Buffer(capacity, 10), Buffer(capacity, 10)
    streams: tuple[list[RawEntry], list[RawEntry]] = ([], [])
    for buffer in (one, many):
        buffer.resume(W, None, 0)
    for run in runs:
        frames = [frame(number, kind="ws" if number % 7 else "open", size=size) for number, size in enumerate(run)]
        assert many.extend(frames) == sum(map(one.append, frames))
        assert many.waiting_bytes == one.waiting_bytes
        if len(run) % 2:
            drain(one, streams[0])
            drain(many, streams[1])
    drain(one, streams[0])
    drain(many, streams[1])
    assert streams[0] == streams[1]


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(["frames", "commit", "applied, reply lost", "lost", "tail lost", "restart"]), max_size=60)
)
def test_every_frame_once_and_in_order_whatever_happens_to_transactions(events: list[str]) -> None:
    """`tail lost`: the server forgets its last entries, as after a kill between write and fsync."""
    buffer, stream, number = Buffer(BIG, 1_000), list[RawEntry](), 0
    buffer.resume(W, None, 0)
    for now, event in enumerate(events):
        if event == "frames":
            for _ in range(70):
                buffer.append(frame(number))
                number += 1
        elif event == "commit":
            entries = buffer.burst()
            stream += entries
            buffer.confirm(len(entries), now)
        else:
            stream += buffer.burst() if event == "applied, reply lost" else []
            if event == "lost":
                buffer.burst()
            if event == "tail lost":
                del stream[-2:]
            buffer.resume(W, last_of(stream), now)
    drain(buffer, stream)
    assert written(stream) == list(range(number))
    assert [entry.n for entry in stream] == list(range(1, len(stream) + 1))


def test_what_was_kept_long_enough_is_forgotten_and_shows_as_a_jump_if_lost() -> None:
    buffer, stream = Buffer(BIG, 5), list[RawEntry]()
    buffer.resume(W, None, 0)
    for now in (0, 10, 20):
        buffer.append(frame(now))
        drain(buffer, stream, now)
    stream.clear()
    buffer.resume(W, None, 21)
    drain(buffer, stream, 21)
    assert [(entry.n, entry.frames[0].ts) for entry in stream] == [(3, 20)]


def test_an_older_writers_entries_do_not_count_as_ours() -> None:
    buffer, stream = Buffer(BIG, 5), list[RawEntry]()
    buffer.resume(W, (W - 1, 900), 0)
    buffer.append(frame(1))
    drain(buffer, stream)
    assert stream[0].n == 1


def test_the_oldest_whole_entries_are_dropped_counted_and_leave_a_number_out() -> None:
    capacity = 3 * MOST_FRAMES * (OVERHEAD + 10)
    buffer, stream = Buffer(capacity, 5), list[RawEntry]()
    buffer.resume(W, None, 0)
    buffer.append(frame(0, size=10))
    drain(buffer, stream)
    lost = sum(buffer.append(frame(number, size=10)) for number in range(1, 1_001))
    assert buffer.waiting_bytes <= capacity
    drain(buffer, stream)
    kept = written(stream)[1:]
    assert kept == list(range(1_001 - len(kept), 1_001)), "the newest ones, in order"
    assert lost == 1_000 - len(kept) > 0
    assert lost % MOST_FRAMES == 0
    numbers = [entry.n for entry in stream]
    assert numbers == [1, *range(3, len(numbers) + 2)]


def test_entries_in_doubt_are_never_dropped() -> None:
    buffer, stream = Buffer(4 * MOST_FRAMES * OVERHEAD, 5), list[RawEntry]()
    buffer.resume(W, None, 0)
    for number in range(MOST_FRAMES):
        buffer.append(frame(number))
    in_doubt = buffer.burst()
    for number in range(MOST_FRAMES, 10 * MOST_FRAMES):
        buffer.append(frame(number))
    buffer.resume(W, None, 0)
    drain(buffer, stream)
    assert stream[: len(in_doubt)] == in_doubt
    assert stream[len(in_doubt)].n == in_doubt[-1].n + 2


def test_what_later_frames_are_read_by_outlives_a_drop() -> None:
    capacity = 4 * MOST_FRAMES * OVERHEAD
    buffer, stream = Buffer(capacity, 5), list[RawEntry]()
    buffer.resume(W, None, 0)
    lasting = [
        frame(1, "rest", "r", url="/old"),
        frame(2, "rest", "r", url="/spot"),
        frame(3, "open", "c#1"),
        frame(4, "subscription", "c#1"),
        frame(5, "close", "c#1"),
        frame(6, "rest", "r", url="/spot"),
        frame(7, "open", "c#2"),
        frame(8, "subscription", "c#2"),
        frame(9, "close", "c#0"),
    ]
    for one in lasting:
        buffer.append(one)
    for number in range(100, 2_000):
        buffer.append(frame(number))
    drain(buffer, stream)
    saved = [number for number in written(stream) if number is not None and number < 100]
    assert saved == [1, 6, 7, 8, 9], "the newest list of each kind, live connections, and ends of known ones"
    assert stream[0].n == 2
    assert [entry.n for entry in stream] == list(range(2, len(stream) + 2))
