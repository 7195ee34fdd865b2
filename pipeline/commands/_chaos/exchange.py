"""Faults of exchanges: of the line to one (a proxy), and those the simulator makes itself (docs/simulator.md)."""

from typing import Any

from pipeline.commands._chaos.fault import Fault

NOT_THE_SIMULATORS = frozenset({"pick", "wait", "life", "ahead"})
SETTLES = 4.0
"""Seconds in which a new numbering is recognised and told before anything else happens."""
BEFORE, AFTER = 3, 5
"""Orders printed around a relisting: old numbers with an end, and enough new ones to prove that they are."""


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


class Notice(Simulated):
    """The exchange announces that it will close, and does."""

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
    """The exchange begins an instrument's numbers anew."""

    def begin(self) -> bool:
        market, instrument = self.scene.venues[self.planned.target].market, self.planned.arguments["instrument"]
        market.print_orders(instrument, BEFORE)
        super().begin()
        market.print_orders(instrument, AFTER)
        return True

    def over(self, elapsed: float) -> bool:
        return elapsed >= SETTLES
