"""What Redis takes at most from one client: XADDs of one trade frame each, 128 in one write.

By redis-benchmark or valkey-benchmark where PATH has one, else by a writer that has its commands packed beforehand.
"""

import csv
import shutil
import socket
import subprocess
import time

from bench.instance import Instance
from pipeline.errors import ServerAway

PIPELINED = 128
STREAM = "bench:xadd"
LONG = 600.0
REPLY_ENDS = 2
"""Line ends in a reply to XADD: of its length and of the id."""


def xadds_per_second(instance: Instance, payload: str, count: int) -> float:
    """`count` entries with the payload in one field, each acknowledged; over the unix socket, as the product writes."""
    path = str(instance.settings.run_dir / "redis.sock")
    instance.redis.delete(STREAM)
    program = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    rate = _by_program(program, path, payload, count) if program else _by_socket(path, payload, count)
    instance.redis.delete(STREAM)
    instance.quiet()
    return rate


def _by_program(program: str, path: str, payload: str, count: int) -> float:
    options = ["-s", path, "-c", "1", "-P", str(PIPELINED), "-n", str(count), "--csv"]
    words = [program, *options, "XADD", STREAM, "*", "data", payload]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LONG)
    rows = list(csv.reader(done.stdout.splitlines()))
    if done.returncode or not rows:
        raise ServerAway(f"{program} failed: {done.stderr.strip()[-300:]}")
    return float(rows[-1][1])


def _by_socket(path: str, payload: str, count: int) -> float:
    words = [b"XADD", STREAM.encode(), b"*", b"data", payload.encode()]
    command = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    batch, batches = command * PIPELINED, -(-count // PIPELINED)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        begun = time.perf_counter()
        for _ in range(batches):
            connection.sendall(batch)
            ends = 0
            while ends < REPLY_ENDS * PIPELINED:
                ends += connection.recv(65_536).count(b"\n")
        return batches * PIPELINED / (time.perf_counter() - begun)
