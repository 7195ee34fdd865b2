"""`pipeline record` on a real Redis, and `replay` of what it wrote: the very bytes that live gave."""

import asyncio
import gzip
import json
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis as redis_client

from pipeline.errors import TapelineError
from pipeline.frames import Frame, RawEntry, from_line, pack, to_line, unpack
from pipeline.heartbeat import Heartbeat
from pipeline.recordings import RecordedFrame, lines_of, read_line
from pipeline.records import Instrument, encode
from pipeline.steps import Stage
from pipeline.streams import Keys
from pipeline.wire import Wire
from pipeline.worker import work
from tests.commands.conftest import Instance
from tests.integration.rawstream import commands, raw_stream
from tests.pipeline.faults import dump, until
from tests.servers import RedisServer, wait_until

KEYS = Keys("md", "okx")
LAB = Keys("lab", "okx")
START = 1_763_719_200_000_000_000


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_client.Redis.from_url(redis_server.url) as connection:
        yield connection


def frame(number: int, text: str = "{}") -> Frame:
    return Frame(START + number, "wss://ws.okx.com/ws/v5/public#1", "in", "ws", text)


def add(client: Any, number: int, *frames: Frame, w: int = START, keys: Keys = KEYS, **where: Any) -> bytes:
    entry: bytes = client.xadd(keys.raw, pack(RawEntry(w, number, frames or (frame(number),))), **where)
    return entry


def read(path: Path) -> list[RecordedFrame]:
    text = path.read_bytes()
    return [read_line(line) for line in (gzip.decompress(text) if path.name.endswith(".gz") else text).splitlines()]


def summary(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def record(instance: Instance, path: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    result = instance.run("record", str(path), "--json", *options)
    return result.exit_code, summary(result.stdout) if result.stdout else {}, result.stderr


def whole(instance: Instance, path: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    return record(instance, path, "--from-start", "--no-follow", *options)


def test_a_recorded_line_is_a_line_of_the_frame_format() -> None:
    frames = (frame(1, 'ü "\ud83d\ude00"'.encode("utf-16", "surrogatepass").decode("utf-16")), frame(2))
    entry = RawEntry(START, 7, frames)
    lines = list(lines_of("okx.1", "12-3", entry))
    assert tuple(from_line(line) for line in lines) == frames
    found = [read_line(line) for line in lines]
    assert {(row.partition, row.entry, row.w, row.n) for row in found} == {("okx.1", "12-3", START, 7)}
    assert tuple(row.frame for row in found) == frames
    assert read_line(to_line(frames[0])).partition is None


@pytest.mark.parametrize("name", ["all.jsonl", "all.jsonl.gz"])
def test_every_frame_with_its_place(instance: Instance, client: Any, tmp_path: Path, name: str) -> None:
    ids = [add(client, 1, frame(1), frame(2, "ä")), add(client, 2), add(client, 1, w=START + 1)]
    code, found, _ = whole(instance, tmp_path / name)
    assert code == 0
    assert (found["frames"], found["entries"], found["lost"], found["ended"]) == (4, 3, [], "end")
    rows = read(tmp_path / name)
    assert [(row.entry, row.w, row.n) for row in rows] == [
        (ids[0].decode(), START, 1),
        (ids[0].decode(), START, 1),
        (ids[1].decode(), START, 2),
        (ids[2].decode(), START + 1, 1),
    ]
    assert [row.data for row in rows] == ["{}", "ä", "{}", "{}"]
    assert found["partitions"]["okx"]["from_beginning"] is True
    assert found["file_bytes"] == (tmp_path / name).stat().st_size


def test_it_leaves_no_trace(instance: Instance, client: Any, tmp_path: Path) -> None:
    add(client, 1)
    client.xgroup_create(KEYS.raw, "normalize", id="0")
    before = client.xinfo_groups(KEYS.raw)
    whole(instance, tmp_path / "all.jsonl")
    assert client.keys("*") == [KEYS.raw.encode()]
    assert client.xinfo_groups(KEYS.raw) == before


def test_every_partition_of_the_chosen_exchanges(instance: Instance, client: Any, tmp_path: Path) -> None:
    pairs = {"trading_pairs": [{"symbol": "BTC-USDT"}]}
    instance.write(exchanges={"okx": {**pairs, "partitions": 2}, "binance": pairs})
    for part in ("okx.0", "okx.1", "binance"):
        add(client, 1, keys=Keys("md", part))
    _, found, _ = whole(instance, tmp_path / "all.jsonl")
    assert set(found["partitions"]) == {"okx.0", "okx.1", "binance"}
    _, found, _ = whole(instance, tmp_path / "okx.jsonl", "--exchange", "okx")
    assert set(found["partitions"]) == {"okx.0", "okx.1"}


def test_it_is_never_written_over_unless_forced(instance: Instance, client: Any, tmp_path: Path) -> None:
    add(client, 1)
    path = tmp_path / "a.jsonl"
    path.write_text("mine")
    code, _, told = whole(instance, path)
    assert (code, path.read_text()) == (2, "mine")
    assert "--force" in told
    assert whole(instance, path, "--force")[0] == 0
    assert len(read(path)) == 1


def test_wrong_usage_is_2(instance: Instance, tmp_path: Path) -> None:
    code, _, told = whole(instance, tmp_path / "a.jsonl", "--exchange", "okk")
    assert code == 2
    assert "did you mean 'okx'?" in told
    code, _, told = whole(instance, tmp_path / "no" / "such" / "a.jsonl")
    assert (code, "cannot write" in told) == (2, True)
    assert not (tmp_path / "a.jsonl").exists()


def test_redis_away_is_3_and_leaves_no_file(away: Instance, tmp_path: Path) -> None:
    code, _, told = record(away, tmp_path / "a.jsonl")
    assert code == 3
    assert told.startswith("pipeline: Redis does not answer")
    assert not (tmp_path / "a.jsonl").exists()


def test_what_was_trimmed_before_it_was_read_is_told(instance: Instance, client: Any, tmp_path: Path) -> None:
    """Records by hand, so that the trimming comes between two reads."""
    from pipeline.commands._record.tap import Tap

    ids = [add(client, number) for number in range(1, 11)]
    tap = Tap(client, [KEYS])
    assert [tapped.entry.n for tapped in tap.read()] == list(range(1, 11))
    for number in range(11, 21):
        ids.append(add(client, number))
    client.xtrim(KEYS.raw, minid=ids[14], approximate=False)
    assert [tapped.entry.n for tapped in tap.read()] == [15, 16, 17, 18, 19, 20]
    assert len(tap.lost) == 1
    assert "4 of them" in tap.lost[0]


def test_a_jump_of_ingests_own_is_recorded_as_live_saw_it(instance: Instance, client: Any, tmp_path: Path) -> None:
    for number in (1, 2, 7, 7, 3):
        add(client, number)
    add(client, 4, w=START + 1)
    code, found, _ = whole(instance, tmp_path / "a.jsonl")
    assert (code, found["lost"]) == (0, [])
    assert [row.n for row in read(tmp_path / "a.jsonl")] == [1, 2, 7, 7, 3, 4]


def test_a_stream_that_began_anew_is_told_and_read(client: Any) -> None:
    from pipeline.commands._record.tap import Tap

    add(client, 1, id="99999999999999-1")
    tap = Tap(client, [KEYS])
    assert len(list(tap.read())) == 1
    client.delete(KEYS.raw)
    add(client, 1, w=START + 9)
    assert list(tap.read()) == []
    assert [tapped.entry.w for tapped in tap.read()] == [START + 9]
    assert "began anew" in tap.lost[0]


def test_what_is_no_entry_of_ours_is_told_and_the_rest_recorded(
    instance: Instance, client: Any, tmp_path: Path
) -> None:
    add(client, 1)
    client.xadd(KEYS.raw, {"hello": "world"})
    add(client, 2)
    code, found, told = whole(instance, tmp_path / "a.jsonl")
    assert (code, found["frames"], len(found["lost"])) == (1, 2, 1)
    assert "cannot be recorded" in told


def test_joined_in_mid_course_it_notes_the_instruments(instance: Instance, client: Any, tmp_path: Path) -> None:
    known = Instrument(
        exchange="okx",
        market="spot",
        symbol="BTC-USDT",
        instrument="BTC-USDT",
        time=None,
        received=START,
        base="BTC",
        quote="USDT",
        status="live",
    )
    client.hset(KEYS.last("instrument"), "BTC-USDT", encode(known))
    for number in (41, 42):
        add(client, number)
    _, found, told = whole(instance, tmp_path / "a.jsonl")
    assert found["partitions"]["okx"]["from_beginning"] is False
    assert "mid-course" in told
    assert [row.instruments for row in read(tmp_path / "a.jsonl")] == [(known,), ()]


def start(instance: Instance, path: Path, *options: str) -> "subprocess.Popen[str]":
    return instance.start("record", str(path), "--json", *options)


def recording(client: Any, path: Path) -> None:
    """Waits until the process has opened its file: it then stands at the end of the stream."""
    wait_until(path.exists, "the recording to begin")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(instance: Instance, client: Any, tmp_path: Path, number: int) -> None:
    add(client, 1)
    path = tmp_path / "a.jsonl.gz"
    process = start(instance, path)
    recording(client, path)
    for count in (2, 3):
        add(client, count)
    # The file is flushed each second: what is in it by then has been read.
    wait_until(lambda: path.stat().st_size > 60, "frames to be flushed")
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    found = summary(out)
    assert (found["ended"], found["entries"]) == ("interrupted", len({row.n for row in read(path)}))
    assert {row.n for row in read(path)} >= {2}
    assert 1 not in {row.n for row in read(path)}, "without --from-start it begins with what comes"


def test_for_ends_it_with_success(instance: Instance, client: Any, tmp_path: Path) -> None:
    add(client, 1)
    code, found, _ = record(instance, tmp_path / "a.jsonl", "--from-start", "--for", "0.5s")
    assert (code, found["ended"], found["frames"]) == (0, "time", 1)


def test_a_kill_leaves_what_was_flushed_and_replay_takes_it(instance: Instance, client: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    for number in range(1, 200):
        add(client, number, frame(number, json.dumps({"number": number})))
    process = start(instance, path, "--from-start")
    wait_until(lambda: path.exists() and path.stat().st_size > 1_000, "frames to be flushed")
    process.kill()
    process.communicate(timeout=60)
    result = instance.run("replay", str(path), "--to", str(tmp_path / "out"), "--json", "--quiet")
    found = summary(result.stdout)
    assert result.exit_code == 1
    assert found["frames"] == 199
    assert found["undecoded"]["file breaks off"]["count"] == 1


@pytest.mark.parametrize("number", [1, 10_000])
def test_a_full_disk_is_told(number: int) -> None:
    from pipeline.commands._record.tape import Tape

    def write() -> None:
        with Tape(Path("/dev/full"), force=True) as tape:
            for _ in range(number):
                tape.write(b"x" * 100)

    with pytest.raises(TapelineError, match="No space left"):
        write()


# Replay of what was recorded.

STREAM = raw_stream(seed=11, seconds=45)


async def live(url: str, tmp_path: Path) -> None:
    """The raw stream through normalize and aggregate as live processes run them."""
    from aggregate.stage import Aggregate
    from normalize.stage import Normalize
    from pipeline.exchanges import EXCHANGES

    wire = await Wire.open(url)
    await wire.call(*commands(KEYS.raw, STREAM))
    stages: list[tuple[Callable[[Keys], Stage], str, str]] = [
        (lambda keys: Normalize(keys, EXCHANGES["okx"]), "normalize", KEYS.raw),
        (lambda keys: Aggregate(keys, "okx"), "aggregate", KEYS.trade),
    ]
    for make, name, source in stages:
        stop = asyncio.Event()
        task = asyncio.create_task(work(make, _opener(url), KEYS, "1", Heartbeat(name, tmp_path), stop))

        async def done(name: str = name, source: str = source) -> bool:
            cursor, last = await wire.call(
                ("HGET", KEYS.state(name), "cursor"), ("XREVRANGE", source, "+", "-", "COUNT", 1)
            )
            return bool(last) and cursor == last[0][0]

        await until(done, f"{name} to read all", 60)
        stop.set()
        await task
    await wire.close()


def _opener(url: str) -> Callable[[], Awaitable[Wire]]:
    return lambda: Wire.open(url)


async def outputs(url: str, namespace: str) -> dict[str, Any]:
    """Streams and newest-record hashes of a namespace by their key without it."""
    found = await dump(url, f"{namespace}:*")
    internal = ("raw", "state", "lease", "floor", "want", "request", "index", "meta")
    return {key.partition(":")[2]: value for key, value in found.items() if key.split(":")[1] not in internal}


@pytest.fixture
async def recorded(instance: Instance, redis_url: str, tmp_path: Path) -> Path:
    """A recording from the start, of streams that live stages have read."""
    await live(redis_url, tmp_path)
    path = tmp_path / "okx.jsonl.gz"
    assert whole(instance, path)[0] == 0
    return path


def to_stream(instance: Instance, path: Path, *options: str) -> Any:
    return instance.run("replay", str(path), "--to", "stream", "--namespace", "lab", "--json", *options)


async def test_a_replay_gives_the_bytes_of_live(instance: Instance, recorded: Path, redis_url: str) -> None:
    result = to_stream(instance, recorded, "--open-end")
    assert result.exit_code == 1, "the stream has broken frames on purpose"
    expected, found = await outputs(redis_url, "md"), await outputs(redis_url, "lab")
    assert len(expected) > 10
    assert set(found) == set(expected)
    for key in expected:
        assert found[key] == expected[key], key


async def test_files_hold_the_bytes_of_live(instance: Instance, recorded: Path, redis_url: str, tmp_path: Path) -> None:
    instance.run("replay", str(recorded), "--to", str(tmp_path / "out"), "--open-end", "--quiet")
    expected = await outputs(redis_url, "md")

    def lines(kind: str) -> list[bytes]:
        return (tmp_path / "out" / f"{kind}.jsonl").read_bytes().splitlines()

    trades = expected[f"trade:{KEYS.tag}"]
    assert lines("trade") == [row[3] for row in trades if row[0] == b"symbol"]
    assert lines("coverage") == [row[3] for row in trades if row[1] == b"coverage"]
    for kind in ("gap", "instrument", "dead"):
        assert lines(kind) == [row[3] for row in expected[f"{kind}:{KEYS.tag}"]], kind
    candles = lines("candle")
    for frame in ("1s", "5s"):
        own = [line for line in candles if f'"timeframe":"{frame}"'.encode() in line]
        assert own == [row[3] for row in expected[f"candle:{frame}:{KEYS.tag}"]]


async def test_without_open_end_the_rest_is_closed(instance: Instance, recorded: Path, tmp_path: Path) -> None:
    for name, option in (("open", ["--open-end"]), ("ended", [])):
        instance.run("replay", str(recorded), "--to", str(tmp_path / name), "--quiet", *option)
    left, ended = ((tmp_path / name / "candle.jsonl").read_bytes() for name in ("open", "ended"))
    assert ended.startswith(left)
    assert b'"quality":"partial"' in ended[len(left) :]


async def test_the_namespace_is_a_place_of_its_own(
    instance: Instance, recorded: Path, redis_url: str, client: Any
) -> None:
    to_stream(instance, recorded)
    meta = client.hgetall("lab:meta")
    assert (meta[b"mode"], meta[b"partitions:okx"], meta[b"schema"]) == (b"replay", b"1", b"1")
    index = {key.decode(): json.loads(value) for key, value in client.hgetall("lab:index").items()}
    streams = {key.decode() for key in client.keys("lab:*") if client.type(key) == b"stream"}
    assert set(index) == streams
    assert index[LAB.trade] == {"kind": "trade", "exchange": "okx", "partition": "okx", "partitions": 1}
    before = await outputs(redis_url, "lab")
    again = to_stream(instance, recorded)
    assert again.exit_code == 2
    assert "--force empties it" in again.stderr
    assert await outputs(redis_url, "lab") == before
    assert to_stream(instance, recorded, "--force").exit_code == 1
    assert await outputs(redis_url, "lab") == before


@pytest.mark.parametrize("force", [[], ["--force"]])
async def test_a_namespace_with_anything_else_is_refused(
    instance: Instance, recorded: Path, client: Any, force: list[str]
) -> None:
    client.set("lab:mine", "1")
    result = to_stream(instance, recorded, *force)
    assert result.exit_code == 2
    assert "lab:mine" in result.stderr
    assert client.keys("lab:*") == [b"lab:mine"]
    live = instance.run("replay", str(recorded), "--to", "stream", "--namespace", "md", "--json", *force)
    assert live.exit_code == 2


async def test_force_empties_only_what_a_replay_wrote(instance: Instance, recorded: Path, client: Any) -> None:
    to_stream(instance, recorded)
    client.set("lab:mine", "1")
    result = to_stream(instance, recorded, "--force")
    assert (result.exit_code, client.keys("lab:*")) == (2, [b"lab:mine"])


async def test_a_full_redis_stops_it_for_the_sake_of_live(instance: Instance, recorded: Path, client: Any) -> None:
    used = client.info("memory")["used_memory"]
    client.config_set("maxmemory", int(used * 1.5))
    result = to_stream(instance, recorded)
    assert result.exit_code == 3
    assert "so that live streams keep their room" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "stream"], "needs a --namespace"),
        (["--to", "stream", "--namespace", "Lab*"], "not a name"),
        (["--to", "out", "--namespace", "lab"], "goes with --to stream"),
        (["--to", "stream", "--namespace", "lab", "--speed", "-1"], "--speed"),
    ],
)
def test_wrong_usage_of_streams_is_2(instance: Instance, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(to_line(frame(1)))
    result = instance.run("replay", str(tmp_path / "a.jsonl"), *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_stream_joined_in_mid_course_replays_with_what_was_known(
    instance: Instance, client: Any, tmp_path: Path
) -> None:
    """Swaps need their list, and it came before the recording."""
    entries = [entry for entry in STREAM if any("SWAP" in one.data and one.kind == "ws" for one in entry.frames)][:40]
    asyncio.run(live(instance.environment["REDIS_URL"], tmp_path))
    client.delete(KEYS.raw)
    for number, entry in enumerate(entries, start=100):
        client.xadd(KEYS.raw, pack(msgspec.structs.replace(entry, n=number)))
    _, found, _ = whole(instance, tmp_path / "mid.jsonl")
    assert found["partitions"]["okx"]["from_beginning"] is False
    result = instance.run("replay", str(tmp_path / "mid.jsonl"), "--to", str(tmp_path / "out"), "--json", "--quiet")
    told = summary(result.stdout)
    assert told["trades"] > 20
    assert "unknown instrument" not in told["undecoded"]
    assert told["candles"] > 0


def test_speed_waits_as_recorded() -> None:
    from pipeline.commands._replay.pace import Pace

    now, slept = [0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += round(seconds * 1e9)

    pace = Pace(2.0, lambda: now[0], sleep)
    for second in (0, 1, 3, 3, 2, 4):
        pace.wait(START + second * 10**9)
    assert slept == [0.5, 1.0, 0.5]
    pace.wait(START + 7_200 * 10**9)
    assert len(slept) == 3, "an interruption is not waited for"
    pace.wait(START + 7_201 * 10**9)
    assert slept[3:] == [0.5]
    pace.wait(None)
    assert len(slept) == 4
    Pace(0.0, lambda: now[0], sleep).wait(START)
    assert len(slept) == 4


async def test_paced_records_come_one_by_one(instance: Instance, recorded: Path, client: Any) -> None:
    process = instance.start("replay", str(recorded), "--to", "stream", "--namespace", "lab", "--speed", "50")
    wait_until(lambda: client.xlen(LAB.trade) > 0, "the first records")
    first = client.xlen(LAB.trade)
    wait_until(lambda: client.xlen(LAB.trade) > first, "more of them")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (130, 1), errors
    assert "Traceback" not in errors


def test_books_are_counted(tmp_path: Path) -> None:
    from pipeline.commands._replay.tally import Tally
    from pipeline.records import OrderBook

    tally = Tally()
    for symbol, valid in (("A-USDT", True), ("A-USDT", False), ("B-USDT", False)):
        book = OrderBook(
            exchange="okx",
            market="spot",
            symbol=symbol,
            instrument=symbol,
            time=START,
            received=START,
            bids=(("1", "1"),),
            asks=(),
            depth=20,
            valid=valid,
            reason=None if valid else "gap",
        )
        tally.saw("orderbook", encode(book))
    report: dict[str, Any] = {"subscriptions": {}, "control": {}, "books": {"C": {"symbol": "C-USDT", "valid": False}}}
    found = tally.summary([("okx", report)])
    assert found["orderbooks"] == 3
    assert found["books"] == {
        "instruments": 3,
        "valid": 1,
        "invalid": 2,
        "never_valid": ["okx B-USDT", "okx C-USDT"],
    }


def test_raw_entries_come_back_as_they_were(instance: Instance, client: Any, tmp_path: Path) -> None:
    """What replay feeds to normalize is the entry that live read: same writer, number, frames, id."""
    for command in commands(KEYS.raw, STREAM[:50]):
        client.execute_command(*command)
    whole(instance, tmp_path / "a.jsonl")
    grouped: dict[str, list[RecordedFrame]] = {}
    for row in read(tmp_path / "a.jsonl"):
        grouped.setdefault(row.entry or "", []).append(row)
    again = {
        entry: RawEntry(rows[0].w or 0, rows[0].n or 0, tuple(row.frame for row in rows))
        for entry, rows in grouped.items()
    }
    stored = {entry.decode(): unpack(fields) for entry, fields in client.xrange(KEYS.raw)}
    assert again == stored
