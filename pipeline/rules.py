"""The table of what can be found wrong: each rule has a level for the process it concerns and one for the whole.

docs/status.md carries the same table.
"""

from typing import Literal, NamedTuple

import msgspec

Level = Literal["healthy", "notice", "degraded", "unhealthy", "stopped"]
LEVELS: tuple[Level, ...] = ("healthy", "notice", "degraded", "unhealthy", "stopped")


class Rule(NamedTuple):
    """`process` and `overall` are the levels a finding gives to its process and to the whole."""

    process: Level
    overall: Level
    when: str


RULES: dict[str, Rule] = {
    "service_stopped": Rule("stopped", "stopped", "supervisord does not answer and no process beats"),
    "too_many_failed_collectors": Rule("unhealthy", "unhealthy", "more than half of the expected processes failed"),
    "nothing_collected": Rule("unhealthy", "unhealthy", "every ingest process failed"),
    "supervisor_away": Rule("degraded", "degraded", "processes beat but supervisord does not answer"),
    "not_running": Rule("unhealthy", "degraded", "an expected process is stopped or has exited"),
    "failing": Rule("unhealthy", "degraded", "a process ends again and again (BACKOFF, FATAL)"),
    "parked": Rule("unhealthy", "degraded", "the watchdog gave up restarting it quickly"),
    "hung": Rule("unhealthy", "degraded", "no heartbeat for 10 s from a running process"),
    "stalled": Rule(
        "unhealthy", "degraded", "a process beats and waits for nothing, but does nothing although it should"
    ),
    "starting": Rule("degraded", "degraded", "a process has just been started"),
    "stopping": Rule("degraded", "degraded", "a process is being stopped"),
    "restarts": Rule("degraded", "degraded", "restarted max_restart_attempts times in a row or more"),
    "waiting": Rule("degraded", "degraded", "a process waits for a server, an exchange or a lease"),
    "reconnecting": Rule("degraded", "degraded", "a connection failed max_reconnect_attempts times in a row"),
    "no_data": Rule("unhealthy", "unhealthy", "every subscription of an exchange is silent"),
    "silent": Rule(
        "degraded", "degraded", "no order book or ticker, or nothing on a whole connection, for max_silence_duration"
    ),
    "refused": Rule("degraded", "degraded", "the exchange refused a subscription"),
    "not_subscribed": Rule("degraded", "degraded", "a pair of the settings is not subscribed 30 s after the start"),
    "no_match": Rule("degraded", "degraded", "a pattern of the settings matches no instrument that is traded"),
    "book_invalid": Rule("degraded", "degraded", "an order book is not valid for over 10 s"),
    "want_old": Rule(
        "degraded", "degraded", "a book is wanted for over 60 s, or trades are forgotten before they can be fetched"
    ),
    "open_gaps": Rule("degraded", "degraded", "trades known by number to be missing"),
    "clock_skew": Rule("degraded", "degraded", "this host's clock is over 500 ms from the exchange's"),
    "dead_letters": Rule("degraded", "degraded", "frames in the last hour that could not be decoded"),
    "redis_away": Rule("unhealthy", "unhealthy", "Redis does not answer"),
    "redis_memory": Rule("degraded", "degraded", "Redis uses over 60 % of its budget"),
    "reader_lost": Rule("degraded", "degraded", "within a day a consumer group of others lost what it had not read"),
    "reader_behind": Rule("notice", "notice", "a consumer group of others holds over 10 % of Redis' memory"),
    "redis_evicts": Rule("degraded", "degraded", "Redis may evict entries (maxmemory-policy is not noeviction)"),
    "redis_version": Rule("degraded", "degraded", "Redis is older than 7.0"),
    "redis_volatile": Rule("notice", "notice", "Redis writes nothing to disk: its crash loses what is not yet stored"),
    "postgres_away": Rule("unhealthy", "degraded", "Postgres does not answer"),
    "spill_full": Rule("degraded", "degraded", "store can put no more on disk while Postgres is away, so Redis fills"),
    "disk": Rule("degraded", "degraded", "less than 2 GiB of disk free for the state folder"),
    "disk_forecast": Rule("degraded", "degraded", "the disk of the database will be full within 7 days"),
    "unexpected": Rule("notice", "notice", "a process runs that the settings do not ask for"),
}


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One finding. `subject` is what it is about, `process` the process it belongs to (None: the whole), `since`
    (ns) when it began or was first seen."""

    code: str
    subject: str
    text: str
    process: str | None = None
    since: int | None = None

    @property
    def level(self) -> Level:
        """What it does to the whole."""
        return RULES[self.code].overall
