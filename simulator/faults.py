"""Faults on demand: their names and parameters, and what is in force now. Pure; it sends nothing itself.

A fault is a JSON object {"fault": name, ...}; in a file each line also has "at", seconds after the start.
"""

import json
from pathlib import Path
from typing import Literal

import msgspec

from pipeline.errors import SettingsError
from simulator.dialect import Dialect, Frame, Topic
from simulator.market import SECOND

Name = Literal[
    "disconnect",
    "half_open",
    "silence_after_ack",
    "duplicate",
    "drop",
    "reorder",
    "malformed",
    "refused_symbol",
    "relisting",
    "jump",
    "notice",
    "slow_reader",
    "rest_error",
    "lifetime",
    "book_gap",
    "book_crossed",
    "book_stale",
    "book_reset",
    "oversized",
    "skew",
    "forget",
    "rest_lag",
    "rest_empty",
    "clear",
]
VARIANTS = ("broken", "types", "missing")
FOREVER = 2**63 - 1
OVERSIZED = 17 * 1024 * 1024
"""Characters of an oversized frame: beyond the 16 MiB any client should take."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault asked for. Which fields count depends on the fault:

    disconnect, half_open: `connection` (all without it); disconnect also `code` (a close frame instead of a cut).
    notice: `connection`, `seconds` from notice to close (default 60).
    slow_reader: `connection`; it is neither read nor sent anything for `seconds` (default 2), then closed with 4005:
    the client was too slow, and what waited for it is lost.
    silence_after_ack, refused_symbol: hit new subscriptions; `instrument` (all without it), `seconds` it is in
    force (until `clear` without it); what was subscribed in silence stays silent. refused_symbol also
    `whole_request` (one bad arg refuses its request's other args silently).
    duplicate, drop, reorder, malformed: `instrument` (any without it), `channel` (the channels of trades without
    it), `count` frames; malformed also `variant` (each in turn without it) and `instead` (the true frame is not sent).
    oversized: as those, but any channel without `channel`; the frame is blown up with blanks beyond 16 MiB.
    book_gap: the next `count` increments of a book are not sent; `instrument`, `channel` (any without them).
    book_crossed: the best bid lies above the best ask; `instrument` (all without it), `seconds` (default 2).
    book_stale: REST snapshots stay as they are now; `instrument` (all without it), `seconds` (else until `clear`).
    book_reset: the numbers of a book begin anew at the next change; `instrument` (all without it).
    relisting, jump: `instrument`; jump also `count`, the numbers left out.
    rest_error: `status`, `code`, `seconds`. lifetime: connections end `seconds` after they began, as those of venues
    with a longest life do (the venue's own without `seconds`). skew: the exchange's clock is `seconds` ahead of ours
    (behind: below 0) until `clear` or the next one; it never goes back, but stands still until it is right. forget:
    REST no longer gives trades older than `seconds` (0); `instrument` (all without it). rest_lag: REST gives trades
    `seconds` (1) after they were printed, until `clear` or the next one. rest_empty: the next `count` pages of trades
    are empty, whatever there is. clear: ends every fault in force.
    """

    fault: Name
    at: float = 0.0
    connection: str | None = None
    instrument: str | None = None
    channel: str | None = None
    count: int = 1
    seconds: float | None = None
    code: int | None = None
    variant: Literal["broken", "types", "missing"] | None = None
    instead: bool = False
    whole_request: bool = False
    status: int = 503


NEEDS_INSTRUMENT = frozenset({"relisting", "jump"})


def fault_from(given: object) -> Fault:
    """A fault from a decoded JSON object; SettingsError says what is wrong with it."""
    try:
        fault = msgspec.convert(given, Fault)
    except msgspec.ValidationError as error:
        raise SettingsError(f"not a fault: {error}") from error
    if fault.fault in NEEDS_INSTRUMENT and fault.instrument is None:
        raise SettingsError(f"{fault.fault} needs an instrument")
    early = fault.seconds is not None and fault.seconds < 0 and fault.fault != "skew"
    if fault.count < 1 or fault.at < 0 or early:
        raise SettingsError(f"{fault.fault}: count must be at least 1, at and seconds not negative")
    return fault


def read_script(path: Path) -> list[Fault]:
    """The faults of a JSON Lines file, in order of `at`; SettingsError names the line that is wrong."""
    faults = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            faults.append(fault_from(json.loads(line)))
        except (json.JSONDecodeError, SettingsError) as error:
            raise SettingsError(f"{path}, line {number}: {error}") from error
    return sorted(faults, key=lambda fault: fault.at)


class _Spell(msgspec.Struct):
    """A fault in force until `until` (ns) for one instrument or all."""

    instrument: str | None
    until: int
    whole_request: bool = False


class Spells:
    """Faults that last: refused symbols, silence after the acknowledgement, REST errors.

    `lifetime` is how long (ns) a connection may live instead of what the venue grants; None: what it grants.
    `skew` is how far (ns) the exchange's clock is ahead of ours, `lag` how long (ns) trades take to appear in REST.
    """

    def __init__(self) -> None:
        self._refused: list[_Spell] = []
        self._silent: list[_Spell] = []
        self._rest: tuple[int, int | None, int] | None = None
        self.lifetime: int | None = None
        self.skew = 0
        self.lag = 0
        self._empty = 0

    def cast(self, fault: Fault, now: int) -> None:
        """Put a lasting fault in force; `clear` ends them all."""
        until = FOREVER if fault.seconds is None else now + int(fault.seconds * SECOND)
        if fault.fault == "refused_symbol":
            self._refused.append(_Spell(fault.instrument, until, fault.whole_request))
        elif fault.fault == "silence_after_ack":
            self._silent.append(_Spell(fault.instrument, until))
        elif fault.fault == "rest_error":
            self._rest = (fault.status, fault.code, until)
        elif fault.fault == "lifetime":
            self.lifetime = None if fault.seconds is None else int(fault.seconds * SECOND)
        elif fault.fault == "skew":
            self.skew = int((fault.seconds or 0) * SECOND)
        elif fault.fault == "rest_lag":
            self.lag = int((1 if fault.seconds is None else fault.seconds) * SECOND)
        elif fault.fault == "rest_empty":
            self._empty += fault.count
        elif fault.fault == "clear":
            self.skew = self.lag = self._empty = 0
            self._refused.clear()
            self._silent.clear()
            self._rest = self.lifetime = None

    def refuses(self, instrument: str, now: int) -> bool:
        return _in_force(self._refused, instrument, now) is not None

    def refuses_request(self, instrument: str, now: int) -> bool:
        """Does refusing this instrument take the request's other args with it?"""
        spell = _in_force(self._refused, instrument, now)
        return spell is not None and spell.whole_request

    def silences(self, instrument: str, now: int) -> bool:
        return _in_force(self._silent, instrument, now) is not None

    def empties(self) -> bool:
        """Is this page of trades to be empty?"""
        if self._empty:
            self._empty -= 1
            return True
        return False

    def rest_error(self, now: int) -> tuple[int, int | None] | None:
        """(HTTP status, code) every REST request gets now, or None."""
        if self._rest is None or now >= self._rest[2]:
            return None
        return self._rest[:2]

    def rest_wait(self, now: int) -> int | None:
        """How long (ns) REST errors still last; None: until `clear`."""
        return None if self._rest is None or self._rest[2] == FOREVER else max(0, self._rest[2] - now)


def _in_force(spells: list[_Spell], instrument: str, now: int) -> _Spell | None:
    for spell in spells:
        if spell.instrument in (None, instrument) and now < spell.until:
            return spell
    return None


class Effect(msgspec.Struct, frozen=True):
    """What a fault did to one frame: of trades `ids`, of a book's increment `update`."""

    fault: str
    channel: str
    instrument: str
    ids: tuple[int, ...]
    update: tuple[int, int] | None


class FrameFaults:
    """Faults that hit the next frames of a topic: duplicate, drop, reorder, malformed, oversized, book_gap."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._pending: list[Fault] = []
        self._left: list[int] = []
        self._held: dict[Topic, Frame] = {}
        self._variant = 0

    def add(self, fault: Fault) -> None:
        """Let `fault` hit the next `count` frames it fits."""
        self._pending.append(fault)
        self._left.append(fault.count)

    def clear(self) -> list[Frame]:
        """Forget what is pending; gives the frames held back for reordering, to be sent now."""
        self._pending.clear()
        self._left.clear()
        held = list(self._held.values())
        self._held.clear()
        return held

    def apply(self, frame: Frame) -> tuple[list[Frame], list[Effect]]:
        """What to send instead of `frame`, and what was done to it."""
        held = self._held.pop(frame.topic, None)
        if held is not None:
            return [frame, held], []
        fault = self._next(frame)
        if fault is None:
            return [frame], []
        return self._hit(fault, frame), [Effect(fault.fault, *frame.topic, frame.ids, frame.update)]

    def _next(self, frame: Frame) -> Fault | None:
        for place, fault in enumerate(self._pending):
            if _fits(fault, frame):
                self._left[place] -= 1
                if not self._left[place]:
                    del self._pending[place], self._left[place]
                return fault
        return None

    def _hit(self, fault: Fault, frame: Frame) -> list[Frame]:
        match fault.fault:
            case "drop" | "book_gap":
                return []
            case "oversized":
                return [msgspec.structs.replace(frame, text=frame.text.ljust(OVERSIZED))]
            case "duplicate":
                return [frame, frame]
            case "reorder":
                self._held[frame.topic] = frame
                return []
        variant = fault.variant or VARIANTS[self._variant % len(VARIANTS)]
        self._variant += 1
        wrong = msgspec.structs.replace(frame, text=self._dialect.corrupt(frame, variant))
        return [wrong] if fault.instead else [wrong, frame]


def _fits(fault: Fault, frame: Frame) -> bool:
    channel, instrument = frame.topic
    if fault.instrument not in (None, instrument) or fault.channel not in (None, channel):
        return False
    if fault.fault == "book_gap":
        return frame.update is not None and frame.update[0] != frame.update[1]
    return fault.channel is not None or fault.fault == "oversized" or bool(frame.ids)
