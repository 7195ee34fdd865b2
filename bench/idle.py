"""How much of the machine the product uses while little happens: cores at 5,000 trades a second, and at none."""

import time

from bench.instance import Instance
from bench.part import Figure, Figures, Terms, medians
from bench.product import NAMES, collecting, cores, together
from bench.proof import prove

NAME = "idle"
SUMMARY = "cores in use at a paced load, every process running, nobody watching"
SYMBOLS = 40
RATE = 5_000
KEYS = {
    f"idle.{rate}.{name}": f"cores of {meaning} at {rate:,} trades a second"
    for rate in (RATE, 0)
    for name, meaning in {
        "cores": "all processes and servers together",
        **{f"{name}_cores": name for name in NAMES},
        "venue_cores": "the exchange that prints; not among the sum",
    }.items()
}
KEYS[f"idle.{RATE}.behind"] = "trades sent and not yet stored at the end: many mean that the machine did not keep up"


def measure(terms: Terms, instance: Instance) -> Figures:
    """See KEYS."""
    return medians(_once(terms, instance) for _ in range(terms.rounds))


def _once(terms: Terms, instance: Instance) -> Figures:
    seconds, warm_up = terms.size(20, 5), terms.size(5, 1)
    with collecting(terms, instance, SYMBOLS) as product:
        quiet = product.look()
        time.sleep(terms.size(20, 10))
        nothing = cores(quiet, product.look())
        product.exchange.print(RATE * (seconds + 2 * warm_up), RATE)
        time.sleep(warm_up)
        first = product.look()
        time.sleep(seconds)
        last = product.look()
        rows = product.rows()
        behind = product.exchange.told().printed - rows
        product.pace_out()
        prove(product)
    return _figures(RATE, cores(first, last)) | _figures(0, nothing) | {f"idle.{RATE}.behind": behind}


def _figures(rate: int, used: dict[str, float]) -> dict[str, Figure]:
    shown = {f"idle.{rate}.{name}_cores": used[name] for name in (*NAMES, "venue")}
    return {f"idle.{rate}.cores": together(used), **shown}
