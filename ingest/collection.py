"""What is collected of an exchange, and on which partition: from trading pairs to subscriptions, list by list."""

from collections.abc import Iterable, Sequence
from zlib import crc32

import msgspec

from ingest.feed import Listed, Request, Subscription
from ingest.partition import Partition
from ingest.symbols import Symbols, Target
from pipeline.collected import TALKATIVE
from pipeline.frames import Frame, SubscriptionData
from pipeline.settings import Settings, TradingPair, candle_grace
from pipeline.timeframes import SECOND

NOT_LISTED = "not listed"
TRADES = frozenset({"trade", "candle"})


class Collection:
    """`partitions` carry it; an instrument belongs to the one its crc32 says. Nothing is connected before `begin`.
    `sources` are the requests for lists, `url` the root they are sent to."""

    def __init__(self, symbols: Symbols, settings: Settings, sources: Sequence[Request], url: str) -> None:
        self.symbols = symbols
        self.partitions: Sequence[Partition] = ()
        self.kinds: dict[Subscription, tuple[str, ...]] = {}
        """What is subscribed, and the data types it gives."""
        self._settings = settings
        self._url = url
        self._missing = {source.path for source in sources}
        self._begun = False
        self._refused: set[str] = set()
        self._barred: set[str] = set()

    def begin(self) -> None:
        """Connects what is known, and from now on what lists bring."""
        self._begun = True
        self._advance()

    def listed(self, request: Request, lines: Sequence[Listed]) -> None:
        """Takes the answer to a request for a list."""
        self.symbols.learn(request, lines)
        self._missing.discard(request.path)
        if self._begun:
            self._advance()

    def describe(self, subscription: Subscription) -> SubscriptionData:
        """The `requested` frame of a subscription, with what the settings ask of aggregate and of order books."""
        return self._described(
            subscription, self.kinds[subscription], self.symbols.targets[subscription.instrument].pair
        )

    def steady(self, subscription: Subscription) -> bool:
        """Whether it gives data even when nobody trades."""
        return not set(TALKATIVE).isdisjoint(self.kinds.get(subscription, ()))

    def unlisted(self) -> Iterable[tuple[Subscription, tuple[str, ...], TradingPair, str | None]]:
        """What is wanted and cannot be subscribed: (subscription of the symbol, its data types, pair, reason, which
        is None while there is no list)."""
        feed = self.partitions[0].context.feed
        for reason, pairs in ((NOT_LISTED, self.symbols.unlisted), (None, self.symbols.waiting)):
            for symbol, pair in pairs.items():
                for subscription, kinds in Target(symbol, symbol, pair).subscriptions(feed).items():
                    yield subscription, kinds, pair, reason

    def _advance(self) -> None:
        fresh = self.symbols.resolve(complete=not self._missing)
        shares: dict[int, list[Subscription]] = {}
        for target in fresh:
            found = target.subscriptions(self.partitions[0].context.feed)
            self.kinds.update(found)
            shares.setdefault(self._place(target.instrument), []).extend(found)
        for place, subscriptions in shares.items():
            self.partitions[place].take(subscriptions)
        self._refuse()
        self._bar()
        report = self.partitions[0].context.report
        while self.symbols.faults:
            report(self.symbols.faults.pop(0))

    def _refuse(self) -> None:
        """Tells once of what the list does not have; again when it came and went."""
        self._refused &= self.symbols.unlisted.keys()
        for subscription, kinds, pair, reason in self.unlisted():
            if reason is None or subscription.instrument in self._refused:
                continue
            data = self._described(subscription, kinds, pair)
            text = msgspec.json.encode(msgspec.structs.replace(data, state="refused", reason=reason)).decode()
            context = self.partitions[self._place(subscription.instrument)].context
            context.sink(Frame(context.clock.now(), self._url, "in", "subscription", text))
        self._refused |= self.symbols.unlisted.keys()

    def _bar(self) -> None:
        """What is collected and no longer listed is silent for good: its silence must not be taken for quiet."""
        gone = self.symbols.gone & self.symbols.targets.keys()
        for instrument in gone - self._barred:
            partition = self.partitions[self._place(instrument)]
            partition.context.report(f"{self.symbols.targets[instrument].symbol} is no longer listed")
            for connection in partition.connections:
                connection.bar(instrument, NOT_LISTED)
        for instrument in self._barred - gone:
            for connection in self.partitions[self._place(instrument)].connections:
                connection.readmit(instrument)
        self._barred = gone

    def _place(self, instrument: str) -> int:
        return crc32(instrument.encode()) % len(self.partitions)

    def _described(self, subscription: Subscription, kinds: Sequence[str], pair: TradingPair) -> SubscriptionData:
        data = SubscriptionData(subscription.channel, subscription.instrument, "requested")
        collection = self._settings.file.collection_settings
        if not TRADES.isdisjoint(kinds):
            data = msgspec.structs.replace(
                data,
                timeframes=pair.timeframes,
                grace=candle_grace(self._settings.file),
                quiet_from=collection.quiet_from,
            )
        if "orderbook" in kinds:
            data = msgspec.structs.replace(
                data,
                depth=collection.book_depth,
                interval=round(collection.book_interval * SECOND),
                store_interval=round(collection.store_interval * SECOND),
            )
        return data
