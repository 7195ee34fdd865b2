"""An exchange that did not do what one request asked."""

from pipeline.errors import ExchangeError


class Declined(ExchangeError):
    """`permanent`: asking again would not help. `unknown`: the exchange has no such instrument."""

    def __init__(self, reason: str, permanent: bool = False, unknown: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent
        self.unknown = unknown
