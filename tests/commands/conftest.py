"""An instance without processes: settings in a fresh folder, reports as files, supervisord where asked for."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from pipeline import settings
from pipeline.cli import cli
from pipeline.reports import Report, write
from pipeline.settings import Settings
from pipeline.supervisor import Supervisor
from tests.servers import RedisServer, free_port, wait_until

PROCESSES = ("store-0", "aggregate-0", "normalize-okx", "ingest-okx", "watchdog")
SECOND = 1_000_000_000
CONNECTION = "wss://ws.okx.com/ws/v5/public#1"


class Instance:
    """Settings on disk with the servers' addresses; `run` calls the command line in this process."""

    def __init__(self, folder: Path, redis_url: str, database_url: str) -> None:
        self.folder = folder
        self.path = folder / "config" / "data_collection.json"
        self.environment = {"REDIS_URL": redis_url, "DATABASE_URL": database_url}
        self.write()

    def write(self, **sections: Any) -> None:
        """The settings `config init` writes, with these sections replaced."""
        self.path.parent.mkdir(exist_ok=True)
        tree = json.loads(settings.encode(settings.default_file())) | sections
        self.path.write_text(json.dumps(tree))

    @property
    def settings(self) -> Settings:
        return settings.load(self.path, self.environment)

    def run(self, *arguments: str) -> Result:
        runner = CliRunner(env={**self.environment, "DATA_COLLECTION_CONFIG": None})
        return runner.invoke(cli, ["-c", str(self.path), *arguments])

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command line as a process of its own, its output piped."""
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", "-c", str(self.path), *arguments],
            env={**os.environ, **self.environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def report(self, name: str, **changes: Any) -> Report:
        """Writes the process's heartbeat file, as of now unless told otherwise."""
        report = msgspec.structs.replace(report_of(name, time.time_ns()), **changes)
        self.settings.heartbeat_dir.mkdir(parents=True, exist_ok=True)
        write(self.settings.heartbeat_dir, report)
        return report

    def report_all(self) -> None:
        for name in PROCESSES:
            self.report(name)


def report_of(name: str, now: int) -> Report:
    """What a process reports that has been well for a minute."""
    return Report(
        name=name,
        pid=4_000_000,
        started=now - 60 * SECOND,
        beat=now,
        loops=60,
        counters={"entries": 1_200, "written": 5_000} if name.startswith("ingest") else {"entries": 1_200},
        rates={"entries": 20.0},
        last_data=now - SECOND // 2,
        details=details_of(name, now),
    )


def details_of(name: str, now: int) -> dict[str, Any]:
    if name == "ingest-okx":
        return {
            "connections": {CONNECTION: link(now)},
            "subscriptions": asked(),
            "clock_offset": 3_000_000,
            "patterns": {},
            "requests": {},
            "budgets": {"time": {"used": 1, "limit": 10, "period": 2 * SECOND, "held": 0}},
        }
    if name == "normalize-okx":
        rows = {pair: seen(pair, now) for pair in ("BTC-USDT", "ETH-USDT")}
        return {"partitions": {"okx": {"subscriptions": rows, "books": {}, "latest": {}, "wants": {}}}}
    return {}


def of_kind(pair: str, kind: str, channel: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """ingest's row of a subscription of another kind than trades."""
    row = {
        "symbol": pair,
        "wanted": pair,
        "instrument": pair,
        "channel": channel,
        "kinds": [kind],
        "state": "subscribed",
        "reason": None,
        "conn": CONNECTION,
    }
    return {f"{channel} {pair}": row | changes}


def book(pair: str, now: int, **changes: Any) -> dict[str, Any]:
    """normalize's row of an order book."""
    return {
        "symbol": pair,
        "connection": CONNECTION,
        "valid": True,
        "reason": None,
        "sequence": 123_456,
        "last_message": now - SECOND // 10,
        "resyncs": 0,
        "snapshots": 0,
        "invalid": 0,
        "chains": 1,
        "levels": [400, 400],
    } | changes


def told(pair: str, now: int, **changes: Any) -> dict[str, Any]:
    """normalize's row of quotes, tickers or klines."""
    return {"symbol": pair, "last_message": now - SECOND // 10, "records": 900, "duplicates": 1} | changes


def link(now: int) -> dict[str, Any]:
    opened = {"state": "open", "opened": now - 59 * SECOND, "last_frame": now}
    return {**opened, "frames": 5_000, "reconnects": 1, "pings": 3, "pongs": 3}


def asked(**states: str) -> dict[str, Any]:
    rows = {"BTC-USDT": "subscribed", "ETH-USDT": "subscribed"} | {k.replace("_", "-"): v for k, v in states.items()}
    return {
        f"trades-all {pair}": {
            "symbol": pair,
            "wanted": pair,
            "instrument": pair,
            "channel": "trades-all",
            "kinds": ["trade"],
            "state": state,
            "reason": "60018 no such channel" if state == "refused" else None,
            "conn": CONNECTION,
        }
        for pair, state in rows.items()
    }


def seen(pair: str, now: int, **changes: Any) -> dict[str, Any]:
    return {
        "symbol": pair,
        "kind": "trade",
        "connection": CONNECTION,
        "covered": True,
        "since": now - 58 * SECOND,
        "last_message": now - SECOND // 2,
        "last_trade": now - SECOND,
        "trades": 600,
        "duplicates": 2,
        "reordered": 0,
        "open_gaps": 0,
        "missing": 0,
    } | changes


@pytest.fixture
def instance(tmp_path: Path, redis_server: RedisServer, database_url: str) -> Instance:
    """Real servers, no process."""
    return Instance(tmp_path, redis_server.url, database_url)


@pytest.fixture
def away(tmp_path: Path) -> Instance:
    """Nobody listens where the servers should be."""
    port = free_port()
    return Instance(tmp_path, f"redis://127.0.0.1:{port}/0", f"postgresql://postgres@127.0.0.1:{port}/tapeline")


@pytest.fixture(scope="module")
def sleepers() -> Iterator[Path]:
    """The folder of a real supervisord that runs a sleeping program for each process. One for a module's tests."""
    with tempfile.TemporaryDirectory(prefix="tl-sv-") as name:
        folder = Path(name)
        conf = folder / "supervisord.conf"
        conf.write_text(_conf(folder))
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(conf)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            supervisor = Supervisor(folder / "supervisor.sock")
            wait_until(lambda: supervisor.answers() and _all_run(supervisor), "supervisord to run its programs")
            yield folder
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def supervisor(instance: Instance, sleepers: Path) -> Iterator[Supervisor]:
    """That supervisord at the instance's socket. What a test stopped runs again afterwards."""
    instance.settings.run_dir.mkdir(parents=True, exist_ok=True)
    socket = instance.settings.run_dir / "supervisor.sock"
    socket.symlink_to(sleepers / "supervisor.sock")
    supervisor = Supervisor(socket)
    yield supervisor
    for name in PROCESSES:
        supervisor.start(name)
    wait_until(lambda: _all_run(supervisor), "everything to run again")


def _all_run(supervisor: Supervisor) -> bool:
    return all(program.state == "RUNNING" for program in supervisor.programs().values())


def _conf(run_dir: Path) -> str:
    sleep = f"{sys.executable} -Sc 'import time; time.sleep(600)'"
    stanzas = [
        f"[supervisord]\nnodaemon=true\nlogfile={run_dir}/log\npidfile={run_dir}/pid\nchildlogdir={run_dir}",
        f"[unix_http_server]\nfile={run_dir}/supervisor.sock\nchmod=0700",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        *(f"[program:{name}]\ncommand={sleep}\nstartsecs=0\nautorestart=true" for name in PROCESSES),
    ]
    return "\n\n".join(stanzas) + "\n"
