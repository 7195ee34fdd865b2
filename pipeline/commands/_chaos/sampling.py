"""Looks once a second, in a thread of its own, at what every process takes and whether the streams go on.

It reads /proc (Linux; elsewhere memory and files stay unknown), folders, and Redis; it harms and waits for nobody.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import redis.exceptions

from pipeline.commands._chaos.resources import Resources, Sample, Use
from pipeline.errors import ServerAway
from pipeline.probes import redis as redis_probe
from pipeline.servers.postgres import home_of
from pipeline.settings import Settings
from pipeline.streams import Keys
from pipeline.supervisor import DOWN, Program, Supervisor

INTERVAL = 1.0
SERVERS = ("redis", "postgres")
SUPERVISORD = "supervisord"
KINDS = ("trade", "candle:1s")
"""Streams that must go on, whatever is away."""
DATA_EVERY = 15
"""Looks between two at the size of a server's data: thousands of files."""
JOIN = 10.0
BEGAN = 19
"""Of /proc/PID/stat, behind the name."""
NOBODY: tuple[int, str | None] = (0, None)

Pids = dict[str, tuple[int, str | None]]
"""Process name to its pid and when it began: who began at another time is somebody else."""


class Sampler:
    """Samples from `start` to `stop` into `resources`, each sample also a line of the file `log`. While `trading`, the
    markets trade, and a stream without a new entry is silent."""

    def __init__(self, settings: Settings, supervisor: Supervisor, log: Path) -> None:
        self.resources = Resources()
        self.trading = False
        self._settings = settings
        self._supervisor = supervisor
        self._log = log
        self._streams = [
            Keys(settings.namespace, name).stream(kind) for name in settings.all_partitions() for kind in KINDS
        ]
        self._folders = _folders(settings)
        self._data = {"redis": settings.state_dir / "redis", "postgres": home_of(settings) / "postgres"}
        self._data_size: dict[str, int] = {}
        self._pids: Pids = {}
        self._postgres = True
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        self._begun = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Safe to call again."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(JOIN)

    def look(self) -> Sample:
        """Everything as it is now."""
        with contextlib.suppress(ServerAway):
            self._follow(self._supervisor.programs())
            self._pids[SUPERVISORD] = _known(self._supervisor.pid())
        memory, newest = self._redis()
        return Sample(
            time=time.monotonic(), uses=dict(self._uses()), newest=newest, postgres=self._postgres, redis=memory
        )

    def _run(self) -> None:
        due = time.monotonic()
        with self._log.open("a") as log:
            while not self._ended.wait(max(0.0, due - time.monotonic())):
                due = max(due + INTERVAL, time.monotonic())
                sample = self.look()
                self.resources.add(sample)
                if self.trading:
                    self.resources.listen(sample, self._streams)
                log.write(json.dumps(self._line(sample)) + "\n")

    def _line(self, sample: Sample) -> dict[str, object]:
        return {
            "at": round(sample.time - self._begun, 1),
            "postgres": sample.postgres,
            "redis": sample.redis,
            "newest": sample.newest and {name: entry.decode() for name, entry in sample.newest.items()},
            "processes": msgspec.to_builtins(sample.uses),
        }

    def _follow(self, programs: Mapping[str, Program]) -> None:
        self._pids = {
            name: before if (before := self._pids.get(name, NOBODY))[0] == one.pid else _known(one.pid)
            for name, one in programs.items()
            if one.pid
        }
        self._postgres = "postgres" not in programs or programs["postgres"].state not in (*DOWN, "STOPPING")

    def _uses(self) -> Iterator[tuple[str, Use]]:
        for name in SERVERS:
            if not self.resources.samples % DATA_EVERY:
                self._data_size[name] = size(self._data[name])
        for name in dict.fromkeys((*self._pids, *self._folders)):
            pid, began = self._pids.get(name, NOBODY)
            alive = began is not None and _began(pid) == began
            use = (of_tree(pid) if name in SERVERS else of_process(pid)) if alive else Use()
            disk = size(self._folders[name]) if name in self._folders else self._data_size.get(name)
            yield name, msgspec.structs.replace(use, disk=disk)

    def _redis(self) -> tuple[tuple[int, int] | None, dict[str, bytes] | None]:
        """((used_memory, maxmemory), newest ids); None both while it does not answer."""
        client = redis_probe.connect(self._settings)
        try:
            told = redis_probe.call(client, "INFO", "memory")
            newest = {
                stream: redis_probe.call(client, "XREVRANGE", stream, "+", "-", "COUNT", 1) for stream in self._streams
            }
        except (redis.exceptions.RedisError, OSError):
            return None, None
        finally:
            client.close()
        ids = {stream: bytes(entries[0][0]) for stream, entries in newest.items() if entries}
        return (int(told["used_memory"]), int(told["maxmemory"])), ids


def of_process(pid: int) -> Use:
    """What the kernel says of one process."""
    with contextlib.suppress(OSError):
        fields = _fields(Path(f"/proc/{pid}/status"))
        return Use(memory=fields.get("VmRSS"), peak=fields.get("VmHWM"), files=_open_files(pid))
    return Use()


def of_tree(pid: int) -> Use:
    """Of a server and its children together: what they share counts once."""
    pids, memory, files = [pid], 0, 0
    for one in pids:
        with contextlib.suppress(OSError):
            memory += _fields(Path(f"/proc/{one}/smaps_rollup"))["Pss"]
            files += _open_files(one)
            pids += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return Use(memory=memory or None, files=files or None)


def size(folder: Path) -> int:
    """Bytes of all files below it; 0 where there is none."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            found = path.lstat()
            total += found.st_size if path.is_file() else 0
    return total


def _folders(settings: Settings) -> dict[str, Path]:
    """Where each process keeps what waits for a server."""
    kept = {"ingest": settings.state_dir / "spool", "store": settings.state_dir / "spill"}
    return {name: kept[stage] / name for name in settings.processes() if (stage := name.partition("-")[0]) in kept}


def _known(pid: int) -> tuple[int, str | None]:
    return pid, _began(pid)


def _began(pid: int) -> str | None:
    """In ticks since the machine's start; None where there is none, or no /proc."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[BEGAN]
    return None


def _open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _fields(path: Path) -> dict[str, int]:
    """The lines `Name:  123 kB`, in bytes."""
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3 and row[2] == "kB"}
