"""What was taken of an exchange's allowances, in a file before it goes out: it counts by address, not by process.

The kernel has a line before the request leaves, so a kill at any moment loses none. Lines are not synced: after a loss
of power the last seconds may be missing, and a machine takes longer than that to start.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from ingest.budget import Budget
from ingest.clock import HostClock

MOST_BYTES = 128 * 1024
"""Of lines before those that count no longer are thrown out."""

What = Literal["took", "begun", "ended", "held"]


class Line(msgspec.Struct, frozen=True):
    """One thing noted of the allowance `of`. took, ended: `cost` at `at`, ns since the machine started. begun: `cost`
    on its way to the exchange since then. held: nothing for `cost` ns, said at `at`, ns UTC."""

    of: str
    what: What
    at: int
    cost: int


_DECODER = msgspec.json.Decoder(Line)
_ENCODER = msgspec.json.Encoder()


class _Account(msgspec.Struct):
    """Of one allowance: what was taken, what is on its way, the pauses demanded."""

    taken: list[Line] = []
    begun: list[Line] = []
    held: list[Line] = []

    def add(self, line: Line) -> None:
        if line.what == "begun":
            self.begun.append(line)
        elif line.what == "held":
            self.held.append(line)
        else:
            if line.what == "ended" and self.begun:
                self.begun.pop(0)
            self.taken.append(line)


class Tally:
    """The file of one process at `path`; `report` is told once when it cannot be written."""

    def __init__(self, path: Path, clock: HostClock, report: Callable[[str], None]) -> None:
        self._path = path
        self._clock = clock
        self._report = report
        self._budgets: Mapping[str, Budget] = {}
        self._file: int | None = None
        self._size = 0
        self._failed = False

    def restore(self, budgets: Mapping[str, Budget]) -> None:
        """Gives each allowance, by its name, what processes before us took of it, and notes what it gives from now on.
        What was on its way when one was killed may have arrived until now."""
        self._budgets = budgets
        now, wall = self._clock.monotonic(), self._clock.now()
        accounts = self._accounts()
        for name, budget in budgets.items():
            account = accounts.setdefault(name, _Account())
            account.taken = [self._since_start(line, now) for line in account.taken]
            account.taken += [msgspec.structs.replace(line, what="took", at=now) for line in account.begun]
            account.begun = []
            for line in self._counting(account.taken, budget, now):
                budget.restore(line.at, line.cost)
            # Never longer than was demanded, even where the clock was set back.
            budget.hold(now + max([0, *(min(line.cost, line.at + line.cost - wall) for line in account.held)]))
        self._rewrite(accounts)
        for name, budget in budgets.items():
            budget.note = functools.partial(self._note, name)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _note(self, name: str, what: What, at: int, cost: int) -> None:
        if what == "held":
            cost, at = at - self._clock.monotonic(), self._clock.now()
        try:
            self._append(_ENCODER.encode(Line(name, what, at, cost)) + b"\n")
            self._failed = False
        except OSError as error:
            self._fail(error)
        if self._size > MOST_BYTES:
            self._rewrite(self._accounts())

    def _append(self, text: bytes) -> None:
        """Raises OSError."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self._file, text)
        self._size += len(text)

    def _rewrite(self, accounts: Mapping[str, _Account]) -> None:
        """Replaces the file by one of what counts still."""
        lines = b"".join(_ENCODER.encode(line) + b"\n" for line in self._kept(accounts))
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(lines)
            os.replace(fresh, self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            self._fail(error)
        else:
            self.close()
        self._size = 0

    def _kept(self, accounts: Mapping[str, _Account]) -> Iterable[Line]:
        now, wall = self._clock.monotonic(), self._clock.now()
        for name, account in accounts.items():
            if (budget := self._budgets.get(name)) is not None:
                yield from self._counting(account.taken, budget, now)
                yield from account.begun
                yield from (line for line in account.held if line.at + line.cost > wall)

    def _accounts(self) -> dict[str, _Account]:
        """What stands in the file; a line that was torn says nothing."""
        accounts: dict[str, _Account] = {}
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return accounts
        for text in lines:
            with contextlib.suppress(msgspec.DecodeError):
                line = _DECODER.decode(text)
                accounts.setdefault(line.of, _Account()).add(line)
        return accounts

    @staticmethod
    def _counting(lines: Iterable[Line], budget: Budget, now: int) -> list[Line]:
        return [line for line in lines if line.at > now - budget.period]

    @staticmethod
    def _since_start(line: Line, now: int) -> Line:
        """The machine was started anew where the time has not come yet: it happened before. Where it has come all the
        same, it is taken for later than it was: so much time has passed since the start alone."""
        return line if line.at <= now else msgspec.structs.replace(line, at=0)

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            self._report(f"cannot note what is taken of allowances: {error.strerror}: {self._path}")
