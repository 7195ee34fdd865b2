"""A real run: simulators, ingest, normalize and aggregate as processes on a Redis of their own, harmed on the way.

What was recorded beside it, replayed, gives every stream byte for byte.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from pipeline.exchanges import EXCHANGES
from pipeline.streams import Keys
from tests.commands.conftest import Instance
from tests.pipeline.faults import dump
from tests.servers import RedisServer, wait_until

KINDS = ["trade", "candle", "orderbook", "quote", "ticker", "kline"]
PAIRS = [
    {"symbol": symbol, "data_types": KINDS, "timeframes": ["1s", "5s", "1m"]} for symbol in ("BTC-USDT", "ETH-USDT")
]
INTERNAL = ("raw", "state", "lease", "floor", "want", "request", "index", "meta", "ready", "progress")


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_client.Redis.from_url(redis_server.url) as connection:
        yield connection


class Run:
    """The processes of a run by name."""

    def __init__(self, instance: Instance, stack: contextlib.ExitStack) -> None:
        self._instance = instance
        self._stack = stack
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.control: dict[str, str] = {}

    def simulate(self, exchange: str) -> dict[str, Any]:
        """Starts a simulator; the settings that collect from it."""
        command = [sys.executable, "-m", "pipeline", "simulate", "--exchange", exchange, "--rate", "40", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._stack.callback(self._end, process)
        assert process.stdout is not None
        urls = json.loads(process.stdout.readline())
        self.control[exchange] = urls["control_url"]
        return {"trading_pairs": PAIRS, "ws_url": urls["ws_url"], "rest_url": urls["rest_url"]}

    def start(self, name: str) -> None:
        """`pipeline run NAME`, its log into the instance's folder."""
        log = (self._instance.folder / f"{name}.log").open("a")
        self._stack.callback(log.close)
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "-c", str(self._instance.path), "run", name],
            env={**os.environ, **self._instance.environment},
            stdout=log,
            stderr=log,
            text=True,
        )
        self._stack.callback(self._end, process)
        self.processes[name] = process

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self.processes[name].kill()
        self.processes[name].wait(30)

    def stop(self, name: str) -> None:
        """SIGTERM, and waits for its end."""
        self.processes[name].terminate()
        assert self.processes[name].wait(60) == 0, (self._instance.folder / f"{name}.log").read_text()[-2_000:]

    def fault(self, exchange: str, **fault: Any) -> None:
        """Injects a fault into the simulator."""
        request = urllib.request.Request(self.control[exchange], json.dumps(fault).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def _end(self, process: "subprocess.Popen[str]") -> None:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def run(instance: Instance) -> Iterator[Run]:
    with contextlib.ExitStack() as stack:
        yield Run(instance, stack)


def length(client: Any, keys: Keys, kind: str) -> int:
    found: int = client.xlen(keys.stream(kind))
    return found


def grows(client: Any, keys: Keys, kind: str, more: int) -> None:
    """Waits until the stream has so many entries more."""
    before = length(client, keys, kind)
    wait_until(lambda: length(client, keys, kind) >= before + more, f"{more} more on {keys.stream(kind)}", 60)


def catch_up(client: Any, keys: Keys, stage: str, source: str) -> None:
    """Waits until the stage has read all of its source, which grows no more."""
    (last, _), *_ = client.xrevrange(source, count=1)
    wait_until(lambda: client.hget(keys.state(stage), "cursor") == last, f"{stage} to read all of {source}", 60)


async def outputs(url: str, namespace: str, partition: str) -> dict[str, Any]:
    found = await dump(url, f"{namespace}:*{{{partition}}}")
    return {
        key.partition(":")[2]: value
        for key, value in found.items()
        if key.split(":")[1] not in INTERNAL and not key.startswith(f"{namespace}:last:coverage")
    }


def harm(run: Run, client: Any, keys: dict[str, Keys]) -> None:
    """Cuts, lost frames, broken books, a killed normalize and a killed ingest."""
    for exchange in keys:
        run.fault(exchange, fault="drop", count=3)
        run.fault(exchange, fault="book_gap")
        run.fault(exchange, fault="disconnect")
    for key in keys.values():
        grows(client, key, "trade", 60)
    run.kill("normalize-okx")
    run.start("normalize-okx")
    run.kill("ingest-okx")
    run.start("ingest-okx")
    for key in keys.values():
        grows(client, key, "trade", 100)
        grows(client, key, "orderbook", 20)


async def test_a_harmed_run_replays_byte_for_byte(
    instance: Instance, run: Run, client: Any, redis_url: str, tmp_path: Path
) -> None:
    exchanges = {name: run.simulate(name) for name in EXCHANGES}
    instance.write(exchanges=exchanges, simulated=True, redis={"namespace": "sim"})
    keys = {name: Keys("sim", name) for name in EXCHANGES}
    beside = tmp_path / "beside.jsonl.gz"
    recorder = instance.start("record", str(beside), "--from-start", "--json")
    for name in (
        "aggregate-0",
        *(f"{stage}-{exchange}" for stage in ("normalize", "ingest") for exchange in EXCHANGES),
    ):
        run.start(name)
    for key in keys.values():
        grows(client, key, "orderbook", 20)
        grows(client, key, "kline:1s", 3)
    harm(run, client, keys)
    for exchange in EXCHANGES:
        run.stop(f"ingest-{exchange}")
    for key in keys.values():
        catch_up(client, key, "normalize", key.raw)
        catch_up(client, key, "aggregate", key.trade)
    recorder.send_signal(signal.SIGINT)
    out, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, errors
    assert json.loads(out)["lost"] == []
    after = tmp_path / "after.jsonl"
    assert instance.run("record", str(after), "--from-start", "--no-follow", "--quiet").exit_code == 0

    options = ["--to", "stream", "--namespace", "lab", "--open-end", "--json", "--quiet"]
    for recording in (beside, after):
        result = instance.run("replay", str(recording), *options, "--force")
        assert result.exit_code in (0, 1), result.stderr
        summary = json.loads(result.stdout)
        assert summary["trades"] > 200
        assert summary["books"]["valid"] > 50
        assert summary["books"]["never_valid"] == []
        for exchange in EXCHANGES:
            expected = await outputs(redis_url, "sim", exchange)
            found = await outputs(redis_url, "lab", exchange)
            assert set(found) == set(expected)
            assert len(expected) > 12
            for stream, value in expected.items():
                assert found[stream] == value, (exchange, stream)

    books = b"".join(row[3] for row in (await outputs(redis_url, "sim", "okx"))["orderbook:{okx}"])
    assert b'"valid":false' in books, "the harm was seen"
