"""What may have been printed behind the last trade seen of one instrument, while nobody listened: no later number
tells until there is one. Pure."""

import msgspec

from pipeline.timeframes import SECOND

AFTER = 10 * SECOND
"""So long after coverage broke or a subscription changed the next trade of most instruments has told."""
CERTAIN = 70 * SECOND
"""The newest trade that the exchange shows by REST may be that of a minute ago: only one that was asked for so long
after is believed to be all there was before."""


class Tail(msgspec.Struct, omit_defaults=True):
    """One instrument since its coverage broke, until a live trade comes. Ages are the stream's (ns).

    `since`: when coverage or a subscription last changed; `connections` those on which it was subscribed since.
    `epoch`, `next`: the number expected, without what a live trade told. Trades are wanted at age `due`, null when
    there is nothing to ask. The last want was for those from `first` (epoch, number) on, under `number`, at age `asked`
    (of the host: `wished`); it stands in `md:want` while `wanted`. `failures` sets the pause, `answer` is what came of
    it.
    """

    since: int
    epoch: int
    next: int
    due: int | None = None
    connections: list[str] = []
    number: int = 0
    wanted: bool = False
    first: tuple[int, int] = (0, 0)
    asked: int = 0
    wished: int = 0
    failures: int = 0
    answer: str | None = None

    def turn(self, now: int, due: int | None) -> None:
        """Coverage or a subscription changed: what was told before proves nothing of what comes after it."""
        self.since, self.due, self.failures, self.answer = now, due, 0, None
