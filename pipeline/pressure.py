"""Whether a stage should wait because Redis fills with what it writes and nobody reads.

Never for ever: while more waits to be read by the stage than behind it, its work makes room and it must go on; and who
reads what it has written never waits for it.
"""

import redis.exceptions

from pipeline.memory import NORMALIZE_PAUSES, memory
from pipeline.steps import Command
from pipeline.streams import READERS, Keys
from pipeline.wire import Reply, Wire, check

ELSEWHERE = ("raw", "candle", "rebuild")
OUTPUTS: dict[str, tuple[str, ...]] = {
    "normalize": tuple(kind for kind, by in READERS.items() if by and kind.partition(":")[0] not in ELSEWHERE)
}
"""The stages that wait, and what they write. aggregate writes far less than it reads: it never waits."""
WORTH_IT = 0.05
"""Share of the memory that the unread output must have: what is read within a second or two is no reason to wait."""
SAMPLES = 1_000
"""Nodes of a stream that are measured: the first ones, which may be ten times as large as the others (lists)."""

Reading = tuple[str, tuple[str, ...]]
"""A stream and its readers."""


class Pressure:
    """Of one stage over one partition."""

    def __init__(self, keys: Keys, stage: str, source: str) -> None:
        self._source: Reading = (source, (stage,))
        self._outputs: list[Reading] = [(keys.stream(kind), READERS[kind]) for kind in OUTPUTS.get(stage, ())]

    async def too_high(self, wire: Wire) -> bool:
        """Whether to wait. One short command while memory is not short. Raises ServerAway."""
        if not self._outputs or (used := await memory(wire)).share <= NORMALIZE_PAUSES:
            return False
        commands: list[Command] = []
        for stream, _ in (self._source, *self._outputs):
            commands += [("XLEN", stream), ("MEMORY", "USAGE", stream, "SAMPLES", SAMPLES), ("XINFO", "GROUPS", stream)]
        replies = await wire.call(*commands)
        first, *others = (replies[start : start + 3] for start in range(0, len(replies), 3))
        unread = _unread(first, self._source, unknown=1.0)
        written = sum(_unread(reply, output, unknown=0.0) for reply, output in zip(others, self._outputs, strict=True))
        return written > max(unread, WORTH_IT * used.limit)


def _unread(reply: list[Reply], reading: Reading, *, unknown: float) -> float:
    """About how many bytes of a stream the slowest of its readers has still to read; the share `unknown` of it where
    Redis cannot tell, so that the doubt is for going on."""
    length, size, groups = reply
    if isinstance(groups, redis.exceptions.ResponseError) or not check(length):
        return 0.0
    facts = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in groups]
    lags = [group[b"lag"] for group in facts if group[b"name"].decode() in reading[1]]
    share = unknown if not lags or None in lags else min(1.0, max(lags) / length)
    return int(check(size) or 0) * share
