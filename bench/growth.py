"""What more symbols cost: CPU per trade in a closed loop, cores and CPU per step at a paced load."""

import time

from bench.instance import Instance
from bench.part import Figure, Figures, Terms, medians
from bench.product import Product, collecting, cores, together
from bench.proof import prove

NAME = "growth"
SUMMARY = "the chain with 10, 100 and 500 symbols"
SIZES = (10, 100, 500)
RATE = 5_000
STAGES = {"normalize": "normalize-okx", "aggregate": "aggregate-0"}
KEYS = {
    f"growth.{size}.{key}": f"{meaning}, {size} symbols"
    for size in SIZES
    for key, meaning in {
        "trades_per_s": "trades per second from the first commit to the last",
        "cpu_us_per_trade": "µs of CPU, all processes and servers together",
        "cores": f"cores of all together at {RATE:,} trades a second",
        **{f"{stage}_us_per_step": f"µs of CPU of {stage} for each step, at the same load" for stage in STAGES},
    }.items()
}


def measure(terms: Terms, instance: Instance) -> Figures:
    """See KEYS."""
    return medians(
        {key: figure for size in SIZES for key, figure in _once(terms, instance, size).items()}
        for _ in range(terms.rounds)
    )


def _once(terms: Terms, instance: Instance, size: int) -> Figures:
    seconds, warm_up = terms.size(15, 4), terms.size(5, 1)
    with collecting(terms, instance, size) as product:
        fed = product.feed(terms.size(200_000, 10_000))
        product.exchange.print(RATE * (seconds + 2 * warm_up), RATE)
        time.sleep(warm_up)
        first, steps_before = product.look(), _steps(product)
        time.sleep(seconds)
        last, steps_after = product.look(), _steps(product)
        product.pace_out()
        prove(product)
    figures: dict[str, Figure] = {
        f"growth.{size}.trades_per_s": fed.trades_per_s,
        f"growth.{size}.cpu_us_per_trade": together(fed.us_per_trade),
        f"growth.{size}.cores": together(cores(first, last)),
    }
    for stage in STAGES:
        used, steps = last.cpu[stage] - first.cpu[stage], steps_after[stage] - steps_before[stage]
        figures[f"growth.{size}.{stage}_us_per_step"] = 1e6 * used / steps
    return figures


def _steps(product: Product) -> dict[str, int]:
    """Steps so far, as the processes say each second."""
    return {stage: product.report(name).counters["steps"] for stage, name in STAGES.items()}
