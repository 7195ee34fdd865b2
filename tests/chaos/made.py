"""A scene for tests of single faults: real processes and servers, no supervisord and no exchange."""

import subprocess
import sys
from pathlib import Path

from pipeline import settings as settings_module
from pipeline.commands._chaos.scene import Scene
from pipeline.commands._chaos.slowdisk import SlowDisk
from pipeline.settings import ExchangeSettings, PostgresSettings, RedisSettings, Settings, SettingsFile, TradingPair
from pipeline.supervisor import Program, Supervisor


class Programs(Supervisor):
    """Answers with the pids it was given; `supervisord` has none of its own."""

    def __init__(self, pids: dict[str, int]) -> None:
        super().__init__(Path("nowhere"))
        self.pids = pids

    def programs(self) -> dict[str, Program]:
        return {name: Program(name=name, state="RUNNING", pid=pid) for name, pid in self.pids.items()}


def settings_of(folder: Path, redis_url: str | None = None, database_url: str | None = None) -> Settings:
    """Settings of a simulated instance in `folder`, whose servers are the given ones."""
    pair = TradingPair(symbol="BTC-USDT")
    file = SettingsFile(
        exchanges={
            "okx": ExchangeSettings(trading_pairs=(pair,), ws_url="ws://127.0.0.1:1", rest_url="http://127.0.0.1:1")
        },
        simulated=True,
        redis=RedisSettings(namespace="sim", url=redis_url),
        postgres=PostgresSettings(url=database_url),
        state_dir=str(folder),
    )
    return settings_module.complete(file, folder / "settings.json", {})


def scene_of(settings: Settings, pids: dict[str, int] | None = None) -> Scene:
    return Scene(settings, Programs(pids or {}), {}, {}, SlowDisk(settings.state_dir / "slowdisk"), gaps_stay=True)


def sleeper() -> "subprocess.Popen[bytes]":
    """A process that does nothing and has a child that does nothing either; it says so first."""
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
