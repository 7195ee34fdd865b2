"""Stopping an instance in order: the watchdog, the stages from the exchange down, the servers, supervisord.

Within a tier all stop at once. Deletes nothing.
"""

import time
from collections.abc import Callable, Sequence

from pipeline.errors import ServerAway
from pipeline.parent import alive
from pipeline.supervisor import DOWN, Fault, Supervisor

TIERS = ("watchdog", "ingest", "normalize", "aggregate", "store", "postgres redis")
DEADLINE = 90.0
"""Seconds for one tier; supervisord itself kills after stopwaitsecs, of which 60 is the longest."""
POLL = 0.05

Say = Callable[[str], None]


def tier_of(name: str) -> int:
    """Place in the order of stopping; the unknown stop with the stages nearest to the servers."""
    stage = name.partition("-")[0]
    for number, tier in enumerate(TIERS):
        if stage in tier.split():
            return number
    return TIERS.index("store")


def stop_all(supervisor: Supervisor, say: Say, *, force: Callable[[], bool] = lambda: False) -> None:
    """Stops everything, then supervisord, and returns when it is gone. `force` is asked again and
    again: once true, what still runs is killed (the servers are asked to end, which loses nothing)."""
    try:
        pid = supervisor.pid()
        names = list(supervisor.programs())
        for tier in range(len(TIERS)):
            _stop_tier(supervisor, [name for name in names if tier_of(name) == tier], say, force)
        supervisor.shutdown()
    except ServerAway:
        return
    except Fault as fault:
        if fault.faultString != "SHUTDOWN_STATE":
            raise
    _wait_gone(supervisor, pid)


def _stop_tier(supervisor: Supervisor, names: Sequence[str], say: Say, force: Callable[[], bool]) -> None:
    running = [name for name in names if supervisor.programs()[name].state not in DOWN]
    for name in running:
        supervisor.stop(name)
    killed = False
    end = time.monotonic() + DEADLINE
    while running and time.monotonic() < end:
        if force() and not killed and tier_of(running[0]) < len(TIERS) - 1:
            killed = True
            for name in running:
                supervisor.signal(name, "KILL")
        programs = supervisor.programs()
        for name in [name for name in running if programs[name].state in DOWN]:
            running.remove(name)
            say(f"{name} stopped")
        if running:
            time.sleep(POLL)


def _wait_gone(supervisor: Supervisor, pid: int) -> None:
    end = time.monotonic() + DEADLINE
    while (supervisor.answers() or alive(pid)) and time.monotonic() < end:
        time.sleep(POLL)
