"""Deals what is planned: begins what is due and possible, ends what is over, and writes down what was done."""

import contextlib
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from pipeline.commands._chaos import exchange, processes, servers
from pipeline.commands._chaos.fault import Fault
from pipeline.commands._chaos.plan import ALONE, SUPERVISORD, Planned
from pipeline.commands._chaos.scene import Scene
from pipeline.errors import ServerAway

SPACING = 0.3
"""Seconds between two faults: after a long recovery many are due at once."""
PATIENCE = 60.0
"""Seconds a fault that must be alone waits for the product to recover; and any fault for its target, at the end."""
POLL = 0.05

FAULTS: Mapping[str, type[Fault]] = {
    "kill": processes.Kill,
    "kill_twice": processes.KillTwice,
    "stop": processes.Stop,
    "hang": processes.Stop,
    "stutter": processes.Stutter,
    "slow_sync": processes.SlowSync,
    "away": processes.Away,
    "cut": servers.Cut,
    "stall": servers.Stall,
    "deaf": servers.Deaf,
    "fill": servers.Fill,
    "overflow": servers.Fill,
    "line_cut": exchange.LineCut,
    "line_stall": exchange.LineStall,
    "notice": exchange.Closing,
    "slow_reader": exchange.Closing,
    "lifetime": exchange.Lifetime,
    "refused_symbol": exchange.Subscribing,
    "silence_after_ack": exchange.Subscribing,
    "rest_error": exchange.Lasting,
    "rest_lag": exchange.Lag,
    "skew": exchange.Skew,
    "relisting": exchange.Relisting,
    "half_open": exchange.HalfOpen,
    **dict.fromkeys(("disconnect", "drop", "duplicate", "reorder"), exchange.Simulated),
    **dict.fromkeys(("malformed", "oversized", "book_gap", "rest_empty", "forget"), exchange.Simulated),
    **dict.fromkeys(("book_crossed", "book_stale", "book_reset"), exchange.Simulated),
}


class InForce(msgspec.Struct):
    """A fault that has begun. `since` by the monotonic clock."""

    fault: Fault
    since: float


class Campaign:
    """Deals a plan. Call `turn` often, and `finish` in any case."""

    def __init__(self, planned: Iterable[Planned], scene: Scene, log: Path, say: Callable[[str], None]) -> None:
        self._scene = scene
        self._log = log
        self._say = say
        self._due: deque[Fault] = deque(FAULTS[one.fault](one, scene) for one in planned)
        self._in_force: list[InForce] = []
        self._last = 0.0
        self._waits = 0.0
        self.dealt: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    @property
    def done(self) -> bool:
        return not self._due and not self._in_force

    @property
    def blind(self) -> bool:
        """Whether supervisord is being harmed: who asks it anything would wait."""
        return any(one.fault.planned.target == SUPERVISORD for one in self._in_force)

    def turn(self, elapsed: float) -> None:
        """`elapsed`: seconds since the campaign began. At most one fault begins."""
        self._scene.turn()
        self._end_what_is_over()
        if time.monotonic() - self._last >= SPACING:
            self._begin_one(elapsed)

    def drop_rest(self) -> None:
        """Gives up what could not begin."""
        for fault in self._due:
            self._drop(fault, "could not begin in time")
        self._due.clear()

    def finish(self) -> None:
        """Ends everything in force. Raises ServerAway when something cannot be undone."""
        end = time.monotonic() + PATIENCE
        while self._in_force:
            for one in list(self._in_force):
                try:
                    self._end(one)
                except ServerAway:
                    if time.monotonic() > end:
                        raise
            time.sleep(POLL)
        self._scene.turn(all_now=True)

    def abandon(self) -> None:
        """Ends everything in force as far as it can be: the run is over anyway."""
        for one in list(self._in_force):
            with contextlib.suppress(ServerAway, OSError):
                self._end(one)
        self._scene.turn(all_now=True)

    def _end_what_is_over(self) -> None:
        for one in list(self._in_force):
            with contextlib.suppress(ServerAway):
                if one.fault.over(time.monotonic() - one.since):
                    self._end(one)

    def _end(self, one: InForce) -> None:
        one.fault.end()
        self._in_force.remove(one)
        if one.fault.failed:
            self.dealt -= Counter({one.fault.planned.fault: 1})
            self._drop(one.fault, one.fault.failed)
        elif one.fault.planned.seconds:
            self._write(one.fault, "ended")

    def _begin_one(self, elapsed: float) -> None:
        """The first that is due and may begin now. One that must be alone lets nothing pass it by."""
        touched = frozenset[str]().union(*(one.fault.touches for one in self._in_force)) if self._in_force else set()
        alone = any(one.fault.planned.fault in ALONE for one in self._in_force)
        for fault in list(self._due):
            if fault.planned.at > elapsed or alone:
                return
            if fault.planned.fault in ALONE:
                if self._wait_for_calm(fault):
                    return
                continue
            if not (fault.touches - self._shared(fault)) & touched and self._begin(fault):
                return

    def _shared(self, fault: Fault) -> frozenset[str]:
        """Several may need supervisord, as long as none harms it."""
        return frozenset() if self.blind or fault.planned.target == SUPERVISORD else frozenset({SUPERVISORD})

    def _wait_for_calm(self, fault: Fault) -> bool:
        """Whether to go on waiting, or it has begun."""
        if self._in_force:
            # They end, if it takes minutes; what is waited for a minute only is the recovery after them.
            self._waits = 0.0
            return True
        self._waits = self._waits or time.monotonic()
        with contextlib.suppress(ServerAway):
            if self._scene.recovered() and self._begin(fault):
                self._waits = 0.0
                return True
        if time.monotonic() - self._waits < PATIENCE:
            return True
        self._waits = 0.0
        self._due.remove(fault)
        self._drop(fault, "the product did not recover in time")
        return False

    def _begin(self, fault: Fault) -> bool:
        try:
            if not fault.begin():
                return False
        except (ServerAway, ProcessLookupError):
            return False
        self._last = time.monotonic()
        self._due.remove(fault)
        self._in_force.append(InForce(fault, self._last))
        self.dealt[fault.planned.fault] += 1
        self._say(_told(fault.planned))
        self._write(fault, "began")
        return True

    def _drop(self, fault: Fault, why: str) -> None:
        self.dropped[fault.planned.fault] += 1
        self._say(f"{_told(fault.planned)}: {why}")
        self._write(fault, "dropped")

    def _write(self, fault: Fault, event: str) -> None:
        line = {"time": time.time_ns(), "event": event, **msgspec.to_builtins(fault.planned)}
        with self._log.open("a") as log:
            log.write(json.dumps(line) + "\n")


def _told(planned: Planned) -> str:
    """`stall redis 3.1 s`."""
    parts = [planned.fault, planned.target]
    if planned.seconds:
        parts.append(f"{planned.seconds:g} s")
    parts += [f"{name} {value}" for name, value in planned.arguments.items() if value is not None]
    return " ".join(parts)
