"""What is known of a running instance at one moment: the facts that `health` judges and `status` shows.

Only structs. Every time is ns UTC of the host. A fact that could not be had is None, never a guess.
"""

import msgspec

from pipeline.losses import Lost
from pipeline.reports import Report


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process. `state` is supervisord's word (RUNNING, STARTING, BACKOFF, FATAL, STOPPED, EXITED …), None where
    supervisord does not answer. `restarts`, `last_restart`, `attempts` (restarts since it last ran for long) and
    `parked` are the watchdog's; `expected` says whether the settings ask for it; `report` is what it says of itself."""

    name: str
    expected: bool = True
    state: str | None = None
    pid: int | None = None
    started: int | None = None
    stopped: int | None = None
    detail: str = ""
    restarts: int = 0
    attempts: int = 0
    last_restart: int | None = None
    parked: bool = False
    report: Report | None = None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A reader of a stream: `lag` entries behind (None where the server cannot tell), next after id `cursor`.
    `outside`: not one of ours. Then `pending` entries were given to it and not acknowledged, it keeps about `held`
    bytes from being trimmed, and has `lost` what was trimmed all the same."""

    name: str
    lag: int | None
    cursor: str
    outside: bool = False
    pending: int = 0
    held: int | None = None
    lost: Lost | None = None


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One stream of md:index. `newest` is the time of its newest entry; `bytes` an estimate of the server's."""

    key: str
    kind: str
    exchange: str
    partition: str
    entries: int
    bytes: int | None = None
    newest: int | None = None
    groups: tuple[Group, ...] = ()


class DeadLetters(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters of the last hour by reason. `more` when the count stopped at a bound."""

    reasons: dict[str, int] = {}
    newest: int | None = None
    more: bool = False

    @property
    def count(self) -> int:
        return sum(self.reasons.values())


class Redis(msgspec.Struct, frozen=True, kw_only=True):
    """`error` says why nothing is known. `budget` is the server's maxmemory, or that of the settings where the
    server has none. `rates` are records per second over the last minute by (exchange, kind, symbol)."""

    error: str | None = None
    version: str | None = None
    used_memory: int | None = None
    budget: int | None = None
    policy: str | None = None
    persistent: bool | None = None
    streams: tuple[Stream, ...] = ()
    dead: DeadLetters = DeadLetters()
    rates: dict[tuple[str, str, str], float] = {}
    reports: dict[str, Report] = {}


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """Of the rows of a kind (or, `database`, of everything) when it was measured last. `since`: where its oldest
    partition begins; `growth`: bytes that are added a day, measured over the last one to eight; None: not known yet."""

    bytes: int
    since: int | None = None
    growth: float | None = None


class Postgres(msgspec.Struct, frozen=True, kw_only=True):
    """`newest` is the time of the newest row by table; `open_gaps` the ledger's count by (exchange, symbol). `sizes` by
    kind; `kept_since` by kind from when on nothing was dropped, `freed` how many bytes were."""

    error: str | None = None
    bytes: int | None = None
    newest: dict[str, int] = {}
    open_gaps: dict[tuple[str, str], int] = {}
    sizes: dict[str, Size] = {}
    kept_since: dict[str, int] = {}
    freed: int = 0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, as of `at`. `supervisor_error` is None when supervisord answered. `disk_free`: bytes for the state
    folder; `data_free`: for the database, where that is our own on this host."""

    at: int
    supervisor_error: str | None
    processes: tuple[Process, ...]
    redis: Redis
    postgres: Postgres
    disk_free: int | None
    data_free: int | None = None
