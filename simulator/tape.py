"""The market under one exchange's instrument ids: lookups, and the bars of what was printed. Pure."""

from collections.abc import Mapping

from simulator.bars import Bar, Series
from simulator.days import Day, Days
from simulator.market import Market, Order, Pit


class Tape:
    """`names` gives each listing's symbol the exchange's own instrument id; `instruments` are the pits by id."""

    def __init__(self, market: Market, names: Mapping[str, str]) -> None:
        self._market = market
        self._instruments = dict(names)
        self._symbols = {instrument: symbol for symbol, instrument in names.items()}
        self._series = {symbol: Series(market.pits[symbol].listing.contract == "inverse") for symbol in names}
        self._days = {symbol: Days(series) for symbol, series in self._series.items()}
        self.instruments = {instrument: market.pits[symbol] for instrument, symbol in self._symbols.items()}
        for fill in market.history:
            self._series[fill.symbol].add(fill)

    @property
    def pits(self) -> list[Pit]:
        """Every instrument, in the order listed."""
        return list(self._market.pits.values())

    def instrument(self, symbol: str) -> str:
        return self._instruments[symbol]

    def symbol(self, instrument: str) -> str | None:
        return self._symbols.get(instrument)

    def pit(self, instrument: str) -> Pit | None:
        """Where the instrument trades, or None when it is not listed."""
        symbol = self._symbols.get(instrument)
        return None if symbol is None else self._market.pits[symbol]

    def add(self, order: Order) -> None:
        """Count the fills of one order into the bars."""
        series = self._series[order[0].symbol]
        for fill in order:
            series.add(fill)

    def bars(self, instrument: str, width: int, shift: int, first: int, until: int) -> list[Bar]:
        """`Series.bars` of one instrument."""
        return self._series[self._symbols[instrument]].bars(width, shift, first, until)

    def day(self, instrument: str, now: int) -> Day | None:
        """The last 24 hours of one instrument at `now` (ms); None before its first fill."""
        return self._days[self._symbols[instrument]].at(now)
