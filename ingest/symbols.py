"""What the trading pairs of the settings mean: the instruments behind symbols and patterns. Pure.

Targets are only ever added: one that is not traded for a while, or gone from its list, may come back.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import msgspec

from ingest.feed import Feed, Listed, Request, Subscription
from pipeline.errors import SettingsError
from pipeline.settings import TradingPair

WILD = frozenset("*?[")


class Target(msgspec.Struct, frozen=True):
    """One instrument to collect, its symbol (canonical where a list told it) and the trading pair that asks for it."""

    instrument: str
    symbol: str
    pair: TradingPair

    def subscriptions(self, feed: Feed) -> dict[Subscription, tuple[str, ...]]:
        """What to subscribe, and the data types each of them gives."""
        found: dict[Subscription, tuple[str, ...]] = {}
        for data_type in self.pair.data_types:
            for channel in feed.channels(data_type, self.pair.timeframes):
                subscription = Subscription(channel, self.instrument)
                found[subscription] = (*found.get(subscription, ()), data_type)
        return found


class Symbols:
    """The enabled pairs of one exchange against its lists of instruments. Raises SettingsError where two pairs are
    spelt as one instrument."""

    def __init__(self, feed: Feed, pairs: Iterable[TradingPair]) -> None:
        enabled = [pair for pair in pairs if pair.enabled]
        self._feed = feed
        self._plain = [pair for pair in enabled if not is_pattern(pair.symbol)]
        self._patterns = [pair for pair in enabled if is_pattern(pair.symbol)]
        self._lists: dict[str, list[Listed]] = {}
        self._remembered: dict[str, Listed] = {}
        self._lines: dict[str, Listed] = {}
        self._said: set[str] = set()
        self.targets: dict[str, Target] = {}
        """By instrument."""
        self.unlisted: dict[str, TradingPair] = {}
        """By symbol in capitals: pairs for which the list has nothing, where only the list can tell."""
        self.waiting: dict[str, TradingPair] = {}
        """As `unlisted`, while there is no list."""
        self.gone: set[str] = set()
        """Targets that were listed, and are no longer."""
        self.faults: list[str] = []
        """For people, each said once; taken by whoever tells them."""
        _refuse_twins(feed, self._plain)

    @property
    def wanted(self) -> list[str]:
        """Native ids, as far as spelling tells, and patterns: what the lists should have."""
        plain = [self._feed.native(pair.symbol) for pair in self._plain]
        return [*plain, *(pair.symbol for pair in self._patterns)]

    @property
    def matches(self) -> dict[str, int]:
        """Pattern to the number of instruments it matches now."""
        return {pair.symbol: len(self._matching(pair.symbol)) for pair in self._patterns}

    def remember(self, lines: Iterable[Listed]) -> None:
        """Takes what was listed at some earlier time, until every list has come."""
        self._remembered = {line.instrument: line for line in lines}
        self._collect()

    def learn(self, request: Request, listed: Sequence[Listed]) -> None:
        """Takes the answer to one of the requests for lists."""
        before = {line.instrument for line in self._lists.get(request.path, ())}
        self._lists[request.path] = list(listed)
        self._part_with(before)

    def resolve(self, complete: bool) -> list[Target]:
        """The targets that are new since the last time. `complete`: whether every list has come once."""
        if complete and self._remembered:
            before = set(self._remembered)
            self._remembered = {}
            self._part_with(before)
        fresh = [target for pair in self._plain if (target := self._plainly(pair)) is not None]
        for pair in self._patterns:
            matching = self._matching(pair.symbol)
            fresh += [self._add(found.instrument, found.symbol, pair) for found in matching if self._is_new(found)]
            if complete and not matching:
                self._say(f"pattern {pair.symbol} matches no instrument that is traded")
        return fresh

    def _part_with(self, before: set[str]) -> None:
        """Some lists have changed, which had these instruments before."""
        self._collect()
        self.gone = {name for name in self.gone | (before & self.targets.keys()) if name not in self._lines}

    def _collect(self) -> None:
        listed = {line.instrument: line for lines in self._lists.values() for line in lines}
        self._lines = self._remembered | listed

    def _plainly(self, pair: TradingPair) -> Target | None:
        """The target of a pair without wildcards, where it is new."""
        spelling = pair.symbol.upper()
        found = self._find(spelling)
        if found is None and any(target.pair is pair for target in self.targets.values()):
            return None
        if found is None and not self._feed.strict:
            (self.unlisted if self._lists else self.waiting)[spelling] = pair
            if self._lists:
                self.waiting.pop(spelling, None)
                self._say(f"{pair.symbol} is not listed")
            return None
        self.unlisted.pop(spelling, None)
        self.waiting.pop(spelling, None)
        instrument = found.instrument if found else self._feed.native(pair.symbol)
        other = self.targets.get(instrument)
        if other is not None and other.pair is not pair and not is_pattern(other.pair.symbol):
            self._say(f"{other.pair.symbol} and {pair.symbol} are the same instrument: the first one counts")
        if found is not None and not found.trading:
            self._say(f"{pair.symbol} is listed, but not traded now")
        if other is None:
            return self._add(instrument, found.symbol if found else pair.symbol, pair)
        if found is not None and other.pair is pair:
            self.targets[instrument] = Target(instrument, found.symbol, pair)
        return None

    def _find(self, spelling: str) -> Listed | None:
        """The line of that id, else of that symbol."""
        lines = self._lines.values()
        named = (line for line in lines if line.instrument.upper() == spelling)
        return next(named, None) or next((line for line in lines if line.symbol.upper() == spelling), None)

    def _matching(self, pattern: str) -> list[Listed]:
        wanted = pattern.upper()
        return [
            line
            for line in self._lines.values()
            if line.trading
            and (fnmatchcase(line.symbol.upper(), wanted) or fnmatchcase(line.instrument.upper(), wanted))
        ]

    def _is_new(self, line: Listed) -> bool:
        return line.instrument not in self.targets

    def _add(self, instrument: str, symbol: str, pair: TradingPair) -> Target:
        target = self.targets[instrument] = Target(instrument, symbol, pair)
        return target

    def _say(self, fault: str) -> None:
        if fault not in self._said:
            self._said.add(fault)
            self.faults.append(fault)


def is_pattern(symbol: str) -> bool:
    """Whether a symbol of the settings stands for several instruments."""
    return not WILD.isdisjoint(symbol)


def _refuse_twins(feed: Feed, pairs: Iterable[TradingPair]) -> None:
    seen: dict[str, TradingPair] = {}
    for pair in pairs:
        other = seen.setdefault(feed.native(pair.symbol), pair)
        if other is not pair:
            raise SettingsError(f"trading_pairs: {other.symbol!r} and {pair.symbol!r} are the same instrument")
