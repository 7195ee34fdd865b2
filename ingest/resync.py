"""One subscription given up and asked for anew on a living connection: an order book then begins afresh."""

import asyncio
from typing import Protocol

from ingest.declined import Declined
from ingest.events import within
from ingest.feed import Subscription

REQUESTS = 2
"""Unsubscribe and subscribe."""


class Desk(Protocol):
    """What a resync needs of its session."""

    ended: asyncio.Event

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Sends the request."""

    async def subscribe_anew(self, subscription: Subscription) -> None:
        """Notes that the subscription has ended, and sends the request."""


class Resync:
    """`released` is set when the exchange has ended the subscription, `accepted` when it is in force again, `refused`
    holds the reason when it was turned down."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.released = asyncio.Event()
        self.accepted = asyncio.Event()
        self.refused: str | None = None

    async def run(self, desk: Desk, patience: int) -> None:
        """Raises Declined. `patience` (ns) is for each of the two answers."""
        await desk.unsubscribe(self.subscription)
        # Asked for anew without that answer too: we may not be left without the subscription.
        await within(patience, self.released, desk.ended)
        if not desk.ended.is_set():
            await desk.subscribe_anew(self.subscription)
            await within(patience, self.accepted, desk.ended)
        if desk.ended.is_set():
            raise Declined("the connection is gone", permanent=True)
        if self.refused is not None:
            raise Declined(self.refused)
        if not self.accepted.is_set():
            raise Declined("not acknowledged in time")
