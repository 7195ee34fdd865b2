"""Whose fault a failed write is, and which rows are to blame. Knows no connection.

A row is at fault only where the server says so about a value of it; everything else (missing partition,
full disk, no permission, wrong schema) is the server's or ours, and no row may be thrown away for it.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

import psycopg

from pipeline.errors import TapelineError

MOST_ROWS = 10
MOST_SHARE = 0.01

R = TypeVar("R")


class TooManyFaults(TapelineError):
    """More rows of a batch are unusable than chance explains: nothing moves until someone looks."""


class Fault(NamedTuple):
    """What is wrong with one row: a short reason that groups like cases, and the details."""

    reason: str
    detail: str


def most_faults(rows: int) -> int:
    """How many rows of a batch of `rows` may be unusable before the batch stops."""
    return max(MOST_ROWS, int(rows * MOST_SHARE))


def fault_of_row(error: psycopg.Error) -> Fault | None:
    """The row's fault, or None: then it is the server's. A missing partition is 23514 too, but names no constraint."""
    code = error.sqlstate or ""
    constraint = error.diag.constraint_name
    ours = code.startswith("22") or code == "23502" or (code == "23514" and constraint is not None)
    if not ours:
        return None
    what = constraint or error.diag.column_name or type(error).__name__
    return Fault(f"row refused: {what}", str(error).strip())


async def load_sound(
    load: Callable[[Sequence[R]], Awaitable[int]], rows: Sequence[R], most: int
) -> tuple[int, list[tuple[R, Fault]]]:
    """Loads the rows, halving where some are refused: (rows written, the refused ones and why).

    `load` writes all or nothing. Raises TooManyFaults when more than `most` are refused, and whatever
    error of `load` is not a row's fault.
    """
    if not rows:
        return 0, []
    try:
        return await load(rows), []
    except psycopg.Error as error:
        fault = fault_of_row(error)
        if fault is None:
            raise
        if len(rows) == 1:
            if most < 1:
                raise TooManyFaults(f"too many rows are refused, the last one: {fault.reason}") from error
            return 0, [(rows[0], fault)]
    middle = len(rows) // 2
    written, refused = await load_sound(load, rows[:middle], most)
    more, also = await load_sound(load, rows[middle:], most - len(refused))
    return written + more, refused + also
