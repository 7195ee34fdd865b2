"""`pipeline streams`: which streams there are, how full and fresh they are, and who has read how far."""

import json
import time
from typing import Any

import click
import redis.exceptions

from pipeline import settings, text
from pipeline.errors import ServerAway
from pipeline.facts import Group, Stream
from pipeline.probes.redis import connect
from pipeline.probes.redis import streams as list_streams
from pipeline.readers import group_row


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON document (fields: docs/status.md).")
@click.pass_context
def streams(ctx: click.Context, as_json: bool) -> None:
    """List the streams: entries, age of the newest, memory, and each reader with its lag.

    The lag is counted in entries; `?` where Redis cannot tell (a reader that has never read).

    \b
    Examples:
      pipeline streams
      pipeline streams --json | jq '.[] | select(.entries > 100000) | .key'
    """
    given = settings.load(ctx.obj)
    client = connect(given, timeout=5.0)
    try:
        found = list_streams(client, given)
    except redis.exceptions.RedisError as error:
        raise ServerAway(f"Redis does not answer: {error}") from error
    finally:
        client.close()
    now = time.time_ns()
    if as_json:
        click.echo(json.dumps([_document(stream, now) for stream in found], indent=2))
        return
    if not found:
        click.echo(f"no streams in namespace {given.namespace} yet")
        return
    rows = [(s.key, text.number(s.entries), text.age(s.newest, now), text.size(s.bytes), _readers(s)) for s in found]
    click.echo("\n".join(text.table(("STREAM", "ENTRIES", "NEWEST", "MEMORY", "LAG BY READER"), rows)))


def _readers(stream: Stream) -> str:
    return " ".join(_reader(group) for group in stream.groups)


def _reader(group: Group) -> str:
    lag = "?" if group.lag is None else text.number(group.lag)
    return f"{group.name} {lag}{f' (LOST {text.number(group.lost.entries)})' if group.lost else ''}"


def _document(stream: Stream, now: int) -> dict[str, Any]:
    return {
        "key": stream.key,
        "kind": stream.kind,
        "exchange": stream.exchange,
        "partition": stream.partition,
        "entries": stream.entries,
        "newest": text.iso(stream.newest),
        "time_since_newest": text.seconds(stream.newest, now),
        "bytes": stream.bytes,
        "groups": [group_row(group) for group in stream.groups],
    }
