"""One simulated exchange of the demo: its process, its control endpoint, what it lists and what it printed."""

import contextlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands._demo.children import Child
from pipeline.commands._demo.instance import Folder
from pipeline.commands._demo.market import Market
from pipeline.exchanges import EXCHANGES

if TYPE_CHECKING:
    from simulator.listings import Listing


class Venue:
    """Running from the moment it is made until `stop`. `listings`: by the exchange's own id."""

    def __init__(
        self, exchange: str, folder: Folder, rate: float, symbols: int, seed: int, environ: Mapping[str, str]
    ) -> None:
        self.exchange = exchange
        self.truth: Path = folder.truth / exchange
        self.listings = listed(exchange, symbols)
        options = {"--exchange": exchange, "--rate": rate, "--symbols": symbols, "--seed": seed, "--truth": self.truth}
        arguments = ["simulate", "--json", *(str(part) for option in options.items() for part in option)]
        self._child = Child(f"simulator-{exchange}", arguments, folder.path / f"simulator-{exchange}.log", environ)
        self._ended = False
        try:
            urls = self._child.first_line()
        except BaseException:
            self.stop()
            raise
        self.ws_url, self.rest_url = str(urls["ws_url"]), str(urls["rest_url"])
        self.market = Market(urls["control_url"])

    @property
    def symbols(self) -> tuple[str, ...]:
        """Canonical symbols of everything it lists."""
        return tuple(listing.symbol for listing in self.listings.values())

    def print_one_of_each(self) -> None:
        """One more order on everything it lists, now. Raises ServerAway."""
        for instrument in self.listings:
            self.market.print_one(instrument)

    def check(self) -> None:
        """Raises ServerAway when the simulator has ended."""
        self._child.check()

    def stop(self) -> None:
        """Ends the simulator; safe to call again."""
        if not self._ended:
            self._ended = True
            with contextlib.suppress(ProcessLookupError):
                self._child.stop()


def listed(exchange: str, symbols: int) -> "dict[str, Listing]":
    """What the simulated exchange lists with so many made pairs, by its own ids."""
    from simulator.listings import listings

    dialect = import_module(f"simulator.exchanges.{EXCHANGES[exchange].module}")
    return {dialect.instrument_id(listing): listing for listing in listings(symbols) if dialect.lists(listing)}
