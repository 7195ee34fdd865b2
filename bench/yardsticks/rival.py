"""cryptofeed on our frames, in a process and an interpreter of its own. Where there is none, nothing is known."""

import json
import subprocess
from pathlib import Path

import msgspec

from bench.frames import START, Market
from bench.instance import Instance
from bench.part import Terms, expect
from pipeline.errors import ServerAway
from pipeline.timeframes import SECOND

SCRIPT = Path(__file__).with_name("cryptofeed_run.py")
TABLE = "cryptofeed_trades"
LONG = 600.0
COLUMNS = (
    "timestamp timestamptz, receipt_timestamp timestamptz, exchange text, symbol text, side text, amount numeric, "
    "price numeric, id text, type text, PRIMARY KEY (exchange, symbol, id)"
)
"""In the order in which its backend gives them."""


class Speed(msgspec.Struct, frozen=True):
    """Trades a second, and µs of CPU of the process for one; None where it is not installed."""

    per_second: float | None = None
    microseconds: float | None = None


class Rival:
    """`trades` one-trade frames of OKX, lying in a file."""

    def __init__(self, terms: Terms, instance: Instance, trades: int) -> None:
        self._python = terms.cryptofeed
        self._instance = instance
        self._trades = trades
        self._file = instance.scratch / "frames"
        self._instruments: tuple[str, ...] = ()
        if self._python is not None:
            market = Market("okx", terms.seed)
            self._instruments = market.instruments
            times = (START + number * SECOND // 5_000 for number in range(trades))
            self._file.write_text("".join(market.trade(time) + "\n" for time in times))

    def run(self, backend: str) -> Speed:
        """`backend`: noop, redis or postgres. Raises WrongResult when it has not delivered all."""
        if self._python is None:
            return Speed()
        if backend == "postgres":
            with self._instance.postgres() as connection:
                connection.execute(f"DROP TABLE IF EXISTS {TABLE}".encode())
                connection.execute(f"CREATE TABLE {TABLE} ({COLUMNS})".encode())
        settings = self._instance.settings
        asked = {
            "backend": backend,
            "frames": str(self._file),
            "instruments": self._instruments,
            "redis": str(settings.run_dir / "redis.sock"),
            "postgres": {
                "host": str(settings.run_dir / "postgres"),
                "port": settings.file.postgres.port,
                "user": "postgres",
                "db": settings.file.postgres.database,
                "table": TABLE,
            },
        }
        words = [str(self._python), str(SCRIPT), json.dumps(asked)]
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=LONG, env=self._instance.environ
        )
        if done.returncode:
            raise ServerAway(f"cryptofeed in {self._python} failed: {done.stderr.strip()[-400:]}")
        told = json.loads(done.stdout.splitlines()[-1])
        expect(f"trades through cryptofeed ({backend})", told["delivered"], self._trades)
        return Speed(self._trades / told["seconds"], 1e6 * told["cpu"] / self._trades)
