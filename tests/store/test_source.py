"""The streams as store reads them, on a real Redis: from where, and what is shown of it."""

from pipeline.streams import READERS
from pipeline.trimmer import Promise, trim
from pipeline.wire import Wire, check
from store.batch import STAGE, Batch, Cursor
from store.source import Source
from tests.store.made import KEYS, candle, publish, trade


async def test_a_group_ahead_of_postgres_is_set_back_before_anything_is_trimmed(redis_url: str) -> None:
    """A backup of Postgres was restored: what came after it is still in Redis, and is to stay until it is stored."""
    entries = await publish(redis_url, [trade(number) for number in range(1, 301)])
    wire = await Wire.open(redis_url)
    source = Source(KEYS, wire, None)
    await source.prepare()
    stored = dict.fromkeys(source.streams, Cursor("0-0", 0)) | {KEYS.trade: Cursor(entries[9].decode(), 10)}
    for reader in READERS["trade"]:
        await wire.call(("XGROUP", "CREATE", KEYS.trade, reader, "0"))
        check((await wire.call(("XGROUP", "SETID", KEYS.trade, reader, entries[-1])))[0])
    batch = Batch("okx")
    source.begin(stored)
    await source.read(batch, 20, block=False)
    groups = check((await wire.call(("XINFO", "GROUPS", KEYS.trade)))[0])
    shown = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in groups]
    assert {g[b"name"]: g[b"last-delivered-id"] for g in shown}[STAGE.encode()] == entries[9]
    await trim(wire, KEYS, Promise(0, 0))
    assert [found.record.sequence for found in batch.trades] == list(range(11, 31))
    assert source.behind
    await source.read(batch, 1_000, block=False)
    assert [found.record.sequence for found in batch.trades] == list(range(11, 301))
    assert not source.behind
    await wire.close()


async def test_streams_that_have_more_share_what_a_read_may_bring_and_others_take_nothing_of_it(redis_url: str) -> None:
    await publish(redis_url, [*(trade(number) for number in range(1, 101)), candle(0)])
    wire = await Wire.open(redis_url)
    source = Source(KEYS, wire, None)
    await source.prepare()
    source.begin(dict.fromkeys(source.streams, Cursor("0-0", 0)))
    for _ in range(2):
        assert {each.kind: len(each.entries) for each in await source.fetch(40, block=False)}["trade"] == 40
    assert [len(each.entries) for each in await source.fetch(40, block=False)] == [20]
    await wire.close()
