"""Watches how far aggregate and store are, and when: a process of its own that costs little, and says how much.

It asks Redis every two ms for aggregate's cursor, and Postgres every ten for store's: what is told is when a reader
could see the commit first, never before it. It begins at once, and ends with its stdin.
"""

import json
import socket
import sys
import threading
import time

import hiredis
import msgspec
import psycopg

ASK_REDIS = 0.002
ASK_POSTGRES = 0.01
REPLY = 65_536

Sample = tuple[int, str]
"""When a cursor was first seen (ns UTC), and the entry id at which it stands."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Where to look: the socket of Redis, the key of aggregate's state, the database, and the stream."""

    redis: str
    state: str
    database: str
    stream: str


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen, in order, and what it took: CPU in seconds over so many seconds."""

    steps: list[Sample]
    rows: list[Sample]
    cpu: float
    seconds: float


def watch_steps(plan: Plan, ended: threading.Event, samples: list[Sample]) -> None:
    """Until `ended`."""
    # Its stub knows tuples of one word only.
    question = hiredis.pack_command(("HGET", plan.state, "cursor"))  # type: ignore[arg-type]
    reader, newest = hiredis.Reader(), None
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(plan.redis)
        while not ended.is_set():
            connection.sendall(question)
            reader.feed(connection.recv(REPLY))
            cursor = reader.gets()
            if cursor and cursor != newest:
                samples.append((time.time_ns(), cursor.decode()))
                newest = cursor
            time.sleep(ASK_REDIS)


def watch_rows(plan: Plan, ended: threading.Event, samples: list[Sample]) -> None:
    """Until `ended`."""
    question, newest = b"SELECT id FROM cursors WHERE stream = %s", None
    with psycopg.connect(plan.database, autocommit=True) as connection:
        while not ended.is_set():
            row = connection.execute(question, (plan.stream,), prepare=True).fetchone()
            if row and row[0] != newest:
                samples.append((time.time_ns(), row[0]))
                newest = row[0]
            time.sleep(ASK_POSTGRES)


def observe(plan: Plan) -> Seen:
    """Watches until stdin ends."""
    steps: list[Sample] = []
    rows: list[Sample] = []
    ended, begun, before = threading.Event(), time.monotonic(), time.process_time()
    threads = [
        threading.Thread(target=watch_steps, args=(plan, ended, steps)),
        threading.Thread(target=watch_rows, args=(plan, ended, rows)),
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ended.set()
    for thread in threads:
        thread.join()
    return Seen(steps=steps, rows=rows, cpu=time.process_time() - before, seconds=time.monotonic() - begun)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(msgspec.to_builtins(observe(msgspec.json.decode(sys.argv[1], type=Plan)))))
