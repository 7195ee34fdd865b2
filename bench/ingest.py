"""ingest alone: its Writer fed from memory, and the process `pipeline run ingest-okx` on a loopback WebSocket.

Yardsticks: XADDs of one frame each, 128 in one write, by a client that does nothing else; the same flood read by the
library `websockets` alone.
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from bench.exchange import Exchange
from bench.filling import Count
from bench.flood import PROCESS, flood
from bench.frames import START, SYMBOLS, Market
from bench.instance import Instance
from bench.part import Figures, Terms, expect, medians, ratio
from bench.yardsticks.xadd import xadds_per_second
from pipeline.errors import ServerAway

NAME = "ingest"
SUMMARY = "frames into the raw stream"
KEYS = {
    "ingest.frames_per_s": "frames a second from memory into the raw stream, by its Writer",
    "ingest.cpu_us_per_frame": "µs of CPU of that process for a frame",
    "ingest.ratio_to_redis": "frames a second of the Writer for one XADD of a frame",
    "ingest.socket_frames_per_s": "frames a second from a loopback WebSocket into the raw stream, by its process",
    "ingest.socket_cpu_us_per_frame": "µs of CPU of its process for a frame",
    "ingest.socket_redis_us_per_frame": "µs of CPU of Redis for a frame",
    "ingest.ratio_to_websockets": "frames a second of its process for one of the library `websockets` alone",
    "yardstick.xadd.per_s": "XADDs a second of one trade frame each, 128 in one write, one client",
    "yardstick.websockets.frames_per_s": "frames a second of the same flood, read by `websockets` and dropped",
    "yardstick.websockets.cpu_us_per_frame": "µs of CPU of that process for a frame",
}
LONG = 600.0
MOST = 200_000
"""Frames. From an empty file on, Redis rewrites it at 64 MB: so many do not get there, ours as little as theirs."""


class Told(msgspec.Struct, frozen=True):
    """What a process of ours tells of itself: `items` in `seconds`, with `cpu` seconds of CPU."""

    items: int
    seconds: float
    cpu: float

    @property
    def per_second(self) -> float:
        return self.items / self.seconds

    @property
    def microseconds(self) -> float:
        return 1e6 * self.cpu / self.items


def measure(terms: Terms, instance: Instance) -> Figures:
    """See KEYS."""
    return medians(_rounds(terms, instance))


def _rounds(terms: Terms, instance: Instance) -> Iterator[Figures]:
    frames = terms.size(MOST, 20_000)
    payload = Market("okx", terms.seed).trade(START)
    for _ in range(terms.rounds):
        instance.reset()
        xadds = xadds_per_second(instance, payload, frames)
        instance.reset()
        written = _write(terms, instance, frames)
        read = _read(terms, instance, frames)
        socket = flood(terms, instance, frames)
        yield {
            "ingest.frames_per_s": written.per_second,
            "ingest.cpu_us_per_frame": written.microseconds,
            "ingest.ratio_to_redis": ratio(written.per_second, xadds),
            "ingest.socket_frames_per_s": socket.per_second,
            "ingest.socket_cpu_us_per_frame": socket.microseconds(PROCESS),
            "ingest.socket_redis_us_per_frame": socket.microseconds("redis"),
            "ingest.ratio_to_websockets": ratio(socket.per_second, read.per_second),
            "yardstick.xadd.per_s": xadds,
            "yardstick.websockets.frames_per_s": read.per_second,
            "yardstick.websockets.cpu_us_per_frame": read.microseconds,
        }


def _write(terms: Terms, instance: Instance, frames: int) -> Told:
    """Every frame must be in the raw stream once."""
    told = _run(instance, "bench.writing", str(instance.settings.path), str(frames), str(terms.seed))
    expect("frames in the raw stream", Count(instance).more(), frames)
    return told


def _read(terms: Terms, instance: Instance, frames: int) -> Told:
    """The flood waits until its reader has subscribed."""
    with Exchange(SYMBOLS, terms.seed) as exchange, ThreadPoolExecutor(1) as thread:
        words = (exchange.ws_url, str(frames), *exchange.names)
        reading = thread.submit(_run, instance, "bench.yardsticks.reader", *words)
        instance.until(lambda: reading.done() or exchange.told().subscribed == SYMBOLS, "the reader to subscribe")
        exchange.allow(frames)
        exchange.print(frames)
        return reading.result()


def _run(instance: Instance, module: str, *words: str) -> Told:
    """A script of ours, to its end."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG,
        cwd=Path(__file__).parent.parent,
        env=instance.environ,
    )
    if done.returncode:
        raise ServerAway(f"{module} failed: {done.stderr.strip()[-400:]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Told)
