"""A process that stands in for a stage: beats as one, ends on SIGTERM, and writes down that it did.

Called as `standin.py NAME HEARTBEATS NOTES`. It exits at once while NOTES/NAME.broken exists; while NOTES/NAME.stalled
does it says that nothing comes of it, and while NOTES/NAME.waiting does that it waits for an exchange.
"""

import asyncio
import signal
import sys
import time
from pathlib import Path

from pipeline.heartbeat import Heartbeat
from pipeline.parent import fall_with_parent


async def stand_in(name: str, heartbeats: Path, notes: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    heartbeat = Heartbeat(name, heartbeats)

    def describe() -> dict[str, object]:
        heartbeat.stalls = {"made": (time.time_ns(), "made up")} if (notes / f"{name}.stalled").exists() else {}
        heartbeat.waiting_for = "exchange" if (notes / f"{name}.waiting").exists() else None
        return {}

    heartbeat.describe("", describe)
    beating = asyncio.create_task(heartbeat.run())
    await stop.wait()
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    with (notes / "stopped").open("a") as file:
        file.write(f"{name}\n")


def main() -> None:
    name, heartbeats, notes = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if (notes / f"{name}.broken").exists():
        sys.exit(1)
    fall_with_parent(signal.SIGTERM)
    asyncio.run(stand_in(name, heartbeats, notes))


main()
