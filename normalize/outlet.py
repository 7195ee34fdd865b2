"""Where the records of one entry go: into the step under way, with what dead letters have to say of their origin."""

from collections.abc import Mapping, Sequence

from normalize.state import State
from normalize.stream import count
from pipeline.errors import DecodeError
from pipeline.records import Gap, Record, encode
from pipeline.steps import Step, dead_letter
from pipeline.wants import Want

MOST_LETTERS = 10
"""Dead letters of one frame. Each may carry 64 KiB of it, and a list can have thousands of elements nobody can use."""


class Outlet:
    """`turn` it to each entry's step; the rest writes there."""

    def __init__(self, exchange: str, stage: str, step: Step) -> None:
        self.exchange = exchange
        self._stage = stage
        self._step = step
        self._state = State({})
        self._entry = b""

    def turn(self, step: Step, state: State, entry: bytes) -> None:
        """From now on records go to this step, and dead letters name this entry."""
        self._step, self._state, self._entry = step, state, entry

    def emit(self, kind: str, record: Record, *, newest: bool = True) -> None:
        """See Step."""
        self._step.emit(kind, record, newest=newest)

    def emit_encoded(self, kind: str, rows: Sequence[tuple[bytes, bytes]], newest: Mapping[str, bytes]) -> None:
        """See Step."""
        self._step.emit_encoded(kind, rows, newest)

    def control(self, name: str, data: bytes) -> None:
        """See Step."""
        self._step.control(name, data)

    def want(self, key: str, want: Want | None, *, wake: bool = True) -> None:
        """See Step."""
        self._step.want(key, want, wake=wake)

    def forget(self, instrument: str) -> None:
        """See Step."""
        self._step.forget(instrument)

    def tell(self, gap: Gap) -> None:
        """A gap is told twice: in its place between the trades, and in a stream of its own."""
        self._step.control("gap", encode(gap))
        self._step.emit("gap", gap)

    def bury_elements(
        self, errors: Sequence[DecodeError], data: str, received: int | None, connection: str | None
    ) -> None:
        """Buries a frame for what is wrong with elements of it: one letter for each reason, with the first element's
        detail. Every element is counted."""
        alike: dict[str, list[DecodeError]] = {}
        for error in errors:
            alike.setdefault(error.reason, []).append(error)
        for place, (reason, found) in enumerate(alike.items()):
            more = len(found) - 1
            count(self._state.stream.dead, reason, more if place < MOST_LETTERS else len(found))
            if place < MOST_LETTERS:
                detail = f"({more} more) {found[0].detail}" if more else found[0].detail
                self.bury(DecodeError(reason, detail), data, received, connection)

    def bury(self, error: DecodeError, data: str, received: int | None, connection: str | None) -> None:
        """Writes a dead letter and counts its reason."""
        count(self._state.stream.dead, error.reason)
        self._step.bury(
            dead_letter(self.exchange, self._stage, error.reason, error.detail, self._entry, data, received, connection)
        )
