"""The numbers of one instrument's trades: where the unbroken ones end, and which are missing below. Pure.

What comes to be missing, or is missing no more, has its windows looked at again; quiet candles that it proves false
long after are asked of store.
"""

from aggregate.closing import Closing
from aggregate.saved import Header
from aggregate.unknown import Range, Span
from aggregate.windows import KEPT, Windows
from pipeline.records import Gap, Trade
from pipeline.timeframes import MINUTE

LONGEST_PENDING = MINUTE
"""normalize decides on a jump within seconds; one it never heard of was lost between it and us."""


class Numbering:
    """What it follows is kept in `header`, what is missing in the `unknown` of the windows."""

    def __init__(self, header: Header, windows: Windows, closing: Closing) -> None:
        self._header = header
        self._windows = windows
        self._unknown = windows.unknown
        self._closing = closing

    def follow(self, trade: Trade, time: int) -> tuple[bool, Span | None]:
        """Takes the next trade, as one of `time`. Whether all trades up to this one are known, or known to be missing;
        and what time the missing ones spanned of which it is one."""
        header = self._header
        first = trade.sequence if trade.first_sequence is None else trade.first_sequence
        if header.anchor is None or trade.epoch > header.epoch:
            return self._anchor(trade, first, time), None
        if trade.epoch < header.epoch or first < header.next:
            return False, self._fill(trade, first, time)
        if first > header.next:
            # A connection that seems to live may carry nothing: any moment since the last trade may be a missing one's.
            self._miss(Range(trade.epoch, header.next, first - 1, header.newest, time, trade.received))
        header.next, header.newest = trade.sequence + 1, time
        # What was fetched proves no time behind it: a later one may have been printed unseen.
        header.cut = header.cut and trade.repaired
        self._windows.newest = time
        return True, None

    def gap(self, record: Gap) -> None:
        """The ledger confirmed a gap or gave it up. What fills one is seen from the trades."""
        first, last = record.from_sequence, record.to_sequence
        if record.state == "closed" and record.remaining:
            self._look_again(self._unknown.lose(record.epoch, first, last))
        elif record.state == "closed":
            self._clear(record.epoch, first, last, record.to_time)
        elif record.state == "opened":
            self._confirmed(self._unknown.confirm(record.epoch, first, last))
            self._learn(record)

    def give_up(self, received: int) -> bool:
        """Takes for missing what was jumped over too long before `received` to be explained; whether there was any."""
        if not self._unknown.pending or (overdue := self._unknown.overdue(received - LONGEST_PENDING)) is None:
            return False
        self._confirmed(overdue)
        return True

    def _clear(self, epoch: int, first: int, last: int, time: int) -> None:
        """Numbers that no trade ever had (0 where an epoch begins at 1) are missing no more. No trade comes that would
        have candles made anew that are no longer kept."""
        filled = self._unknown.fill(epoch, first, last, time)
        if filled is not None:
            self._look_again(filled.known)
            if filled.known[0] < self._windows.closed - KEPT:
                self._windows.rebuilds.add(filled.known, [frame.name for frame in self._windows.frames])

    def _fill(self, trade: Trade, first: int, time: int) -> Span | None:
        """One of the missing trades came. Quiet windows beside it that are no longer kept are store's to compute."""
        filled = self._unknown.fill(trade.epoch, first, trade.sequence, time)
        if filled is None:
            return None
        self._look_again(filled.known)
        low, high = filled.known
        if low < self._windows.closed:
            quiet = [frame for frame in self._windows.frames if frame.quiet]
            gone = [f.name for f in quiet if high // f.width - low // f.width > 1 or low < f.ceded]
            if gone:
                self._windows.rebuilds.add(filled.known, gone)
        for span in filled.strays:
            # Store goes by the trades beside a gap: what it said of these times while the gap was open may be false.
            self._windows.rebuilds.add(span, [frame.name for frame in self._windows.frames])
        return filled.before

    def _anchor(self, trade: Trade, first: int, time: int) -> bool:
        """The numbers begin here: of the collection or of an epoch. A trade from before the collection was
        replayed on subscribing: only the number that continues it proves the time between them."""
        header = self._header
        continues = not header.next or (trade.epoch, first) == (header.epoch, header.next)
        if header.anchor is None:
            if header.since is None or time < header.since:
                header.epoch, header.next = max((header.epoch, header.next), (trade.epoch, trade.sequence + 1))
                return False
            if not continues:
                self._miss_time(header.since, time)
            header.anchor, header.anchor_epoch = first, trade.epoch
        elif header.cut:
            self._miss_time(header.newest, time)
        header.epoch, header.next, header.newest, header.cut = trade.epoch, trade.sequence + 1, time, False
        self._windows.newest = time
        return True

    def _learn(self, record: Gap) -> None:
        """Takes over a gap below the first number followed here: normalize may begin a few trades earlier, and it
        alone knows the number with which the exchange began an epoch."""
        header = self._header
        early = header.anchor is None or (record.epoch, record.to_sequence) < (header.anchor_epoch, header.anchor)
        begun = record.epoch > header.anchor_epoch and not self._unknown.has(
            record.epoch, record.from_sequence, record.to_sequence
        )
        if early or begun:
            for first, last in record.remaining or ((record.from_sequence, record.to_sequence),):
                self._miss(Range(record.epoch, first, last, record.from_time, record.to_time, None))

    def _miss(self, missing: Range) -> None:
        self._closing.revive(min(missing.start, missing.end))
        missing.shown = self._windows.closed - KEPT
        span = self._unknown.add(missing)
        self._look_again(span)
        if missing.pending is None:
            self._contradict([span])

    def _miss_time(self, start: int, end: int) -> None:
        """No number tells how many trades there were."""
        self._closing.revive(min(start, end))
        span = self._unknown.lose_time(start, end)
        self._look_again(span)
        self._contradict([span])

    def _confirmed(self, span: Span | None) -> None:
        """The ledger has what is missing in this time."""
        self._look_again(span)
        self._contradict(self._unknown.take_shown())

    def _contradict(self, spans: list[Span]) -> None:
        """Quiet candles of these times that are no longer kept were none: store corrects them."""
        quiet = [frame.name for frame in self._windows.frames if frame.quiet]
        for low, high in spans:
            if quiet and low < self._windows.closed - KEPT:
                self._windows.rebuilds.add((low, high), quiet)

    def _look_again(self, span: Span | None) -> None:
        if span is not None:
            self._windows.look_again(*span)
