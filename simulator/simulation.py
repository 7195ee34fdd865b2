"""One exchange being simulated: the market, its clients, the truth log and the faults, brought together.

Trades go to the truth log first, to the clients after; books change with them and are pushed at their cadence.
Time comes from a clock given to it; it opens no port itself.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from pipeline.errors import SettingsError
from simulator.connections import Connection
from simulator.dialect import Close, Dialect, Frame, Topic
from simulator.faults import FOREVER, Fault, FrameFaults, Spells, fault_from
from simulator.market import SECOND, Order
from simulator.truth import ConnectionChange, ConnectionEvent, TruthLog

CATCH_UP = 5 * SECOND
NOTICE = 60.0
SLOW = 2.0
CROSSED = 2.0


class Simulator:
    """One exchange being served. Use `serve` to make one; its methods run in the same event loop."""

    def __init__(
        self,
        dialect: Dialect,
        spells: Spells,
        truth: TruthLog | None,
        clock: Callable[[], int],
        queued: int,
        seed: int,
    ) -> None:
        self.dialect = dialect
        self.market = dialect.market
        self.seed = seed
        self.paused = False
        self.ws_url = self.rest_url = self.control_url = ""
        self._spells = spells
        self._faults = FrameFaults(dialect)
        self._injected = 0
        self._truth = truth
        self._clock = clock
        self._time = 0
        self._queued = queued
        self._connections: dict[str, Connection] = {}
        self._opened = 0
        self._later: set[asyncio.TimerHandle] = set()
        for pit in self.market.pits.values():
            self._log(pit.listing.symbol, tuple(pit.fills))
        self._flush()

    def now(self) -> int:
        """The exchange's time (ns): the wall clock, with the skew asked for, never backwards."""
        self._time = self._reading()
        return self._time

    def _reading(self) -> int:
        """As `now`; but as long as nobody was told of it, a fault of before may still change it."""
        return max(self._time, self._clock() + self._spells.skew)

    def print(self, instrument: str, orders: int = 1, fills: int | None = None) -> list[Order]:
        """Print `orders` taker orders on an instrument now, of `fills` fills each (else drawn)."""
        symbol = self._symbol(instrument)
        printed = [self.market.order(symbol, self.now(), fills) for _ in range(orders)]
        self._publish(printed)
        return printed

    def stir(self, instrument: str, changes: int) -> None:
        """Change `changes` levels of an instrument's book now; they are pushed when due."""
        self.market.pits[self._symbol(instrument)].book.stir(changes)

    def turn(self, until: int | None = None) -> None:
        """Do what is due, now or to `until` (ns): print the market's orders, push books and bars, close what is idle.

        While paused nothing changes by itself, and what waits for its cadence is pushed at once.
        """
        now = self.now() if until is None else until
        if self.paused:
            self.market.skip(now)
        else:
            # After a long stop of this process the market does not print hours in one breath.
            self.market.skip(now - CATCH_UP)
            self._publish(self.market.advance(now))
        self._deliver(self.dialect.due(self._wanted(), now, flush=self.paused))
        for connection in list(self._connections.values()):
            for reply in () if connection.half_open else connection.session.tick(now):
                connection.send(reply)

    def inject(self, fault: Fault, at: int | None = None) -> None:
        """Let a fault happen now (ns: `at`); SettingsError for an unknown instrument or connection."""
        self.check([fault])
        now = self.now() if at is None else at
        chosen = self._chosen(fault.connection)
        self._log_fault(fault.fault, {k: v for k, v in _plain(fault).items() if k not in ("fault", "at")})
        self._injected += 1
        match fault.fault:
            case "disconnect" | "half_open" | "notice" | "slow_reader":
                for connection in chosen:
                    self._hit(connection, fault)
            case "duplicate" | "drop" | "reorder" | "malformed" | "oversized" | "book_gap":
                self._faults.add(fault)
            case "book_crossed" | "book_stale" | "book_reset":
                self._strike(fault, now)
            case "relisting":
                self.market.relist(self._symbol(fault.instrument), now)
            case "forget":
                for symbol in self._symbols(fault.instrument):
                    self.market.forget(symbol, now - int((fault.seconds or 0) * SECOND))
            case "jump":
                self.market.jump(self._symbol(fault.instrument), fault.count)
            case _:
                self._spells.cast(fault, now)
                if fault.fault == "clear":
                    for pit in self.market.pits.values():
                        pit.book.clear()
                    for connection in self._connections.values():
                        connection.release()
                    self._deliver(self._faults.clear(), faulty=False)

    def inject_scripted(self, script: list[Fault]) -> None:
        """Deal what is due of a script, in order, and take it out: each at its own time of the exchange's clock, the
        market brought to it first, so that the same seed and script harm the same trades however late we come. One
        that no longer fits (its connection is gone) is written down and passed over."""
        while script and (at := self.market.start + int(script[0].at * SECOND)) <= self._reading():
            self._time = max(self._time, at)
            self.turn(at)
            self._try(script.pop(0), at)

    def _try(self, fault: Fault, at: int) -> None:
        try:
            self.inject(fault, at)
        except SettingsError as error:
            self._log_fault(f"{fault.fault}_refused", {"reason": str(error)})

    def check(self, faults: Iterable[Fault]) -> None:
        """SettingsError when a fault names an instrument that is not listed or a channel that is none."""
        for fault in faults:
            if fault.instrument is not None:
                self._symbol(fault.instrument)
            if fault.channel is not None and fault.channel not in self.dialect.channels:
                raise SettingsError(f"no channel {fault.channel}; there are {', '.join(sorted(self.dialect.channels))}")

    def state(self) -> dict[str, Any]:
        """What GET /control/state shows."""
        pits = {self.dialect.instrument(symbol): pit for symbol, pit in self.market.pits.items()}
        return {
            "seed": self.seed,
            "start": self.market.start,
            "time": self.now(),
            "paused": self.paused,
            "printed": sum(pit.printed for pit in pits.values()),
            "history": sum(pit.history for pit in pits.values()),
            "opened": self._opened,
            "faults": self._injected,
            "connections": [
                {
                    "id": name,
                    "path": connection.path,
                    "subscriptions": len(connection.session.topics),
                    "frames": connection.frames,
                    "half_open": connection.half_open,
                    "held": connection.held,
                    "closing": connection.closing,
                }
                for name, connection in self._connections.items()
            ],
            "per_instrument": {
                instrument: {"printed": pit.printed, "epoch": pit.epoch, "next": pit.sequence}
                for instrument, pit in pits.items()
            },
        }

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """Accept one WebSocket connection and serve it to its end."""
        now = self.now()
        if not self.dialect.serves(request.path):
            return web.Response(status=404)
        if not self.dialect.connect(request.remote or "", now):
            return web.Response(status=429, text="Too Many Requests")
        # Pings and closes are answered by us, or not: a half-open connection answers nothing.
        ws = web.WebSocketResponse(autoping=False, autoclose=False, compress=False, timeout=1.0)
        await ws.prepare(request)
        session = self.dialect.open(request.path, now, request.rel_url.raw_query_string)
        connection = Connection(session, request.path, ws, self._queued)
        name = connection.session.name
        self._connections[name] = connection
        self._opened += 1
        carried: set[Topic] = set()

        def heard() -> None:
            topics = session.topics
            self._log_connection("subscribed", name, connection.path, topics - carried)
            self._log_connection("unsubscribed", name, connection.path, carried - topics)
            carried.clear()
            carried.update(topics)

        self._log_connection("opened", name, connection.path)
        heard()
        try:
            await connection.serve(request, self.now, heard)
        finally:
            del self._connections[name]
            self._log_connection("closed", name, connection.path, session.topics)
        return ws

    async def rest(self, request: web.Request) -> web.Response:
        """Answer one REST request of the exchange's."""
        answer = self.dialect.respond(request.path, request.query, request.remote or "", self.now())
        if answer.content is not None:
            headers = {**answer.headers, "Content-Type": "application/octet-stream"}
            return web.Response(status=answer.status, body=answer.content, headers=headers)
        return web.Response(
            status=answer.status, text=answer.body, headers=answer.headers, content_type="application/json"
        )

    async def control(self, request: web.Request) -> web.Response:
        """POST /control: {"fault": …}, {"pause": true|false}, {"print": n, "instrument": id} (orders) or
        {"stir": n, "instrument": id} (levels of its book that change)."""
        try:
            asked = await request.json()
            if not isinstance(asked, Mapping):
                raise SettingsError("an object is expected")
            self._command(asked)
        except (json.JSONDecodeError, SettingsError) as error:
            return web.json_response({"ok": False, "error": str(error)}, status=400)
        return web.json_response({"ok": True, "state": self.state()})

    async def show(self, request: web.Request) -> web.Response:
        """GET /control/state."""
        return web.json_response(self.state())

    async def show_books(self, request: web.Request) -> web.Response:
        """GET /control/books?depth=N: `Dialect.books`, for proofs. Pause the market to have every channel there."""
        depth = request.query.get("depth")
        if depth is not None and not (depth.isascii() and depth.isdigit()):
            return web.json_response({"ok": False, "error": "depth is a number of levels"}, status=400)
        books = self.dialect.books(None if depth is None else int(depth))
        return web.Response(body=msgspec.json.encode({"books": books}), content_type="application/json")

    def close(self) -> None:
        """Cut every connection."""
        for timer in self._later:
            timer.cancel()
        for connection in list(self._connections.values()):
            connection.abort()

    def _command(self, asked: Mapping[str, Any]) -> None:
        if "fault" in asked:
            self.inject(fault_from(dict(asked)))
        elif isinstance(asked.get("pause"), bool):
            self.turn()
            self.paused = asked["pause"]
            self.turn()
        elif isinstance(asked.get("print"), int) and isinstance(asked.get("instrument"), str):
            self.print(asked["instrument"], asked["print"])
        elif isinstance(asked.get("stir"), int) and isinstance(asked.get("instrument"), str):
            self.stir(asked["instrument"], asked["stir"])
        else:
            raise SettingsError(
                'give "fault", "pause" (true or false), or "print" or "stir" (a number) and "instrument"'
            )

    def _hit(self, connection: Connection, fault: Fault) -> None:
        if fault.fault == "half_open":
            connection.half_open = True
        elif fault.fault == "notice":
            connection.send(connection.session.notice())
            seconds = NOTICE if fault.seconds is None else fault.seconds
            close = Close(1001, "Service upgrade")
            self._later.add(asyncio.get_running_loop().call_later(seconds, connection.send, close))
        elif fault.fault == "slow_reader":
            connection.hold(SLOW if fault.seconds is None else fault.seconds)
        elif fault.code is not None:
            connection.send(Close(fault.code))
        else:
            connection.abort()

    def _strike(self, fault: Fault, now: int) -> None:
        """A fault of books themselves: of one instrument, or of all."""
        for symbol in self._symbols(fault.instrument):
            book = self.market.pits[symbol].book
            if fault.fault == "book_crossed":
                book.cross(now + int((CROSSED if fault.seconds is None else fault.seconds) * SECOND))
            elif fault.fault == "book_stale":
                book.freeze(FOREVER if fault.seconds is None else now + int(fault.seconds * SECOND))
            else:
                self.dialect.reset(self.dialect.instrument(symbol))
            instrument = self.dialect.instrument(symbol)
            version = self.dialect.books(0)[instrument].version
            self._log_fault(f"{fault.fault}_done", {"instrument": instrument, "version": version})

    def _publish(self, orders: Iterable[Order]) -> None:
        wanted = self._wanted()
        frames: list[Frame] = []
        for order in orders:
            self._log(order[0].symbol, order)
            frames += self.dialect.printed(order, wanted)
        self._flush()
        self._deliver(frames)

    def _deliver(self, frames: Iterable[Frame], faulty: bool = True) -> None:
        for frame in frames:
            sent, effects = self._faults.apply(frame) if faulty else ([frame], [])
            for effect in effects:
                self._log_fault(f"{effect.fault}_done", {k: v for k, v in _plain(effect).items() if k != "fault"})
            for one in sent:
                for connection in self._connections.values():
                    if one.topic in connection.session.topics:
                        connection.send(connection.session.spelled(one))

    def _wanted(self) -> set[Topic]:
        return set[Topic]().union(*(connection.session.topics for connection in self._connections.values()))

    def _chosen(self, name: str | None) -> list[Connection]:
        if name is None:
            return list(self._connections.values())
        if name not in self._connections:
            raise SettingsError(f"no connection {name}")
        return [self._connections[name]]

    def _symbols(self, instrument: str | None) -> list[str]:
        return list(self.market.pits) if instrument is None else [self._symbol(instrument)]

    def _symbol(self, instrument: str | None) -> str:
        symbol = self.dialect.symbol(instrument or "")
        if symbol is None:
            raise SettingsError(f"no instrument {instrument}")
        return symbol

    def _log(self, symbol: str, order: Order) -> None:
        if self._truth is not None:
            self._truth.fills(self.dialect.instrument(symbol), order)

    def _flush(self) -> None:
        # A few kilobytes into the page cache: not worth a thread, and no client may run ahead of the truth.
        if self._truth is not None:
            self._truth.flush()

    def _log_connection(self, event: ConnectionEvent, name: str, path: str, topics: Iterable[Topic] = ()) -> None:
        topics = tuple(sorted(topics))
        if self._truth is not None and (topics or event in ("opened", "closed")):
            traded = tuple(sorted({instrument for channel, instrument in topics if "trade" in channel.lower()}))
            self._truth.connection(ConnectionChange(self.now(), event, name, path, traded, topics))

    def _log_fault(self, name: str, details: dict[str, Any]) -> None:
        if self._truth is not None:
            self._truth.fault(time.time_ns(), name, details)


def _plain(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}
