"""Trades with known numbers and newer times: they wait for proof that the venue's numbers began again. Pure."""

from collections.abc import Iterable

import msgspec

from normalize.spans import longest_run, span_of
from pipeline.records import Trade
from pipeline.timeframes import DAY, MINUTE

MOST_HELD = 100
MOST_DOUBTFUL = 1_000
HELD_FOR = 7 * DAY
"""What may be the first of new numbers waits so long for two more: a pair may trade once a day."""
DOUBTED_FOR = MINUTE
CONTIGUOUS = 3
"""So many trades in a row prove that the numbers began again."""


class Held(msgspec.Struct, frozen=True):
    """A trade with a known number but a newer time; refuted as soon as the old numbering goes on past that. `doubtful`:
    newer by so little that it proves nothing; of the new numbering if others prove one, else a duplicate."""

    trade: Trade
    since: int
    doubtful: bool


def proven(held: Iterable[Held]) -> bool:
    """Whether so many follow each other that the numbers began again."""
    firm = sorted((each.trade for each in held if not each.doubtful), key=span_of)
    return longest_run(firm) >= CONTIGUOUS
