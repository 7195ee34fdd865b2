"""What the holes of one partition want of ingest: which, under which number, when anew, and when never again. Pure.

A function of the raw stream: times are its age. What the exchange will forget first is wanted first. No answer is
believed to be all there is until the exchange has shown three times that it lacks a number.
"""

from collections.abc import Iterable, Iterator

from normalize import intervals
from normalize.continuity import Continuity
from normalize.holes import BEGIN_AT_ONE, Hole, Name, Repair
from normalize.outlet import Outlet
from normalize.state import State
from pipeline.frames import RequestData
from pipeline.timeframes import MINUTE, SECOND
from pipeline.wants import TradesKey, Want, trades_key, trades_of

MOST_OF_ONE = 16
MOST = 512
"""Wants of trades at a time: of one instrument, of the partition. The others come when these end."""
SHRUNK = SECOND
"""A want is written again at most so often because less is missing."""
FIRST_PAUSE = 5 * SECOND
LONGEST_PAUSE = 10 * MINUTE
MOST_UNREAD = 10
"""So many answers in a row may show rows that cannot be read, and nothing else: half an hour."""
LACKED_FOR = MINUTE
"""So much later than the first the third answer must lack a number: an exchange's history may be behind its socket,
and what is closed is never asked for again."""
MOST_REASON = 200
LACKED = "unrecoverable: the exchange does not have them"
ENDED = "unrecoverable: the contract has ended"


class Repairs:
    """Decides over the holes in `state`, writes wants to `outlet`. All it remembers is in the holes."""

    def __init__(self, state: State, outlet: Outlet) -> None:
        self._state = state
        self._outlet = outlet
        self._wanted: dict[str, dict[Name, Hole]] = {}
        for name, seen in state.continuity.items():
            for hole in (*seen.old_holes, *seen.holes, *seen.given_up):
                if hole.repair is not None and hole.repair.wanted:
                    self._wanted.setdefault(name, {})[hole.name] = hole

    def wants(self) -> Iterator[tuple[str, Want]]:
        """What stands in `md:want` because of holes, what the exchange forgets first first."""
        found = [(hole.from_time, name, hole) for name, holes in self._wanted.items() for hole in holes.values()]
        for _, name, hole in sorted(found, key=lambda row: (*row[:2], row[2].name)):
            yield trades_key(name, *hole.name), _want(name, hole)

    def waiting(self) -> Iterator[tuple[str, Want, int, str | None]]:
        """What will be wanted anew, in the same order: (key, the last want, in so many ns, what came of that)."""
        now = self._state.stream.now
        found = [
            (hole.from_time, name, hole, hole.repair)
            for name in self._state.busy
            for hole in _holes(self._state.continuity[name])
            if hole.remaining and hole.repair is not None and not hole.repair.wanted
        ]
        for _, name, hole, repair in sorted(found, key=lambda row: (*row[:2], row[2].name)):
            yield trades_key(name, *hole.name), _want(name, hole), max(0, repair.due - now), repair.answer

    def wanted(self, instrument: str) -> int:
        """How many holes of the instrument are being fetched."""
        return len(self._wanted.get(instrument, ()))

    def request(self, data: RequestData) -> None:
        """What became of a want."""
        key = trades_of(data.key)
        hole = None if key is None else self._wanted.get(key.instrument, {}).get((key.epoch, key.first))
        if key is None or hole is None or hole.repair is None or hole.repair.number != data.number:
            return
        if data.state == "asked" or not hole.remaining or hole.closed:
            return
        self._take_back(key.instrument, hole)
        hole.repair.answer = (data.reason or data.state)[:MOST_REASON]
        if data.state == "answered":
            self._answered(key, hole, data)
        elif data.permanent:
            self._close(key, hole, f"unrecoverable: {data.reason or 'the exchange refuses'}"[:MOST_REASON])
        else:
            self._again(hole.repair)

    def unread(self, key: TradesKey, numbers: Iterable[int] | None) -> None:
        """A page shows rows of these numbers that cannot be read (None: nothing of it can). Being there, they are not
        lacked."""
        hole = self._wanted.get(key.instrument, {}).get((key.epoch, key.first))
        if hole is None or hole.repair is None:
            return
        shown = hole.remaining if numbers is None else intervals.union([], [(each, each) for each in numbers])
        hole.repair.unread = intervals.union(hole.repair.unread, intervals.within(hole.remaining, shown))
        self._touch(key.instrument, hole)

    def lost(self, received: int) -> None:
        """Frames were lost on their way here: one of them may have told the end of any want. All are wanted anew."""
        for name in sorted(self._wanted):
            for hole in self._wanted[name].values():
                if hole.remaining and not hole.closed:
                    self._issue(name, hole, received)

    def look_after(self, received: int) -> None:
        """What only time does: filled holes take their wants back, shrunk ones write theirs again, others are wanted
        as there is room."""
        for name in sorted(self._wanted):
            for hole in list(self._wanted[name].values()):
                self._settle(name, hole)
        for name, hole in self._due():
            if self._room() and self.wanted(name) < MOST_OF_ONE:
                self._issue(name, hole, received)

    def forget(self, instrument: str) -> None:
        """The contract is no more: what it lacks will not be had."""
        for hole in list(self._wanted.get(instrument, {}).values()):
            self._take_back(instrument, hole)
        seen = self._state.continuity.get(instrument)
        for hole in () if seen is None else (*seen.old_holes, *seen.holes):
            self._close(TradesKey(instrument, *hole.name), hole, ENDED)

    def _room(self) -> int:
        return MOST - sum(map(len, self._wanted.values()))

    def _due(self) -> list[tuple[str, Hole]]:
        """The holes that may be wanted now and are not."""
        if self._room() <= 0:
            return []
        now = self._state.stream.now
        found: list[tuple[int, str, Hole]] = []
        for name in self._state.busy:
            if self.wanted(name) < MOST_OF_ONE:
                seen = self._state.continuity[name]
                found += [(hole.from_time, name, hole) for hole in _holes(seen) if _waits(hole, now)]
        found.sort(key=lambda row: (*row[:2], row[2].name))
        return [(name, hole) for _, name, hole in found]

    def _settle(self, name: str, hole: Hole) -> None:
        repair = hole.repair
        assert repair is not None
        if hole.closed or not hole.fetchable:
            self._take_back(name, hole)
            if hole.remaining and not hole.closed:
                self._lack(TradesKey(name, *hole.name), hole)
            return
        if _bounds(hole) != (repair.first, repair.last) and self._state.stream.now - repair.written >= SHRUNK:
            self._write(name, hole, anew=False)

    def _issue(self, name: str, hole: Hole, received: int) -> None:
        """Wants what remains under the next number."""
        repair = hole.repair = hole.repair or Repair(since=received)
        repair.number += 1
        repair.wanted, repair.missing, repair.unread = True, hole.missing, []
        self._wanted.setdefault(name, {})[hole.name] = hole
        self._write(name, hole, anew=True)

    def _write(self, name: str, hole: Hole, *, anew: bool) -> None:
        repair = hole.repair
        assert repair is not None
        repair.first, repair.last = _bounds(hole)
        repair.written = self._state.stream.now
        self._outlet.want(trades_key(name, *hole.name), _want(name, hole), wake=anew)
        self._touch(name, hole)

    def _take_back(self, name: str, hole: Hole) -> None:
        repair = hole.repair
        assert repair is not None
        repair.wanted = False
        holes = self._wanted[name]
        del holes[hole.name]
        if not holes:
            del self._wanted[name]
        self._outlet.want(trades_key(name, *hole.name), None)
        self._touch(name, hole)

    def _answered(self, key: TradesKey, hole: Hole, data: RequestData) -> None:
        """The pages stand before this in the stream: what they span and did not bring, the exchange lacked."""
        repair = hole.repair
        assert repair is not None
        progress = hole.missing < repair.missing
        span = [] if data.first is None or data.last is None else [(data.first, data.last)]
        unread = intervals.within(hole.fetchable, repair.unread)
        lacking = intervals.without(intervals.within(hole.fetchable, span), unread)
        late = _count(repair, lacking, self._state.stream.now)
        _despair(repair, [] if progress else unread)
        if not hole.fetchable:
            self._lack(key, hole)
            return
        if progress:
            repair.failures = 0
        if lacking or unread or not progress:
            repair.answer = _answer(intervals.count(lacking), intervals.count(unread))
            self._again(repair)
            repair.due = max(repair.due, late)
        else:
            # The answer spanned a part; the rest needs no pause.
            repair.due = self._state.stream.now

    def _again(self, repair: Repair) -> None:
        repair.failures += 1
        repair.due = self._state.stream.now + pause(repair.failures)

    def _lack(self, key: TradesKey, hole: Hole) -> None:
        """The exchange does not have what remains. A numbering that begins at 1 never had a 0."""
        assert hole.repair is not None
        illegible = intervals.within(hole.remaining, hole.repair.illegible)
        if illegible:
            self._close(key, hole, _illegible(illegible, intervals.without(hole.remaining, illegible)))
        elif hole.remaining == [(0, 0)]:
            self._state.continuity[key.instrument].fill_up(hole, BEGIN_AT_ONE)
            self._state.changed_continuity.add(key.instrument)
        else:
            self._close(key, hole, LACKED)

    def _close(self, key: TradesKey, hole: Hole, reason: str) -> None:
        self._state.continuity[key.instrument].close(hole, reason)
        self._state.changed_continuity.add(key.instrument)

    def _touch(self, name: str, hole: Hole) -> None:
        self._state.continuity[name].touched.add(hole.name)
        self._state.changed_continuity.add(name)


def pause(failures: int) -> int:
    """ns after so many failures in a row until it is wanted anew: 5 s, 10 s … 10 min."""
    # Beyond 2**32 times the first pause the longest rules anyway.
    return min(LONGEST_PAUSE, FIRST_PAUSE << min(failures - 1, 32))


def _holes(seen: Continuity) -> Iterator[Hole]:
    yield from seen.old_holes
    yield from seen.holes


def _waits(hole: Hole, now: int) -> bool:
    """Whether the ledger has it and it may be wanted now."""
    repair = hole.repair
    return hole.told and (repair is None or (not repair.wanted and repair.due <= now))


def _count(repair: Repair, lacking: intervals.Ranges, now: int) -> int:
    """One more answer spanned these numbers and lacked them. The age at which the next one may settle it."""
    thrice = intervals.within(lacking, repair.twice)
    # Who lists 1 is not behind: the numbers begin there.
    begun = lacking == [(0, 0)]
    if begun or now - repair.lacked >= LACKED_FOR:
        repair.lost = intervals.union(repair.lost, thrice)
    repair.twice = intervals.union(repair.twice, intervals.within(lacking, repair.once))
    if intervals.without(lacking, repair.once):
        repair.once, repair.lacked = intervals.union(repair.once, lacking), now
    return repair.lacked + LACKED_FOR if intervals.within(lacking, repair.twice) and not begun else 0


def _despair(repair: Repair, unread: intervals.Ranges) -> None:
    """One more answer showed rows of these numbers that cannot be read, and nothing that can."""
    repair.unreadable = repair.unreadable + 1 if unread else 0
    if repair.unreadable >= MOST_UNREAD:
        repair.unreadable = 0
        repair.illegible = intervals.union(repair.illegible, unread)
        repair.lost = intervals.union(repair.lost, unread)


def _answer(lacking: int, unread: int) -> str:
    said = [f"the exchange lacks {lacking} of them"] if lacking else []
    said += [f"{unread} of them cannot be read"] if unread else []
    return ", ".join(said) or "nothing came"


def _illegible(unread: intervals.Ranges, lacking: intervals.Ranges) -> str:
    said = f"unrecoverable: the exchange's rows of {intervals.spelt(unread)} cannot be read"
    return f"{said}; it does not have {intervals.spelt(lacking)}" if lacking else said


def _bounds(hole: Hole) -> tuple[int, int]:
    ranges = hole.fetchable
    return ranges[0][0], ranges[-1][1]


def _want(name: str, hole: Hole) -> Want:
    repair = hole.repair
    assert repair is not None
    return Want(
        what="trades",
        instrument=name,
        number=repair.number,
        since=repair.since,
        reason="gap",
        epoch=hole.epoch,
        first=repair.first,
        last=repair.last,
        from_time=hole.from_time,
        to_time=hole.to_time,
    )
