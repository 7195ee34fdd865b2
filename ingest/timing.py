"""Every interval and bound of ingest in one place; tests give shorter ones."""

import msgspec

from pipeline.timeframes import HOUR, MINUTE, SECOND

MILLISECOND = 1_000_000


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Times in ns, `buffer` in bytes. `silence` and `deadline` override the feed's keepalive, `lifetime` its own;
    `mute` is how long a subscription may stay without data before it is asked for again while its pace is not known,
    `brisk` the least, however fast it is; `behind` how long a connection is
    kept beside one that has shown to carry the same; `wants` how often what is
    wanted is read although nothing woke us; `rest_lag` the first pause before a page is asked for again that did not
    reach what it should; `repair_patience` how long a repair bears with an exchange that gives no page. A daily file
    is fetched where pages would take longer than `file_over`, in at most `file_total`, not again within `file_retry`;
    at most `file_pace` of its trades go into the raw stream a second. Frames that Redis has not taken for
    `spool_after`, or more than `spool_over` bytes of them, go to disk; each `spool_tick` we look."""

    tick: int = 250 * MILLISECOND
    linger: int = 5 * MILLISECOND
    keep: int = 5 * SECOND
    buffer: int = 64 * 1024 * 1024
    redis_timeout: int = 5 * SECOND
    redis_pause: int = SECOND
    flush: int = 10 * SECOND
    spool_after: int = 2 * SECOND
    spool_over: int = 8 * 1024 * 1024
    spool_tick: int = 100 * MILLISECOND
    silence: int | None = None
    deadline: int | None = None
    lifetime: int | None = None
    patience: int = 5 * SECOND
    mute: int = 300 * SECOND
    brisk: int = 15 * SECOND
    first_delay: int = 5 * SECOND
    most_delay: int = MINUTE
    stable: int = 10 * SECOND
    overlap: int = 20 * SECOND
    behind: int = 2 * SECOND
    handshake: int = 10 * SECOND
    farewell: int = SECOND
    rest_timeout: int = 10 * SECOND
    rest_patience: int = 30 * SECOND
    rest_retry: int = 5 * SECOND
    rest_lag: int = SECOND
    repair_patience: int = 10 * MINUTE
    listings: int = HOUR
    clock: int = 10 * MINUTE
    wants: int = 30 * SECOND
    file_over: int = 5 * MINUTE
    file_retry: int = HOUR
    file_total: int = HOUR
    file_pace: int = 10_000
