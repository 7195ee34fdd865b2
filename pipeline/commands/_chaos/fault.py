"""What every fault is: something with a beginning and an end, against one target."""

from pipeline.commands._chaos.plan import Planned
from pipeline.commands._chaos.scene import Scene


class Fault:
    """One fault of the plan. `begin`, `over` and `end` may raise ServerAway: they are asked again. `failed` says why
    nothing came of it after all."""

    failed: str | None = None

    def __init__(self, planned: Planned, scene: Scene) -> None:
        self.planned = planned
        self.scene = scene

    @property
    def touches(self) -> frozenset[str]:
        """What no two faults may touch at the same time."""
        return frozenset()

    def begin(self) -> bool:
        """Deals it; False when there is nothing to hit just now."""
        raise NotImplementedError

    def over(self, elapsed: float) -> bool:
        """Called often while it is in force, `elapsed` seconds since it began; whether it shall end now."""
        return elapsed >= self.planned.seconds

    def end(self) -> None:
        """Undoes what lasts."""
