"""An instance of Tapeline in a short folder of its own, for tests: settings, commands, supervisord, and its end."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from pipeline import reports, settings
from pipeline.errors import DecodeError
from pipeline.parent import alive, command_of
from pipeline.stanzas import committed, render, socket_of
from pipeline.supervisor import Program, Supervisor
from tests.servers import free_port, wait_until

STAND_IN = Path(__file__).with_name("standin.py")
ROOT = Path(__file__).parent.parent.parent
STAGES = ("store-0", "aggregate-0", "normalize-okx", "ingest-okx")


class Instance:
    """`environ` is what its processes get; REDIS_URL and DATABASE_URL in it mean servers of the test's."""

    def __init__(self, parent: Path | None = None, environ: dict[str, str] | None = None, **collection: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tl-up-", dir=parent))
        self.folder.chmod(0o755)
        self.path = self.folder / "config" / "data_collection.json"
        self.path.parent.mkdir()
        self.notes = self.folder / "notes"
        self.notes.mkdir()
        self.environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **(environ or {})}
        nobody = free_port()
        self.tree: dict[str, Any] = {
            "exchanges": {
                "okx": {
                    "trading_pairs": [{"symbol": "BTC-USDT"}],
                    "ws_url": f"ws://127.0.0.1:{nobody}",
                    "rest_url": f"http://127.0.0.1:{nobody}",
                }
            },
            "collection_settings": collection,
            "simulated": True,
            "redis": {"port": free_port(), "namespace": "sim"},
            "postgres": {"port": free_port(), "database": "tapeline_sim"},
        }
        self.process: subprocess.Popen[str] | None = None
        self.write()

    def write(self) -> None:
        """Writes the settings file from `tree`."""
        self.path.write_text(json.dumps(self.tree))

    @property
    def settings(self) -> settings.Settings:
        return settings.load(self.path, self.environ)

    @property
    def supervisor(self) -> Supervisor:
        return Supervisor(socket_of(self.settings))

    def run(self, *arguments: str, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
        """`pipeline -c <settings> ARGUMENTS` to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environ,
            cwd="/",
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
            **options,
        )

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "pipeline", "-c", str(self.path), *arguments]

    def start_with_stand_ins(self, change: Callable[[str], str] = lambda text: text) -> subprocess.Popen[str]:
        """supervisord on the rendered file, its stages replaced by stand-ins; the watchdog and servers are real."""
        given = self.settings
        for folder in (given.run_dir, given.log_dir):
            folder.mkdir(parents=True, exist_ok=True)
        text = render(committed().read_text(), given, self.environ)
        words = f"{sys.executable} {STAND_IN} \\1 {given.heartbeat_dir} {self.notes}"
        text = re.sub(rf"pipeline run ({'|'.join(STAGES)})", words, text)
        conf = given.state_dir / "supervisord.conf"
        conf.write_text(change(text))
        with (self.folder / "supervisord.out").open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "supervisor.supervisord", "-n", "-c", str(conf)],
                env={**self.environ, "DATA_COLLECTION_CONFIG": str(self.path)},
                cwd="/",
                text=True,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self.supervisor.answers, "supervisord to answer")
        return self.process

    def program(self, name: str) -> Program:
        return self.supervisor.programs()[name]

    def wait_running(self, *names: str, deadline: float = 60) -> dict[str, int]:
        """Waits until the processes (default: all the settings ask for) run; their process ids."""
        wanted = names or self.settings.processes()

        def running() -> bool:
            programs = self.supervisor.programs() if self.supervisor.answers() else {}
            return all(name in programs and programs[name].state == "RUNNING" for name in wanted)

        try:
            wait_until(running, f"{' '.join(wanted)} to run", deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None
        return {name: program.pid for name, program in self.supervisor.programs().items()}

    def watched(self, name: str) -> dict[str, Any]:
        """What the watchdog's report says of a process; empty before it says anything."""
        try:
            report = reports.read(self.settings.heartbeat_dir / "watchdog")
        except (FileNotFoundError, DecodeError):
            return {}
        found: dict[str, Any] = report.details.get("processes", {}).get(name, {})
        return found

    def watchdog_says(self) -> str:
        """The watchdog's last error."""
        try:
            return reports.read(self.settings.heartbeat_dir / "watchdog").last_error or ""
        except (FileNotFoundError, DecodeError):
            return ""

    def our_pids(self) -> list[int]:
        """Every living process that names this folder in its command line, but for those named in `logs`."""
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        return [pid for pid in pids if str(self.folder) in command_of(pid) and alive(pid)]

    def logs(self) -> str:
        """The end of every log, for a failure's message."""
        parts = [f"== {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.settings.log_dir.glob("*.log"))]
        return "\n".join(parts)

    def remove(self) -> None:
        """Ends all of it, kills what does not end, deletes the folder."""
        if self.supervisor.answers():
            self.run("down", "--force")
        for pid in self.our_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        if self.process:
            self.process.wait(30)
        wait_until(lambda: not self.our_pids(), f"the processes of {self.folder} to be gone")
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
