"""The saved state of normalize over one partition: fields of a hash, of which only the changed are written."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from normalize.catalogue import Catalogue
from normalize.continuity import Continuity
from normalize.coverage import Connection, Cover, Evidence
from normalize.holes import Hole, Name
from normalize.latest import Latest, Seen
from normalize.stream import Stream
from normalize.tail import Tail
from pipeline.records import Instrument
from pipeline.steps import Step

_ENCODER = msgspec.json.Encoder()


class State:
    """Everything normalize remembers, with what changed since the last save."""

    def __init__(self, saved: Mapping[bytes, bytes]) -> None:
        self.stream = _decode(saved.get(b"stream"), Stream) or Stream()
        self.evidence = Evidence()
        self.evidence.offset = self.stream.offset
        self.evidence.connections = dict(_fields(saved, b"connection:", Connection))
        self.evidence.covers = dict(_fields(saved, b"cover:", Cover))
        self.continuity: dict[str, Continuity] = dict(_fields(saved, b"continuity:", Continuity))
        self.changed_continuity: set[str] = set()
        self._put_holes(saved)
        self._put_times()
        self.tails: dict[str, Tail] = dict(_fields(saved, b"tail:", Tail))
        self.catalogue = Catalogue(dict(_fields(saved, b"instrument:", Instrument)))
        self.instruments: Mapping[str, Instrument] = self.catalogue.instruments
        """What is known of each, by the venue's id."""
        self.latest = Latest(dict(_fields(saved, b"latest:", Seen)))
        self.busy = {name for name, state in self.continuity.items() if state.busy}
        self.changed_tails: set[str] = set()
        self._dropped: set[tuple[str, Name]] = set()

    def forget(self, instrument: str) -> None:
        """Drops all that is known of an instrument."""
        self.catalogue.forget(instrument)
        if (seen := self.continuity.pop(instrument, None)) is not None:
            self._dropped.update((instrument, name) for name in seen.touched)
            self._dropped.update((instrument, hole.name) for hole in (*seen.old_holes, *seen.holes))
        self.evidence.covers.pop(instrument, None)
        self.latest.forget(instrument)
        self.busy.discard(instrument)
        self.changed_continuity.add(instrument)
        self.evidence.changed_covers.add(instrument)

    def save(self, step: Step) -> None:
        """Adds what changed since the last call to the step. Same changes, same order, whatever the hash order."""
        step.save("stream", _ENCODER.encode(self.stream))
        evidence = self.evidence
        _save(step, "connection", evidence.changed_connections, evidence.connections.get)
        _save(step, "cover", evidence.changed_covers, self._without_times)
        self._save_holes(step)
        _save(step, "continuity", self.changed_continuity, self._with_times)
        _save(step, "tail", self.changed_tails, self.tails.get)
        _save(step, "instrument", self.catalogue.changed, self.instruments.get)
        _save(step, "latest", self.latest.changed, self.latest.seen.get)

    def _put_holes(self, saved: Mapping[bytes, bytes]) -> None:
        """Each hole has a field of its own: of hundreds, a step writes those that changed in it."""
        for numbers in self.continuity.values():
            # An earlier version kept them in one field.
            numbers.touched.update(hole.name for hole in (*numbers.old_holes, *numbers.holes))
        found: dict[str, list[Hole]] = {}
        for field, hole in _fields(saved, b"hole:", Hole):
            found.setdefault(field.partition(" ")[0], []).append(hole)
        for name, holes in found.items():
            if (seen := self.continuity.get(name)) is not None:
                holes.sort(key=lambda hole: hole.name)
                seen.holes = [hole for hole in holes if hole.epoch == seen.epoch]
                seen.old_holes = [hole for hole in holes if hole.epoch != seen.epoch]

    def _save_holes(self, step: Step) -> None:
        for instrument, (epoch, first) in sorted(self._dropped):
            step.save(f"hole:{instrument} {epoch} {first}", None)
        self._dropped.clear()
        for instrument in sorted(self.changed_continuity):
            seen = self.continuity.get(instrument)
            if seen is None or not seen.touched:
                continue
            holes = {hole.name: hole for hole in (*seen.old_holes, *seen.holes)}
            for name in sorted(seen.touched):
                hole = holes.get(name)
                value = None if hole is None else _ENCODER.encode(hole)
                step.save(f"hole:{instrument} {name[0]} {name[1]}", value)
            seen.touched.clear()

    def _put_times(self) -> None:
        """What of a cover changes with each trade is saved beside the numbers, which do too: one field, not two."""
        for instrument, cover in self.evidence.covers.items():
            seen = self.continuity.get(instrument)
            if seen is None:
                continue
            if seen.message is None:
                # An earlier version saved them in the cover's field.
                self.changed_continuity.add(instrument)
            else:
                cover.message, cover.shown = seen.message, seen.shown

    def _with_times(self, instrument: str) -> Continuity | None:
        """What is saved of the numbers. Holes have fields of their own."""
        if (seen := self.continuity.get(instrument)) is None:
            return None
        if (cover := self.evidence.covers.get(instrument)) is not None:
            seen.message, seen.shown = cover.message, cover.shown
        if seen.holes or seen.old_holes:
            return msgspec.structs.replace(seen, holes=[], old_holes=[])
        return seen

    def _without_times(self, instrument: str) -> Cover | None:
        cover = self.evidence.covers.get(instrument)
        return None if cover is None else msgspec.structs.replace(cover, message=None, shown=0)


def _decode(value: bytes | None, kind: type[Any]) -> Any:
    return None if value is None else msgspec.json.decode(value, type=kind)


def _fields(saved: Mapping[bytes, bytes], prefix: bytes, kind: type[Any]) -> Iterable[tuple[str, Any]]:
    decoder = msgspec.json.Decoder(kind)
    for field, value in sorted(saved.items()):
        if field.startswith(prefix):
            yield field.removeprefix(prefix).decode(), decoder.decode(value)


def _save(step: Step, prefix: str, names: set[str], find: Callable[[str], msgspec.Struct | None]) -> None:
    for name in sorted(names):
        found = find(name)
        step.save(f"{prefix}:{name}", None if found is None else _ENCODER.encode(found))
    names.clear()
