"""The product on simulated exchanges: opened, started, brought to rest, stopped. What harms it meanwhile, and the
verdict, are the caller's.
"""

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from pipeline.commands._demo import instance
from pipeline.commands._demo.children import Child
from pipeline.commands._demo.instance import Change, Folder, Offer
from pipeline.commands._demo.settling import Settling
from pipeline.commands._demo.venue import Venue
from pipeline.commands._demo.view import View
from pipeline.servers.postgres import home_of
from pipeline.stanzas import socket_of
from pipeline.supervisor import Supervisor

if TYPE_CHECKING:
    from simulator.proof.books import BookFault


class Terms(NamedTuple):
    """What market there shall be: `rate` fills a second over all exchanges, `symbols` made pairs on each."""

    exchanges: tuple[str, ...]
    rate: float
    symbols: int
    seed: int


def directly(venue: Venue) -> Offer:
    """The exchange at its own addresses."""
    return Offer(venue.symbols, venue.ws_url, venue.rest_url)


class Performance:
    """One run. What it starts is stopped when `stack` is unwound."""

    def __init__(self, folder: Folder, view: View, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.view = view
        self.stack = stack
        self.environ = instance.environment(os.environ)

    def open_markets(
        self, terms: Terms, offer: Callable[[Venue], Offer] = directly, change: Change | None = None
    ) -> None:
        """Starts a simulator an exchange; knows then what they list and where they listen. `offer` says where the
        product is to find one, `change` what else its settings shall say."""
        self.venues: list[Venue] = []
        rate = terms.rate / len(terms.exchanges)
        for number, exchange in enumerate(terms.exchanges):
            venue = Venue(exchange, self.folder, rate, terms.symbols, terms.seed + number, self.environ)
            self.venues.append(venue)
            self.stack.callback(venue.stop)
            self.view.say(f"{exchange}: {len(venue.symbols)} instruments, {rate:g} fills a second")
        self.settings = instance.write_settings(
            self.folder, {venue.exchange: offer(venue) for venue in self.venues}, change
        )

    def start(self) -> None:
        """Starts the product as `pipeline up` does and waits until it stores trades of every instrument."""
        arguments = ["-c", str(self.folder.settings), "up"]
        self.product = Child("pipeline up", arguments, self.folder.path / "up.log", self.environ)
        self.stack.callback(self.product.stop)
        self.supervisor = Supervisor(socket_of(self.settings))
        self.settling = Settling(self.settings, self.turn)
        self.view.watch(self.settings)
        self.settling.everything_runs(self.supervisor)
        self.settling.everything_subscribed(self.supervisor)
        # Not every exchange replays old trades, and quiet instruments may not trade for an hour.
        self.print_one_of_each()
        self.settling.first_trades(sum(len(venue.listings) for venue in self.venues))
        if (home := home_of(self.settings)) != self.settings.state_dir:
            self.view.say(f"the user of Postgres cannot reach {self.settings.state_dir}: its data are in {home}")
        self.view.say("everything runs, every instrument is collected")

    def rest(self) -> None:
        """Pauses the markets, lets them print one last trade of everything, waits until all of it is stored and the
        books stand. Raises NotSettled."""
        for venue in self.venues:
            venue.market.pause()
        self.view.say("the markets pause; waiting until everything is stored")
        self.settling.everything_runs(self.supervisor)
        self.settling.everything_subscribed(self.supervisor)
        # After this trade no hole in the numbers can hide at the end.
        self.print_one_of_each()
        self.settling.books_valid({venue.exchange: venue.listings for venue in self.venues})
        self.settling.drained()

    def print_one_of_each(self) -> None:
        """One more order on everything that any exchange lists."""
        for venue in self.venues:
            venue.print_one_of_each()

    def book_faults(self) -> "list[BookFault | None]":
        """What is wrong with each order book, null where nothing is; the markets pause. Raises ServerAway."""
        from simulator.proof.books import book_fault

        shown, depth = self.settling.books(), self.settings.file.collection_settings.book_depth
        return [
            book_fault(
                f"{venue.exchange} {instrument}",
                venue.listings[instrument],
                book,
                shown.get((venue.exchange, instrument)),
            )
            for venue in self.venues
            for instrument, book in venue.market.books(depth).items()
        ]

    def turn(self) -> None:
        """Between two waits: are the children alive; show what they do."""
        for venue in self.venues:
            venue.check()
        self.product.check()
        self.view.turn()
