"""A record and the stream entry it came in."""

from typing import Generic, TypeVar

import msgspec

from pipeline.records import Record
from pipeline.steps import Entry

R_co = TypeVar("R_co", bound=Record, covariant=True)

InstrumentKey = tuple[str, str]
"""(exchange, the exchange's own id)."""


class Found(msgspec.Struct, Generic[R_co], frozen=True, gc=False):
    """A record and the stream entry it came in."""

    record: R_co
    entry: Entry

    @property
    def key(self) -> InstrumentKey:
        return self.record.exchange, self.record.instrument
