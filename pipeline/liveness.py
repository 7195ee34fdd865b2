"""Whether a process gives a sign of life. Pure."""

from pipeline.facts import Process
from pipeline.timeframes import SECOND

HEARTBEAT_LATE = 10 * SECOND
"""A loop that beats each second and is this late is stuck or stopped."""
START_GRACE = 30 * SECOND
"""How long a process may run before its report and its subscriptions have to be there."""


def beats(process: Process, now: int) -> bool:
    """Whether its loop is alive: it wrote a report lately, and not its last one."""
    report = process.report
    return report is not None and report.status != "stopped" and now - report.beat <= HEARTBEAT_LATE
