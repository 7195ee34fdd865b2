"""How far the trades of one instrument are known: its numbers, its coverage, the clock. Pure.

Trades with unbroken numbers move `known` forward; so does the clock while the instrument is covered,
no jump waits for its explanation, and the connection was heard of after that time.
"""

from collections.abc import Callable

from aggregate.closing import Closing, Issue
from aggregate.frame import Frame
from aggregate.numbering import Numbering
from aggregate.rebuilds import Rebuilds, rebuild
from aggregate.saved import Header, SavedFrame, SavedTally
from aggregate.summary import Summary
from aggregate.tally import Tally
from aggregate.unknown import Unknown
from aggregate.windows import KEPT, NEVER, Windows
from pipeline.records import CandleSettings, Clock, Coverage, Gap, Rebuild, Trade
from pipeline.timeframes import DEFAULT_TIMEFRAMES, SECOND, WIDTHS

MOST_EARLY = 1_000
LAG = SECOND // 4
"""A trade may come so much later than other frames of its connection that are of the same time."""
AHEAD = SECOND
"""A trade may be dated so much later than its arrival. One dated further ahead does not make known what is between."""

Ask = Callable[[Rebuild], None]
"""Takes what store is asked for."""


class Instrument:
    """`header` holds what is saved. Before the collection begins there are no windows.

    Trades may be given to `tally` first: those it takes are in `header` and `windows` before anything else happens.
    """

    def __init__(self, header: Header, issue: Issue, ask: Ask) -> None:
        self.header = header
        self.changed = True
        self.tally = Tally()
        self.unknown = Unknown(header.ranges, header.lost)
        self._ask = ask
        rebuilds = Rebuilds(header.rebuild, header.rebuild_frames)
        self.windows = Windows(header.closed, list(map(_frame, header.frames)), self.unknown, rebuilds)
        self.windows.recheck, self.windows.newest = header.recheck, header.newest
        self._closing = Closing(header, self.windows, issue)
        self._numbering = Numbering(header, self.windows, self._closing)
        self._looked_at = -1
        self._mark_quiet()

    def trade(self, trade: Trade, ahead: int) -> bool:
        """Takes one trade; what is dated more than `ahead` after its arrival proves no more than that. False when a
        window it belongs to is no longer kept. Raises DecodeError."""
        summary = Summary.of(trade)
        time = min(summary.first.time, trade.received + ahead)
        self._fold()
        header = self.header
        self._touch()
        if header.since is None:
            if not header.covered:
                header.early = [*header.early, trade][-MOST_EARLY:]
                return True
            self._begin(time, trade)
        newest = header.newest
        unbroken, filled = self._numbering.follow(trade, time)
        kept = self.windows.add(summary, filled)
        if not kept:
            # What is missed next lies behind a window that is there.
            header.newest = self.windows.newest = max(newest, header.newest)
        if unbroken and time > header.known:
            header.known = time
            self._closing.advance(trade.received)
        self._follow(summary.first.time)
        return kept

    def coverage(self, record: Coverage, clock: Clock | None) -> bool:
        """Coverage began, moved or ended; `clock` is the newest. False as in `trade`."""
        header = self.header
        self._fold()
        self._hear(clock)
        self._touch()
        if record.state == "uncovered":
            self._break(record, clock)
            return True
        header.covered, header.connection = True, record.connection
        before = header.candles
        header.candles = record.candles or before or CandleSettings(timeframes=DEFAULT_TIMEFRAMES)
        if header.since is None:
            return record.time is None or self._begin(record.time)
        if header.candles != before:
            # Trades of that very moment may have come before the new frames did.
            self._shape(header.known + 1)
        return True

    def gap(self, record: Gap) -> None:
        """The ledger confirmed a gap or gave it up. What fills one is seen from the trades."""
        if self.header.since is None or record.cause == "epoch":
            return
        self._fold()
        self._touch()
        self._numbering.gap(record)

    def clock(self, clock: Clock) -> int:
        """The stream's time went on. Returns how many candles that gave."""
        header, windows = self.header, self.windows
        if self._idle(clock):
            return 0
        self._fold()
        if self._numbering.give_up(clock.received):
            self._touch()
        evidence = self._evidence(clock)
        if evidence is not None and evidence >= windows.border and evidence > header.known:
            header.known = evidence
        issued = 0
        if header.known >= windows.border:
            self.changed = True
            issued = self._closing.advance(clock.received)
        if not header.covered and clock.time is not None and header.candles is not None:
            issued += self._expire(clock.time - clock.uncertainty - header.candles.grace, clock.received)
        if windows.recheck is not None:
            self.changed = True
            issued += self._closing.look_again(clock.received)
        if windows.rebuilds.spans:
            self._request(clock.received)
        return issued

    def finish(self, clock: Clock | None, received: int) -> int:
        """The stream has ended: every window with trades is written as it is. Returns the number of candles."""
        if self.header.since is None:
            return 0
        self._fold()
        self._hear(clock)
        self._touch()
        issued = self._closing.finish(received)
        self.header.asked = -1
        self._request(received)
        return issued

    def saved(self) -> Header:
        """The header as it is to be saved."""
        header, windows = self.header, self.windows
        header.ranges, header.lost = self.unknown.ranges, self.unknown.lost
        header.closed, header.recheck = windows.closed, windows.recheck
        header.rebuild, header.rebuild_frames = windows.rebuilds.spans, windows.rebuilds.frames
        header.frames = [
            SavedFrame(f.name, f.since, f.rolled, f.newest, f.anchor, f.revised, f.ceded) for f in windows.frames
        ]
        return header

    def resume(self, saved: SavedTally) -> None:
        """Goes on with the trades that came since header and windows were saved."""
        if (saved.last.epoch, saved.next) > (self.header.epoch, self.header.next):
            self._follow(saved.last.time)
            self.tally.restore(saved)
        else:
            # A version that knows no tallies went on since, and left this one behind.
            self.tally.kept = True
            self.tally.close()

    def _follow(self, time: int) -> None:
        """Lets the tally take what follows the trade of `time`, as long as nothing else comes of it than a sum: none of
        its windows has a candle yet, and none that ends before them waits for one."""
        header, windows = self.header, self.windows
        if header.anchor is None or header.cut or not header.covered:
            return
        start, end = 0, windows.border
        for frame in windows.roots:
            open_time = time - time % frame.width
            window = frame.windows.get(open_time)
            if window is None or window.summary is None or window.revision >= 0:
                return
            if window.end <= max(windows.closed, frame.rolled, frame.since):
                return
            start, end = max(start, open_time), min(end, window.end)
        self.tally.open(start, end, header.epoch, header.next)

    def _fold(self) -> None:
        """Puts what the tally took where it belongs."""
        tally, header = self.tally, self.header
        if tally.first is not None:
            header.next, header.newest, self.windows.newest = tally.next, tally.newest, tally.newest
            header.known = max(header.known, tally.latest)
            self.windows.add(tally.summary())
            self._touch()
        tally.close()

    def _idle(self, clock: Clock) -> bool:
        """Whether nothing follows from the clock: a shortcut that changes no output."""
        header, windows, unknown = self.header, self.windows, self.unknown
        if not header.covered or windows.recheck is not None or windows.rebuilds.spans:
            return False
        if unknown.ranges and unknown.pending:
            return False
        border = windows.border
        if header.known >= border:
            return False
        # No clock is evidence of times after its own.
        if clock.time is None or clock.time < border:
            return True
        evidence = self._evidence(clock)
        return evidence is None or evidence < border

    def _touch(self) -> None:
        self.changed, self._looked_at = True, -1

    def _begin(self, since: int, first: Trade | None = None) -> bool:
        """Collection begins at `since`, or with the trade that came just then (`first` is not taken yet). Trades from
        before were replayed on subscribing: they count where their window goes on, and say nothing of what follows
        them."""
        header = self.header
        early, header.early = header.early, []
        since = min([since, *(time for trade in early if (time := trade.time or 0) >= since - LAG)])
        header.since = header.known = self.windows.closed = since
        self._shape(since + _others_then(early if first is None else [*early, first], since))
        kept = True
        for trade in early:
            kept &= self.windows.add(Summary.of(trade))
            self._numbering.follow(trade, trade.time or 0)
        return kept

    def _break(self, record: Coverage, clock: Clock | None) -> None:
        """Coverage ended. What the connection seemed to prove holds until a number tells of a trade that it lost."""
        header = self.header
        uncertainty = 0 if clock is None else clock.uncertainty
        if header.covered and record.time is not None and not self.unknown.pending and header.since is not None:
            header.known = max(header.known, record.time - LAG - uncertainty)
        header.covered, header.connection, header.cut = False, None, True

    def _shape(self, since: int) -> None:
        """The frames are those of the settings, from `since` on."""
        assert self.header.candles is not None
        names = [name for name in dict.fromkeys(self.header.candles.timeframes) if name in WIDTHS]
        if set(names) != {frame.name for frame in self.windows.frames}:
            self.windows.reshape(names, since)
        self._mark_quiet()

    def _mark_quiet(self) -> None:
        settings = self.header.candles
        for frame in self.windows.frames:
            frame.quiet = settings is not None and frame.width >= WIDTHS.get(settings.quiet_from, WIDTHS["1m"])

    def _evidence(self, clock: Clock) -> int | None:
        """The time up to which the clock proves that every trade is here; None where it proves nothing."""
        header = self.header
        if not header.covered or clock.time is None or header.connection is None or self.unknown.pending:
            return None
        if header.since is None or header.candles is None:
            return None
        heard = clock.connections.get(header.connection)
        return None if heard is None else min(clock.time - header.candles.grace, heard - LAG) - clock.uncertainty

    def _hear(self, clock: Clock | None) -> None:
        """Takes all that the newest clock proves, before something changes what it proves."""
        evidence = None if clock is None else self._evidence(clock)
        if evidence is not None and evidence > self.header.known:
            self.header.known = evidence

    def _expire(self, elapsed: int, received: int) -> int:
        windows = self.windows
        if not windows.frames or elapsed <= self.header.known:
            return 0
        # Between two borders nothing can expire: a shortcut that changes no output.
        border = elapsed // windows.grid
        if border == self._looked_at:
            return 0
        self._looked_at = border
        rolled = [frame.rolled for frame in windows.frames]
        issued = self._closing.expire(elapsed, received)
        self.changed = self.changed or bool(issued) or rolled != [frame.rolled for frame in windows.frames]
        return issued

    def _request(self, received: int) -> None:
        """Asks store for what is no longer kept, at most once a clock second: by then the ledger has what the trades
        before this clock filled. Younger windows were looked at just now."""
        header, windows, second = self.header, self.windows, received // SECOND
        self.changed = True
        horizon = windows.closed - KEPT
        windows.rebuilds.cut(horizon)
        if not windows.rebuilds.spans or second == header.asked:
            return
        header.asked = second
        spans, names = windows.rebuilds.take()
        frames = tuple(frame.name for frame in windows.frames if frame.name in names)
        for span in spans if frames else ():
            self._ask(rebuild(header, span, frames, horizon, received))


def ahead(clock: Clock | None) -> int:
    """How much later than its arrival here a trade may be dated by this clock, ns."""
    if clock is None or clock.time is None:
        return NEVER
    return clock.time - clock.received + clock.uncertainty + AHEAD


def _others_then(trades: list[Trade], since: int) -> bool:
    """Whether more trades than these may be of the time at which the first is with which the collection begins: times
    are often equal. Only the trade before it tells."""
    numbers = [_first(trade) for trade in trades if trade.time == since]
    return bool(numbers) and min(numbers) not in {(trade.epoch, trade.sequence + 1) for trade in trades}


def _first(trade: Trade) -> tuple[int, int]:
    return trade.epoch, trade.sequence if trade.first_sequence is None else trade.first_sequence


def _frame(saved: SavedFrame) -> Frame:
    return Frame(saved.name, saved.since, saved.rolled, saved.newest, saved.anchor, saved.revised, saved.ceded)
