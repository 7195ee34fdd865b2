"""ingest alone: its Writer fed from memory, and the process `pipeline run ingest-okx` on a loopback WebSocket.

Yardsticks: XADDs of one frame each, 128 in one write, by a client that does nothing else; the same flood read by the
library `websockets` alone.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.filling import frames_in
from bench.frames import START, Market
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
    "yardstick.xadd.per_s": "XADDs a second of one trade frame each, 128 in one write, one client",
}
LONG = 600.0


class Written(msgspec.Struct, frozen=True):
    """What the writing process tells; `items` in `seconds`, `written` in all."""

    written: int
    items: int
    seconds: float
    cpu: float


def measure(terms: Terms, instance: Instance) -> Figures:
    """See KEYS."""
    return medians(_rounds(terms, instance))


def _rounds(terms: Terms, instance: Instance) -> Iterator[Figures]:
    frames = terms.size(300_000, 20_000)
    payload = Market("okx", terms.seed).trade(START)
    for _ in range(terms.rounds):
        instance.reset()
        xadds = xadds_per_second(instance, payload, frames)
        written = _write(terms, instance, frames)
        per_second = written.items / written.seconds
        yield {
            "ingest.frames_per_s": per_second,
            "ingest.cpu_us_per_frame": 1e6 * written.cpu / written.items,
            "ingest.ratio_to_redis": ratio(per_second, xadds),
            "yardstick.xadd.per_s": xadds,
        }


def _write(terms: Terms, instance: Instance, frames: int) -> Written:
    """Every frame must be in the raw stream once."""
    words = [sys.executable, "-m", "bench.writing", str(instance.settings.path), str(frames), str(terms.seed)]
    root = Path(__file__).parent.parent
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=LONG, cwd=root, env=instance.environ
    )
    if done.returncode:
        raise ServerAway(f"the writing process failed: {done.stderr.strip()[-400:]}")
    expect("frames in the raw stream", frames_in(instance, "okx"), frames)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Written)
