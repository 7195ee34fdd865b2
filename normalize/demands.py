"""What settings ask of order books, and what order books want of ingest: saved whole whenever it changes. Pure."""

from collections.abc import Mapping

import msgspec

from pipeline.frames import SubscriptionData
from pipeline.steps import Step
from pipeline.timeframes import SECOND
from pipeline.wants import Want


class Asked(msgspec.Struct, frozen=True):
    """What the settings ask of one instrument's order book: levels a side, ns, ns."""

    depth: int = 20
    interval: int = SECOND // 10
    store_interval: int = SECOND


_ASKED = msgspec.json.Decoder(dict[str, Asked])
_WANTS = msgspec.json.Decoder(dict[str, Want])


class Demands:
    """`asked` by instrument; `wants` by key, as they stand in `md:want:{p}`."""

    def __init__(self, saved: Mapping[bytes, bytes]) -> None:
        self.asked = _ASKED.decode(saved.get(b"asked", b"{}"))
        self.wants = _WANTS.decode(saved.get(b"wants", b"{}"))
        self._changed: set[str] = set()

    def ask(self, data: SubscriptionData) -> None:
        """The settings as a subscription tells them."""
        asked = Asked(data.depth, data.interval, data.store_interval)
        if self.asked.get(data.instrument) != asked:
            self.asked[data.instrument] = asked
            self._changed.add("asked")

    def of(self, instrument: str) -> Asked:
        """What is asked; the defaults where no subscription told."""
        return self.asked.get(instrument) or Asked()

    def want(self, key: str, want: Want | None) -> None:
        """Something is wanted, or (null) no longer."""
        self._changed.add("wants")
        if want is None:
            self.wants.pop(key, None)
        else:
            self.wants[key] = want

    def wanted_for(self, instrument: str) -> list[str]:
        """Keys of what is wanted for the instrument."""
        return [key for key, want in self.wants.items() if want.instrument == instrument]

    def forget(self, instrument: str) -> None:
        """Nothing is asked of the instrument's book any more."""
        if self.asked.pop(instrument, None) is not None:
            self._changed.add("asked")

    def save(self, step: Step) -> None:
        """Adds what changed since the last call."""
        for field, value in (("asked", self.asked), ("wants", self.wants)):
            if field in self._changed:
                step.save(field, msgspec.json.encode(value))
        self._changed.clear()
