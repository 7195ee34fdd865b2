"""An instance of the bench's own: folder, settings, private Redis and Postgres as the product runs them, and any of
its processes, started as supervisord would. Everything falls with the bench, however it ends.
"""

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import psutil
import psycopg
import redis

from pipeline import settings as settings_module
from pipeline.commands._demo import instance as folders
from pipeline.commands._demo.instance import Offer
from pipeline.errors import ServerAway
from pipeline.probes.redis import Client, call, connect
from pipeline.redis_ready import wait_ready
from pipeline.settings import Settings, SettingsFile, StoreSettings, TradingPair
from pipeline.streams import Keys
from pipeline.timeframes import TIMEFRAMES
from pipeline.wire import Wire
from store.prepare import prepare

NAME = "bench"
MEMORY = 4 * 1024**3
"""Of Redis: enough for everything that a measurement puts there before it begins."""
NOWHERE = "http://127.0.0.1:9"
READY = 60.0
STOP = 30.0
POLL = 0.02
CALL = 30.0

_LAUNCH = """
import os, signal, sys
from pipeline.parent import fall_with_parent
fall_with_parent(signal.SIGTERM, exec_follows=True)
os.execv(sys.executable, [sys.executable, "-P", *sys.argv[1:]])
"""
"""Asks for a signal when the bench dies, then becomes what it is told."""

Change = Callable[[SettingsFile], SettingsFile]


class Process:
    """One process of the product, or one of ours beside it."""

    def __init__(self, name: str, words: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _LAUNCH, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=Path(__file__).parent.parent,
                env=dict(environ),
                start_new_session=True,
            )
        self._seen = psutil.Process(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu(self) -> float:
        """Seconds of CPU so far, its children's too (also of those that have ended). Raises ServerAway when it has
        ended."""
        self.check()
        times = self._seen.cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        for child in self._seen.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                theirs = child.cpu_times()
                total += theirs.user + theirs.system
        return float(total)

    def memory(self) -> int:
        """Resident bytes; what its children share with it and each other counts once."""
        found = _resident(self._seen)
        for child in self._seen.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += _resident(child)
        return found

    def check(self) -> None:
        """Raises ServerAway with its last words when it has ended."""
        if (code := self._process.poll()) is not None:
            lines = self._log.read_text(errors="replace").strip().splitlines()
            raise ServerAway(f"{self.name} ended (exit code {code}): {' | '.join(lines[-3:]) or 'without a word'}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Tells it to end and waits; kills it when it does not."""
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(STOP)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def wait(self, seconds: float) -> int:
        """Its exit code, once it has ended by itself."""
        return self._process.wait(seconds)


class Instance:
    """Servers that run while this is entered. `symbols` by exchange, in the canonical spelling."""

    def __init__(self, symbols: Mapping[str, Sequence[str]], environ: Mapping[str, str], place: Path | None = None):
        self._symbols = {name: tuple(names) for name, names in symbols.items()}
        self.environ = {**folders.environment(environ), "PYTHONUNBUFFERED": "1"}
        self._place = place
        self._running: dict[str, Process] = {}
        self._client: Client | None = None
        self._folder: folders.Folder
        self.settings: Settings

    def __enter__(self) -> Self:
        self._folder = folders.take_folder(settings_module.project_folder(), self._place, NAME)
        try:
            self.settings = folders.write_settings(self._folder, self._offers(), self._own)
            for name in ("redis", "postgres"):
                self.start(name)
            self._wait_for_servers()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(reversed(self._running)):
            self.stop(name)
        if self._client is not None:
            self._client.close()
        if error is None:
            folders.clear(self._folder)

    def change(self, change: Change) -> Settings:
        """Other settings for the processes that are started from now on."""
        changed = change(self.settings.file)
        self._folder.settings.write_bytes(settings_module.encode(changed))
        self.settings = settings_module.load(self._folder.settings, {})
        return self.settings

    def keys(self, partition: str) -> Keys:
        """The keys of a partition in our namespace."""
        return Keys(self.settings.namespace, partition)

    @property
    def scratch(self) -> Path:
        """A folder for files of a measurement."""
        folder = self.settings.state_dir / "bench"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def start(self, name: str) -> Process:
        """`pipeline run <name>`. It may not work yet when this returns."""
        return self._start(name, ["-m", "pipeline", "-c", str(self._folder.settings), "run", name])

    def beside(self, name: str, *words: str) -> Process:
        """`python <words>` from the project's folder, for what measures or feeds."""
        return self._start(name, list(words))

    def stop(self, name: str) -> None:
        """Stops a process that `start` or `beside` began; one that never was is no fault."""
        if process := self._running.pop(name, None):
            # Postgres: fast shutdown, without waiting for clients.
            process.stop(signal.SIGINT if name == "postgres" else signal.SIGTERM)

    @contextlib.contextmanager
    def running(self, *names: str) -> Iterator[list[Process]]:
        """These processes of the product, stopped at the end in the reverse order."""
        try:
            yield [self.start(name) for name in names]
        finally:
            for name in reversed(names):
                self.stop(name)

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU of every running process so far, by name; that of Postgres with its backends."""
        return {name: self._of_redis() if name == "redis" else each.cpu() for name, each in self._running.items()}

    def memory(self) -> dict[str, int]:
        """Resident bytes of every running process by name."""
        return {name: process.memory() for name, process in self._running.items()}

    def check(self) -> None:
        """Raises ServerAway when a process has ended by itself."""
        for process in self._running.values():
            process.check()

    @property
    def redis(self) -> Client:
        """Bytes in, bytes out."""
        if self._client is None:
            self._client = connect(self.settings, CALL)
        return self._client

    @contextlib.contextmanager
    def postgres(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection of its own, autocommit."""
        with psycopg.connect(self.settings.database_address(), autocommit=True, connect_timeout=10) as connection:
            yield connection

    def reset(self) -> None:
        """Empties Redis and every table; what the processes left on disk goes too. None of them may run."""
        call(self.redis, "FLUSHALL")
        asyncio.run(self._make_ready())
        with self.postgres() as connection:
            tables = connection.execute(_TABLES).fetchall()
            connection.execute(f"TRUNCATE {', '.join(name for (name,) in tables)} RESTART IDENTITY".encode())
        for folder in ("spool", "spill", "taken"):
            shutil.rmtree(self.settings.state_dir / folder, ignore_errors=True)

    def quiet(self) -> None:
        """Returns when Redis rewrites no file: what was put there would be paid for by what is measured next."""
        self.until(self._redis_quiet, "Redis to have rewritten its file")

    def until(self, condition: Callable[[], object], what: str, seconds: float = READY, every: float = POLL) -> None:
        """Returns when the condition is true. Raises ServerAway when a process ends or the time is over."""
        end = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > end:
                raise ServerAway(f"waited {seconds:g} s in vain for {what}; logs are in {self.scratch}")
            time.sleep(every)

    def _start(self, name: str, words: list[str]) -> Process:
        assert name not in self._running, f"{name} is running"
        process = Process(name, words, self.scratch / f"{name}.log", self.environ)
        self._running[name] = process
        return process

    def _offers(self) -> dict[str, Offer]:
        return {name: Offer(symbols, NOWHERE.replace("http", "ws"), NOWHERE) for name, symbols in self._symbols.items()}

    def _own(self, file: SettingsFile) -> SettingsFile:
        exchanges = {
            name: msgspec.structs.replace(
                exchange,
                trading_pairs=tuple(
                    TradingPair(symbol=symbol, timeframes=TIMEFRAMES) for symbol in self._symbols[name]
                ),
            )
            for name, exchange in file.exchanges.items()
        }
        memory = msgspec.structs.replace(file.redis, maxmemory=MEMORY)
        return msgspec.structs.replace(file, exchanges=exchanges, redis=memory, store=StoreSettings())

    def _wait_for_servers(self) -> None:
        self.until(self._redis_answers, "Redis to answer", every=0.1)
        self.until(self._postgres_answers, "Postgres to answer", every=0.2)
        prepare(self.settings.database_address())
        asyncio.run(self._make_ready())

    def _redis_answers(self) -> bool:
        try:
            return bool(call(self.redis, "PING"))
        except redis.exceptions.RedisError:
            return False

    def _of_redis(self) -> float:
        """As it says itself, which is exact to the microsecond where the kernel's own count goes by the hundredth."""
        facts: dict[str, float] = call(self.redis, "INFO", "cpu")
        sums = ("used_cpu_user", "used_cpu_sys", "used_cpu_user_children", "used_cpu_sys_children")
        return sum(float(facts[name]) for name in sums)

    def _redis_quiet(self) -> bool:
        facts: dict[str, Any] = call(self.redis, "INFO", "persistence")
        return not (int(facts["aof_rewrite_in_progress"]) or int(facts["aof_rewrite_scheduled"]))

    def _postgres_answers(self) -> bool:
        address = self.settings.database_address().replace(f"/{self.settings.file.postgres.database}?", "/postgres?")
        try:
            psycopg.connect(address, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    async def _make_ready(self) -> None:
        """What the watchdog does before it lets writers in."""
        wire = await Wire.open(self.settings.redis_address())
        try:
            await wait_ready(wire, self.settings.namespace)
        finally:
            await wire.close()


def _resident(process: psutil.Process) -> int:
    """Bytes, shared ones divided among those that share them where the system tells."""
    facts = process.memory_full_info()
    return int(getattr(facts, "pss", facts.rss))


_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = current_schema()
AND c.relname NOT LIKE '%migration%'
"""
