"""`pipeline replay`: files in, one file per kind out; nothing stops it, everything undecoded is named."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.frames import Frame, to_line
from tests.normalize.playing import SECOND, T0, A, B, book, clock, closed, data, fill, opened, subscription, trade
from tests.normalize.test_okx import SWAP
from tests.normalize.test_stage import listing

MINUTE = 60 * SECOND


def record(path: Path, frames: Iterable[Frame], *extra: bytes) -> Path:
    """The frames as JSON Lines, gzip by name."""
    text = b"".join(map(to_line, frames)) + b"".join(extra)
    path.write_bytes(gzip.compress(text) if path.name.endswith(".gz") else text)
    return path


def replay(*arguments: Path | str) -> Result:
    return CliRunner().invoke(cli, ["replay", *map(str, arguments)])


def summary(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{kind}.jsonl").read_text().splitlines()]


def session(first: int = 1, last: int = 300, start: float = 0.0, step: float = 0.5, conn: str = A) -> Iterator[Frame]:
    """Trades first…last, `step` seconds apart, on one connection."""
    for number in range(first, last + 1):
        yield trade(number, start + 0.2 + (number - first) * step, conn)


def test_trades_and_candles_of_a_recording(tmp_path: Path) -> None:
    file = record(tmp_path / "okx.jsonl.gz", session())
    result = replay(file, "--to", tmp_path / "out", "--timeframes", "1s,1m", "--json")
    assert result.exit_code == 0, result.output
    found = summary(result)
    assert (found["frames"], found["trades"], found["gaps"], found["undecoded"]) == (300, 300, 0, {})
    out = tmp_path / "out"
    assert [row["sequence"] for row in rows(out, "trade")] == list(range(1, 301))
    candles = rows(out, "candle")
    assert {candle["timeframe"] for candle in candles} == {"1s", "1m"}
    newest = {(c["timeframe"], c["open_time"]): c for c in candles}
    for timeframe, width in (("1s", SECOND), ("1m", MINUTE)):
        counted = Counter(row["time"] - row["time"] % width for row in rows(out, "trade"))
        made = {opened: c["trades_count"] for (name, opened), c in newest.items() if name == timeframe}
        assert {opened: count for opened, count in made.items() if count} == counted
    inner = [c for c in newest.values() if c["timeframe"] == "1m"][1]
    assert (inner["quality"], Decimal(inner["volume"])) == ("complete", Decimal("0.25") * 120)
    assert candles[-1]["quality"] == "partial"
    assert sorted(path.name for path in out.iterdir()) == [
        f"{kind}.jsonl"
        for kind in (
            "candle",
            "coverage",
            "dead",
            "gap",
            "instrument",
            "kline",
            "orderbook",
            "quote",
            "rebuild",
            "ticker",
            "trade",
        )
    ]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    file = record(tmp_path / "okx.jsonl", session())
    for name in ("one", "two"):
        replay(file, "--to", tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_losses_and_duplicates_are_accounted(tmp_path: Path) -> None:
    frames = list(session(last=60))
    file = record(tmp_path / "okx.jsonl", [*frames[:10], *frames[5:20], *frames[23:]])
    found = summary(replay(file, "--to", tmp_path / "out", "--json"))
    assert (found["trades"], found["duplicates"], found["gaps"], found["missing"]) == (57, 5, 1, 3)
    (gap,) = rows(tmp_path / "out", "gap")
    assert (gap["from_sequence"], gap["to_sequence"], gap["state"]) == (21, 23, "opened")


def test_one_bad_line_stops_nothing_and_is_named_with_its_place(tmp_path: Path) -> None:
    frames = list(session(last=20))
    books = msgspec.structs.replace(frames[0], data='{"arg":{"channel":"mark-price","instId":"X"},"data":[]}')
    broken = msgspec.structs.replace(frames[0], data="{")
    elsewhere = msgspec.structs.replace(frames[0], conn="wss://feed.example.com/ws")
    file = record(tmp_path / "okx.jsonl", [*frames[:5], books], b"not json\n", b'{"ts":1}\n', b"\xff\xfe\n")
    other = record(tmp_path / "z.jsonl", [broken, books, elsewhere, *frames[5:]])
    result = replay(file, other, "--to", tmp_path / "out", "--json", "--exchange", "okx")
    assert result.exit_code == 1
    found = summary(result)
    assert found["trades"] == 20
    assert found["undecoded"] == {
        "channel mark-price is not collected yet": {"count": 2, "first": f"{file}:6"},
        "line is not a frame": {"count": 3, "first": f"{file}:7"},
        "not JSON": {"count": 1, "first": f"{other}:1"},
    }
    assert len(rows(tmp_path / "out", "dead")) == 6


def test_a_torn_gzip_tail_is_named_and_what_came_before_counts(tmp_path: Path) -> None:
    whole = record(tmp_path / "a.jsonl.gz", session(last=3000, step=0.01)).read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    record(tmp_path / "b.jsonl", session(last=3000, step=0.01))
    result = replay(tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl", "--to", tmp_path / "out", "--json")
    assert result.exit_code == 1
    found = summary(result)
    assert list(found["undecoded"]) == ["file breaks off"]
    assert (found["trades"], found["missing"]) == (3000, 0)
    assert found["duplicates"] > 500


def test_a_connection_of_no_known_exchange_needs_the_option(tmp_path: Path) -> None:
    file = record(tmp_path / "sim.jsonl", session(last=5, conn="ws://127.0.0.1:9000/ws/v5/business#1"))
    without = replay(file, "--to", tmp_path / "one", "--json")
    assert without.exit_code == 1
    assert summary(without)["undecoded"]["no exchange is known for the connection"]["count"] == 5
    with_option = replay(file, "--to", tmp_path / "two", "--json", "--exchange", "okx")
    assert (with_option.exit_code, summary(with_option)["trades"]) == (0, 5)


def test_old_hosts_are_known(tmp_path: Path) -> None:
    file = record(tmp_path / "old.jsonl", session(last=5, conn="wss://real.okcoin.com:8443/ws/v5/public"))
    assert summary(replay(file, "--to", tmp_path / "out", "--json"))["trades"] == 5


def test_control_frames_are_counted_not_undecoded(tmp_path: Path) -> None:
    pong = Frame(T0, A, "in", "ws", "pong")
    ask = Frame(T0, A, "out", "ws", '{"op":"subscribe","args":[]}')
    ack = Frame(T0, A, "in", "ws", '{"event":"subscribe","arg":{"channel":"trades-all","instId":"BTC-USDT"}}')
    result = replay(record(tmp_path / "okx.jsonl", [ask, ack, pong, pong, *session(last=5)]), "--to", tmp_path / "o")
    assert result.exit_code == 0
    assert "control      1 out subscribe" in result.stderr
    assert "control      2 pong" in result.stderr


def test_without_receive_times_the_exchanges_own_drive(tmp_path: Path) -> None:
    bare = [msgspec.structs.replace(frame, ts=None) for frame in session()]
    ack = Frame(None, A, "in", "ws", '{"event":"subscribe","arg":{"channel":"trades-all","instId":"BTC-USDT"}}')
    file = record(tmp_path / "okx.jsonl", [ack, *bare])
    result = replay(file, "--to", tmp_path / "out", "--timeframes", "1m", "--json")
    assert (result.exit_code, summary(result)["trades"]) == (0, 300)
    trades = rows(tmp_path / "out", "trade")
    assert all(row["received"] == row["time"] for row in trades)
    assert [c["quality"] for c in rows(tmp_path / "out", "candle")] == ["partial", "complete", "partial"]


def test_instrument_lists_may_come_later(tmp_path: Path) -> None:
    swaps = [data(fill(n, n, "BTC-USDT-SWAP", sz="3"), at=n + 0.01) for n in range(1, 6)]
    file = record(tmp_path / "a.jsonl", swaps)
    assert summary(replay(file, "--to", tmp_path / "one", "--json"))["undecoded"]["unknown instrument"]["count"] == 5
    assert "list of instruments as well" in replay(file, "--to", tmp_path / "one", "--force").stderr
    listed = record(tmp_path / "b.jsonl", [msgspec.structs.replace(listing(SWAP, at=9), ts=None)])
    result = replay(file, listed, "--to", tmp_path / "two", "--json")
    assert (result.exit_code, summary(result)["trades"], summary(result)["instruments"]) == (0, 5, 1)
    assert {row["size"] for row in rows(tmp_path / "two", "trade")} == {"0.03"}


def test_the_last_change_of_a_book_is_shown_at_the_end_but_not_at_an_open_one(tmp_path: Path) -> None:
    frames = [book(0, 10, bids="100@1", asks="101@1"), book(0.05, 11, 10, "100@2")]
    file = record(tmp_path / "okx.jsonl", frames)
    for name, option in (("open", ["--open-end"]), ("ended", [])):
        assert replay(file, "--to", tmp_path / name, *option).exit_code == 0
    left, ended = (rows(tmp_path / name, "orderbook") for name in ("open", "ended"))
    assert [row["bids"] for row in left] == [[["100", "1"]]]
    assert ended[: len(left)] == left
    assert [(row["bids"], row.get("snapshot_time")) for row in ended[len(left) :]] == [([["100", "2"]], None)]
    assert ended[-1]["received"] == frames[-1].ts


def test_books_of_an_earlier_recording_are_shown_too(tmp_path: Path) -> None:
    record(tmp_path / "1.jsonl", [book(7200, 10, bids="100@1", asks="101@1")])
    record(tmp_path / "2.jsonl", [book(0, 5, bids="90@1", asks="91@1")])
    out = tmp_path.parent / f"{tmp_path.name}-out"
    replay(tmp_path, "--to", out)
    shown = rows(out, "orderbook")
    assert [(row["bids"][0][0], row.get("reason")) for row in shown] == [("100", None), ("100", "closed"), ("90", None)]


def test_recorded_settings_are_kept_unless_others_are_asked_for(tmp_path: Path) -> None:
    own = [clock(0), opened(0), subscription("subscribed", 0, timeframes=("5s",)), *session(last=40)]
    file = record(tmp_path / "own.jsonl", [*own, clock(21, a=20.9), closed(22)])
    replay(file, "--to", tmp_path / "kept")
    assert {row["timeframe"] for row in rows(tmp_path / "kept", "candle")} == {"5s"}
    replay(file, "--to", tmp_path / "asked", "--timeframes", "10s")
    assert {row["timeframe"] for row in rows(tmp_path / "asked", "candle")} == {"10s"}
    causes = [row["cause"] for row in rows(tmp_path / "kept", "coverage")]
    assert causes == ["open", "closed"], "a recording with clocks of its own gets no others"


def test_a_recording_from_an_earlier_time_is_another_session(tmp_path: Path) -> None:
    record(tmp_path / "1.jsonl", session(1000, 1040, start=7200))
    record(tmp_path / "2.jsonl", session(500, 540))
    found = summary(replay(tmp_path, "--to", tmp_path.parent / f"{tmp_path.name}-out", "--json"))
    assert (found["trades"], found["undecoded"]) == (82, {})
    states = [row["state"] for row in rows(tmp_path.parent / f"{tmp_path.name}-out", "coverage")]
    assert states == ["covered", "uncovered", "covered", "uncovered"]


def test_a_recording_cut_in_two_files_is_one_session(tmp_path: Path) -> None:
    frames = list(session(last=400))
    record(tmp_path / "a.jsonl", frames[:200])
    record(tmp_path / "b.jsonl", frames[200:])
    record(tmp_path / "whole.txt", frames)
    folder = tmp_path.parent / f"{tmp_path.name}-out"
    replay(tmp_path, "--to", folder / "cut")
    replay(tmp_path / "whole.txt", "--to", folder / "whole")
    for path in (folder / "cut").iterdir():
        assert path.read_bytes() == (folder / "whole" / path.name).read_bytes()


def test_two_connections_to_one_endpoint_give_each_trade_once(tmp_path: Path) -> None:
    later = [msgspec.structs.replace(frame, conn=B, ts=(frame.ts or 0) + SECOND // 30) for frame in session()]
    both = sorted([*session(), *later], key=lambda frame: frame.ts or 0)
    found = summary(replay(record(tmp_path / "okx.jsonl", both), "--to", tmp_path / "out", "--json"))
    assert (found["trades"], found["duplicates"]) == (300, 300)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{file}", "--to", "{full}"], "is not empty"),
        (["{file}", "--to", "{out}", "--timeframes", "2m"], "'2m' is unknown"),
        (["{file}", "--to", "{out}", "--exchange", "nope"], "nope"),
        (["{missing}", "--to", "{out}"], "does not exist"),
        (["{empty}", "--to", "{out}"], "no *.jsonl or *.jsonl.gz"),
        (["{file}"], "--to"),
    ],
)
def test_wrong_usage_is_exit_two(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "keep").write_text("mine")
    places = {"file": record(tmp_path / "a.jsonl", session(last=3)), "missing": tmp_path / "missing"}
    places |= {"out": tmp_path / "out", "full": tmp_path / "full", "empty": tmp_path / "empty"}
    result = replay(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_force_overwrites_and_touches_nothing_else(tmp_path: Path) -> None:
    file = record(tmp_path / "a.jsonl", session(last=3))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "keep").write_text("mine")
    (tmp_path / "out" / "trade.jsonl").write_text("old\n")
    assert replay(file, "--to", tmp_path / "out", "--force", "--quiet").exit_code == 0
    assert len(rows(tmp_path / "out", "trade")) == 3
    assert (tmp_path / "out" / "keep").read_text() == "mine"


def test_quiet_says_nothing(tmp_path: Path) -> None:
    result = replay(record(tmp_path / "a.jsonl", session(last=3)), "--to", tmp_path / "out", "--quiet")
    assert (result.stdout, result.stderr) == ("", "")


def test_interrupted_it_closes_its_files_and_exits_130(tmp_path: Path) -> None:
    frames = list(session(last=60_000, step=0.01))
    file = record(tmp_path / "long.jsonl", frames)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "replay", str(file), "--to", str(tmp_path / "out"), "--quiet"],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stderr=subprocess.PIPE,
    )
    written = tmp_path / "out" / "trade.jsonl"
    while process.poll() is None and not (written.exists() and written.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    for path in (tmp_path / "out").iterdir():
        text = path.read_bytes()
        assert not text or text.endswith(b"}\n")
    assert 0 < len(rows(tmp_path / "out", "trade")) < 60_000
