"""Where the records of one entry go: into the step under way, with what dead letters have to say of their origin."""

from normalize.state import State
from normalize.stream import count
from pipeline.errors import DecodeError
from pipeline.records import Gap, Record, encode
from pipeline.steps import Step, dead_letter
from pipeline.wants import Want


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

    def control(self, name: str, data: bytes) -> None:
        """See Step."""
        self._step.control(name, data)

    def want(self, key: str, want: Want | None) -> None:
        """See Step."""
        self._step.want(key, want)

    def tell(self, gap: Gap) -> None:
        """A gap is told twice: in its place between the trades, and in a stream of its own."""
        self._step.control("gap", encode(gap))
        self._step.emit("gap", gap)

    def bury(self, error: DecodeError, data: str, received: int | None, connection: str | None) -> None:
        """Writes a dead letter and counts its reason."""
        count(self._state.stream.dead, error.reason)
        self._step.bury(
            dead_letter(self.exchange, self._stage, error.reason, error.detail, self._entry, data, received, connection)
        )
