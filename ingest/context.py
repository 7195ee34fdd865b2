"""What all connections of a partition share."""

from collections.abc import Callable, Sequence

import msgspec

from ingest.clock import HostClock
from ingest.feed import Feed, Subscription
from ingest.timing import Timing
from pipeline.frames import Frame, SubscriptionData


class Context(msgspec.Struct, frozen=True):
    """`sink` takes their frames, `pour`, where it is given, many in a row; `describe` gives the `requested` frame of a
    subscription, with what the settings ask of aggregate and of order books; `report` takes errors for people; `room`
    tells whether what can wait may be written now, `crowded` whether even sockets should wait; `steady` whether a
    subscription gives data even when nobody trades."""

    feed: Feed
    clock: HostClock
    timing: Timing
    sink: Callable[[Frame], None]
    describe: Callable[[Subscription], SubscriptionData]
    report: Callable[[str], None]
    room: Callable[[], bool] = lambda: True
    crowded: Callable[[], bool] = lambda: False
    steady: Callable[[Subscription], bool] = lambda _: False
    pour: Callable[[Sequence[Frame]], None] | None = None
