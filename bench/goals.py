"""The goals: a key, the bound and which way. Figures without a row here are told, not judged."""

from typing import Literal, NamedTuple


class Goal(NamedTuple):
    """`way`: whether the figure is to be at least or at most the bound."""

    way: Literal["least", "most"]
    bound: float

    def met(self, figure: float) -> bool:
        """Whether the figure is as good as it is to be."""
        return figure >= self.bound if self.way == "least" else figure <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.way == 'least' else '≤'} {self.bound:,g}"


GOALS: dict[str, Goal] = {
    "chain.trades_per_s": Goal("least", 60_000),
    "chain.cpu_us_per_trade": Goal("most", 25),
    "ingest.ratio_to_redis": Goal("least", 0.8),
    "normalize.ratio_to_cryptofeed_redis": Goal("least", 5),
    "normalize.cpu_ratio_to_cryptofeed_redis": Goal("most", round(1 / 6, 4)),
    "aggregate.trades_per_s": Goal("least", 300_000),
    "aggregate.cost_of_eleven_frames": Goal("most", 1.15),
    "store.ratio_to_copy": Goal("least", 0.6),
    "latency.5000.row_p99_ms": Goal("most", 250),
    "latency.5000.step_p99_ms": Goal("most", 15),
    "latency.20000.row_p99_ms": Goal("most", 300),
    "latency.window_to_candle_p99_ms": Goal("most", 25),
    "idle.5000.cores": Goal("most", 0.5),
}
