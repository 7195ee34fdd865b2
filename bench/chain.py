"""The whole chain: a WebSocket, ingest, normalize, aggregate with all eleven frames, store, Redis and Postgres, fed as
fast as rows are committed."""

from bench.instance import Instance
from bench.part import Figures, Terms, medians
from bench.product import NAMES, collecting, together
from bench.proof import prove

NAME = "chain"
SUMMARY = "socket to committed rows, every process running, in a closed loop"
SYMBOLS = 40
KEYS = {
    "chain.trades_per_s": "trades per second, from the first commit to the last",
    "chain.cpu_us_per_trade": "µs of CPU, all processes and servers together",
    **{f"chain.{name}_us_per_trade": f"µs of CPU of {name}" for name in NAMES},
    "chain.venue_us_per_trade": "µs of CPU of the exchange that prints; not among the sum",
    "chain.watch_us_per_trade": "µs of CPU of the bench itself; not among the sum",
    "chain.trades": "trades printed, stored once each and summed up in candles",
}


def measure(terms: Terms, instance: Instance) -> Figures:
    """See KEYS."""
    return medians(_once(terms, instance) for _ in range(terms.rounds))


def _once(terms: Terms, instance: Instance) -> Figures:
    with collecting(terms, instance, SYMBOLS) as product:
        fed = product.feed(terms.size(1_000_000, 20_000))
        trades = prove(product)
    return {
        "chain.trades_per_s": fed.trades_per_s,
        "chain.cpu_us_per_trade": together(fed.us_per_trade),
        **{f"chain.{name}_us_per_trade": figure for name, figure in fed.us_per_trade.items()},
        "chain.trades": trades,
    }
