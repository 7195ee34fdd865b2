"""Faults of exchanges: of the line to one (a proxy), and those the simulator makes itself (docs/simulator.md)."""

from typing import Any

from pipeline.commands._chaos.fault import Fault
from pipeline.commands._demo.market import Market

NOT_THE_SIMULATORS = frozenset({"pick", "wait", "life", "ahead", "behind"})
BEFORE, AFTER = 3, 5
"""Orders printed around a relisting: old numbers with an end, and enough new ones to prove that they are."""

LONGEST = 60.0
"""Seconds until a dead connection must have been noticed, and a trade stored."""
_STORED = """
    SELECT 1 FROM trades t JOIN instruments i ON i.id = t.instrument_id
    WHERE i.exchange = %s AND i.instrument = %s AND t.epoch = %s AND t.sequence = %s
      AND t.time > now() - interval '1 hour'"""


class LineCut(Fault):
    """Every connection to the exchange is reset; for a while nobody gets a new one."""

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({f"line {self.planned.target}"})

    def begin(self) -> bool:
        for proxy in self.scene.lines[self.planned.target].proxies:
            proxy.refuse(self.planned.seconds > 0)
            proxy.cut()
        return True

    def end(self) -> None:
        for proxy in self.scene.lines[self.planned.target].proxies:
            proxy.refuse(False)


class LineStall(LineCut):
    """No byte passes to or from the exchange, then all at once. After the keepalive's deadline we are connected anew,
    and what was on the old line is lost."""

    def begin(self) -> bool:
        for proxy in self.scene.lines[self.planned.target].proxies:
            proxy.stall()
        return True

    def end(self) -> None:
        for proxy in self.scene.lines[self.planned.target].proxies:
            proxy.stall(False)


class Simulated(Fault):
    """A fault of the simulator's: the control endpoint is asked for it. It ends by itself."""

    def begin(self) -> bool:
        arguments = {name: value for name, value in self.planned.arguments.items() if value is not None}
        if "pick" in arguments:
            connections = self._connections()
            if not connections:
                return False
            arguments["connection"] = connections[arguments["pick"] % len(connections)]
        self.ask(self.planned.fault, arguments)
        return True

    def ask(self, fault: str, arguments: dict[str, Any]) -> None:
        """Raises ServerAway."""
        known = {name: value for name, value in arguments.items() if name not in NOT_THE_SIMULATORS}
        self.scene.venues[self.planned.target].market.fault(fault, **known)

    def _connections(self) -> list[str]:
        state = self.scene.venues[self.planned.target].market.state()
        return [one["id"] for one in state["connections"] if not one["half_open"] and one["closing"] is None]


class HalfOpen(Simulated):
    """A connection that stands and is dead, in force until the product has given it up."""

    def over(self, elapsed: float) -> bool:
        state = self.scene.venues[self.planned.target].market.state()
        return elapsed >= LONGEST or not any(one["half_open"] for one in state["connections"])


class Closing(Simulated):
    """The exchange closes after a while: as announced, or because it takes us for too slow to read."""

    def ask(self, fault: str, arguments: dict[str, Any]) -> None:
        super().ask(fault, {**arguments, "seconds": arguments["wait"]})


class Lasting(Simulated):
    """A fault that the simulator keeps in force for so many seconds."""

    def ask(self, fault: str, arguments: dict[str, Any]) -> None:
        super().ask(fault, {**arguments, "seconds": self.planned.seconds})


class Subscribing(Lasting):
    """One that hits new subscriptions: so all connections are cut."""

    def begin(self) -> bool:
        super().begin()
        self.scene.venues[self.planned.target].market.fault("disconnect")
        return True


class Lifetime(Simulated):
    """For a while connections end seconds after they began."""

    def ask(self, fault: str, arguments: dict[str, Any]) -> None:
        super().ask(fault, {"seconds": arguments["life"]})

    def end(self) -> None:
        self.scene.venues[self.planned.target].market.fault("lifetime")


class Lag(Simulated):
    """For a while REST gives trades only seconds after they were printed."""

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({f"rest {self.planned.target}"})

    def ask(self, fault: str, arguments: dict[str, Any]) -> None:
        super().ask(fault, {"seconds": arguments["behind"]})

    def end(self) -> None:
        self.scene.venues[self.planned.target].market.fault("rest_lag", seconds=0)


class Skew(Simulated):
    """The exchange's clock is wrong for a while."""

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({f"clock {self.planned.target}"})

    def ask(self, fault: str, arguments: dict[str, Any]) -> None:
        super().ask(fault, {"seconds": arguments["ahead"]})

    def end(self) -> None:
        self.scene.venues[self.planned.target].market.fault("skew", seconds=0)


class Relisting(Simulated):
    """The exchange begins an instrument's numbers anew, once Postgres has what was printed under the old ones until
    then: so they are known to come through. It is over when Postgres has some of the new ones."""

    def begin(self) -> bool:
        self._relisted: float | None = None
        self._print(BEFORE)
        return True

    def over(self, elapsed: float) -> bool:
        if not self._stored():
            if elapsed >= LONGEST + (self._relisted or 0.0):
                self.failed = "what it printed did not come through"
            return self.failed is not None
        if self._relisted is not None:
            return True
        self._relisted = elapsed
        super().begin()
        self._print(AFTER)
        return False

    def _print(self, orders: int) -> None:
        self._market.print_orders(self._instrument, orders)
        told = self._market.state()["per_instrument"][self._instrument]
        self._newest = int(told["epoch"]), int(told["next"]) - 1

    def _stored(self) -> bool:
        wanted = (self.planned.target, self._instrument, *self._newest)
        with self.scene.postgres() as connection:
            return connection.execute(_STORED, wanted).fetchone() is not None

    @property
    def _market(self) -> Market:
        return self.scene.venues[self.planned.target].market

    @property
    def _instrument(self) -> str:
        return str(self.planned.arguments["instrument"])
