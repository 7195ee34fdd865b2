"""What the watchdog does about a process: pure. It sees one program at one moment and remembers its life.

Hung means no sign of life for long enough: of a worker its own loop's counter, of a server its answer. Silent means
that a worker lives and says itself that nothing comes of it, while it waits for nobody: see ingest/stall.py, stall.py.
Nobody is judged by what stands in Redis, and no worker because a server is away.
"""

from enum import Enum

import msgspec

HUNG_WORKER = 15.0
HUNG_SERVER = 10.0
GRACE = 30.0
"""Seconds after its start in which a process need not have shown a sign of life yet."""
SERVER_GRACE = 120.0
SETTLED = 60.0
"""A process that lives this long has come back for good."""
PAUSE = 1.0
SLOW_FIRST = 5.0
SLOWEST = 300.0
SILENCE_FIRST = 900.0
SILENCE_LONGEST = 86_400.0
"""Seconds between restarts for silence, doubling: where an exchange rests, restarting does not wake it."""
BLIND = 5.0
"""After a pause of our own this long (SIGSTOP, suspend) everybody's clock starts anew."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A program now. `beats` counts its loops where its heartbeat file is of this pid; `answers` is of servers.
    `stalled`: why it says that nothing comes of it; None where it does not, or waits for something."""

    name: str
    state: str
    pid: int = 0
    start: int = 0
    error: str = ""
    beats: int | None = None
    answers: bool | None = None
    stalled: str | None = None


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """`auto_restart` holds for workers; servers are always brought back. `attempts` restarts are quick."""

    auto_restart: bool = True
    attempts: int = 3


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a program. `since` and `progress` are s of the watchdog's monotonic clock, `next_start`
    too. `attempts` counts restarts since it last settled; `parked`: supervisord no longer restarts it by itself.
    `silences` counts the restarts for silence that followed one another, the last at `last_silence`."""

    pid: int = 0
    since: float = 0.0
    progress: float = 0.0
    beats: int | None = None
    alive_once: bool = False
    started_by_us: bool = False
    restarts: int = 0
    attempts: int = 0
    last_restart: float | None = None
    next_start: float | None = None
    parked: bool = False
    reason: str | None = None
    silences: int = 0
    last_silence: float | None = None


class Do(Enum):
    START = "start"
    KILL = "kill"
    PARK = "park"
    UNPARK = "unpark"


class Verdict(msgspec.Struct, frozen=True):
    """The life as it goes on, and what to do now. `loud`: an operator should hear of it."""

    life: Life
    do: tuple[Do, ...] = ()
    loud: bool = False


def judge(seen: Seen, life: Life, now: float, policy: Policy) -> Verdict:
    """One look at one program. `now` in s of a monotonic clock."""
    before = life
    life = _follow(seen, life, now)
    may_restart = policy.auto_restart or seen.answers is not None
    if seen.state in ("RUNNING", "STARTING"):
        verdict = _judge_running(seen, life, now, may_restart)
    elif seen.state in ("EXITED", "FATAL") or (seen.state == "STOPPED" and not seen.start):
        verdict = _judge_down(seen, life, now, policy, may_restart)
    else:
        verdict = Verdict(life)
    parking = _parking(verdict.life, policy, may_restart)
    became_loud = before.attempts <= policy.attempts < verdict.life.attempts
    life = msgspec.structs.replace(verdict.life, parked=parking is Do.PARK or (life.parked and parking is None))
    return Verdict(life, (*verdict.do, *([parking] if parking else [])), verdict.loud or became_loud)


def delay(attempts: int, policy: Policy) -> float:
    """Seconds before the next start: short at first, doubling up to 5 minutes beyond the quick attempts."""
    beyond = attempts - policy.attempts
    return PAUSE if beyond <= 0 else min(SLOWEST, SLOW_FIRST * 2.0 ** min(beyond - 1, 20))


def after_blindness(life: Life, now: float) -> Life:
    """The life with its silence forgiven: it was we who did not look."""
    return msgspec.structs.replace(life, progress=now)


def _follow(seen: Seen, life: Life, now: float) -> Life:
    """Takes in a new pid, signs of life, and that a process has settled."""
    if seen.pid and seen.pid != life.pid:
        again, ours = life.pid != 0, life.started_by_us
        died = f"ended after {now - life.since:.0f} s" if again and not ours else None
        life = msgspec.structs.replace(
            life,
            reason=life.reason if ours or (life.reason or "").startswith(("hung", "silent")) else died,
            pid=seen.pid,
            since=now,
            progress=now,
            beats=None,
            alive_once=False,
            started_by_us=False,
            restarts=life.restarts + again,
            attempts=life.attempts + (again and not ours),
            last_restart=now if again else life.last_restart,
            next_start=None,
        )
    elif seen.answers or (seen.beats is not None and seen.beats != life.beats):
        life = msgspec.structs.replace(life, progress=now, beats=seen.beats, alive_once=True)
    if life.attempts and seen.state == "RUNNING" and now - life.since >= SETTLED:
        life = msgspec.structs.replace(life, attempts=0, reason=None)
    return life


def _judge_running(seen: Seen, life: Life, now: float, may_restart: bool) -> Verdict:
    silent = now - life.progress
    if seen.answers is None:
        allowed = HUNG_WORKER if life.alive_once else GRACE
    else:
        allowed = HUNG_SERVER if life.alive_once else SERVER_GRACE
    if silent < allowed:
        return _judge_silence(seen, life, now, may_restart)
    reason = f"hung: no sign of life for {silent:.0f} s"
    first = life.reason is None or not life.reason.startswith("hung")
    if not may_restart:
        return Verdict(msgspec.structs.replace(life, reason=f"{reason} (auto_restart is off)"), loud=first)
    return Verdict(msgspec.structs.replace(life, reason=reason, progress=now), (Do.KILL,), loud=True)


def _judge_silence(seen: Seen, life: Life, now: float, may_restart: bool) -> Verdict:
    """A process that lives and does nothing is restarted at once the first time, then ever more rarely."""
    if seen.stalled is None:
        return Verdict(life)
    since = None if life.last_silence is None else now - life.last_silence
    if since is not None and since < silence_delay(life.silences):
        return Verdict(life)
    reason = f"silent: {seen.stalled}"
    if not may_restart:
        first = life.reason is None or not life.reason.startswith("silent")
        return Verdict(msgspec.structs.replace(life, reason=f"{reason} (auto_restart is off)"), loud=first)
    again = since is not None and since < 2 * silence_delay(life.silences)
    silences = life.silences + 1 if again else 1
    life = msgspec.structs.replace(life, reason=reason, progress=now, silences=silences, last_silence=now)
    return Verdict(life, (Do.KILL,), loud=True)


def silence_delay(silences: int) -> float:
    """Seconds after so many restarts for silence before the next one."""
    return min(SILENCE_LONGEST, SILENCE_FIRST * 2.0 ** min(silences - 1, 20))


def _judge_down(seen: Seen, life: Life, now: float, policy: Policy, may_restart: bool) -> Verdict:
    first_ever = not life.pid and not life.attempts and not life.started_by_us
    if first_ever and seen.state == "STOPPED":
        return Verdict(msgspec.structs.replace(life, started_by_us=True), (Do.START,))
    reason = f"{seen.state}{f': {seen.error}' if seen.error else ''}"
    if not may_restart:
        changed = life.reason is None
        return Verdict(msgspec.structs.replace(life, reason=f"{reason} (auto_restart is off)"), loud=changed)
    if life.next_start is None:
        attempts = life.attempts + 1
        due = now + delay(attempts, policy)
        loud = seen.state == "FATAL"
        return Verdict(msgspec.structs.replace(life, attempts=attempts, next_start=due, reason=reason), loud=loud)
    if now < life.next_start:
        return Verdict(life)
    return Verdict(msgspec.structs.replace(life, next_start=None, started_by_us=True), (Do.START,))


def _parking(life: Life, policy: Policy, may_restart: bool) -> Do | None:
    """Beyond the quick attempts supervisord must not restart it at once: we do, more and more slowly."""
    wanted = not may_restart or life.attempts > policy.attempts
    if wanted == life.parked:
        return None
    return Do.PARK if wanted else Do.UNPARK
