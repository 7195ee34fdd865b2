"""What the demo shows while it runs: candles, processes and what was done to them, live on a terminal, as plain lines
elsewhere. Always on stderr: stdout is for the result."""

import contextlib
import time
from collections import deque

import msgspec
import psycopg
import redis.exceptions
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.errors import ServerAway
from pipeline.facts import Snapshot
from pipeline.health import Verdict
from pipeline.probes import postgres as postgres_probe
from pipeline.probes import redis as redis_probe
from pipeline.records import Candle
from pipeline.settings import Settings
from pipeline.snapshot import look
from pipeline.streams import Keys
from pipeline.timeframes import SECOND

COLUMNS = ("symbol", "from", "open", "high", "low", "close", "volume", "trades", "quality")
ONLY_WIDE = ("from", "trades")
WIDE = 100
EVENTS = 8
OTHER_LINES = 22
"""Lines that are not candles: headline, titles, processes, events."""
FEWEST_CANDLES = 3
LOOK = 1.0
PLAIN_LINE = 10.0
SHOWN = "5s"
COLOURS = {"healthy": "green", "degraded": "yellow", "unhealthy": "red", "stopped": "red"}

_CANDLE = msgspec.json.Decoder(Candle)


class View:
    """Open it with `with`. `say` adds an event, `turn` looks again when it is time."""

    def __init__(self, duration: float, title: str = "Tapeline demo") -> None:
        self._title = title
        self._console = Console(stderr=True, emoji=False)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._begun = time.monotonic()
        self._looked = self._told = 0.0
        self._events: deque[str] = deque(maxlen=EVENTS)
        self._duration = duration
        self._market_since: float | None = None
        self._settings: Settings | None = None
        self._found: tuple[Snapshot, Verdict] | None = None
        self._candles: list[Candle] = []
        self._stored = 0

    def __enter__(self) -> "View":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """An event, with the seconds since the demo began."""
        line = f"{time.monotonic() - self._begun:6.1f} s  {text}"
        self._events.append(line)
        if self._live is None:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._draw()

    def watch(self, settings: Settings) -> None:
        """From now on the instance is looked at."""
        self._settings = settings

    def counts_down(self) -> None:
        """The time of the demo runs from now."""
        self._market_since = time.monotonic()

    def turn(self) -> None:
        """Looks at the instance once a second, and shows it."""
        now = time.monotonic()
        if self._settings is None or now - self._looked < LOOK:
            return
        self._told = self._told or now
        self._looked = now
        self._found = look(self._settings)
        self._candles = self._newest_candles(self._settings)
        self._stored = self._count(self._settings)
        if self._live is not None:
            self._draw()
        elif now - self._told >= PLAIN_LINE:
            self._told = now
            self.say(self._summary())

    def _newest_candles(self, settings: Settings) -> list[Candle]:
        """The newest candle of each instrument; the ones shown last while Redis does not answer."""
        client = redis_probe.connect(settings)
        found: list[Candle] = []
        try:
            for partition in settings.all_partitions():
                key = Keys(settings.namespace, partition).last(f"candle:{SHOWN}")
                found += [_CANDLE.decode(data) for data in redis_probe.call(client, "HVALS", key)]
        except (redis.exceptions.RedisError, OSError):
            return self._candles
        finally:
            client.close()
        return sorted(found, key=lambda candle: candle.symbol)

    def _count(self, settings: Settings) -> int:
        with contextlib.suppress(psycopg.Error, ServerAway), postgres_probe.connect(settings) as connection:
            row = connection.execute("SELECT count(*) FROM trades").fetchone()
            return int(str(row[0])) if row else 0
        return self._stored

    def _summary(self) -> str:
        assert self._found is not None
        verdict = self._found[1]
        reasons = ", ".join(f"{reason.subject} {reason.text}" for reason in verdict.reasons[:2])
        return f"{verdict.status}{f' ({reasons})' if reasons else ''}; {self._stored} trades in Postgres"

    def _draw(self) -> None:
        assert self._live is not None
        self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        parts: list[RenderableType] = [self._headline()]
        if self._candles:
            parts.append(self._candle_table())
        if self._found is not None:
            parts.append(self._process_table(*self._found))
        return Group(*parts, Text("\n".join(self._events), style="dim"))

    def _headline(self) -> Text:
        text = Text(self._title, style="bold")
        text.append("  simulated market, real processes, real Redis and Postgres", style="dim")
        if self._market_since is not None:
            left = max(0.0, self._duration - (time.monotonic() - self._market_since))
            text.append(f"\n{left:.0f} s to go, {self._stored} trades in Postgres")
        if self._found is not None:
            status = self._found[1].status
            text.append("  ").append(status, style=COLOURS.get(status, ""))
        return text

    def _candle_table(self) -> Table:
        wide = self._console.width >= WIDE
        columns = COLUMNS if wide else tuple(name for name in COLUMNS if name not in ONLY_WIDE)
        table = Table(title=f"newest {SHOWN} candles", title_justify="left", box=None, pad_edge=False)
        for name in columns:
            table.add_column(name, justify="left" if name in ("symbol", "quality") else "right", no_wrap=True)
        for candle in self._candles[: max(FEWEST_CANDLES, self._console.height - OTHER_LINES)]:
            cells = _cells(candle)
            table.add_row(*(cells[name] for name in columns), style="" if candle.quality == "complete" else "yellow")
        return table

    def _process_table(self, snapshot: Snapshot, verdict: Verdict) -> Table:
        table = Table(box=None, pad_edge=False)
        for name in ("process", "status", "pid", "up", "restarts"):
            table.add_column(name, justify="right" if name in ("pid", "up", "restarts") else "left", no_wrap=True)
        for process in snapshot.processes:
            status = verdict.processes[process.name].status
            up = f"{(snapshot.at - process.started) / 1e9:.0f} s" if process.started and process.pid else "-"
            style = "" if status == "running" else "yellow"
            table.add_row(process.name, status, str(process.pid or "-"), up, str(process.restarts), style=style)
        return table


def _cells(candle: Candle) -> dict[str, str]:
    """Column to text."""
    return {
        "symbol": candle.symbol,
        "from": time.strftime("%H:%M:%S", time.gmtime(candle.open_time // SECOND)),
        "open": candle.open,
        "high": candle.high,
        "low": candle.low,
        "close": candle.close,
        "volume": candle.volume[:9],
        "trades": str(candle.trades_count),
        "quality": candle.quality,
    }
