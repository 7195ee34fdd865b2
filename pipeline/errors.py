"""The one tree of errors, named by whose fault they are.

TapelineError
├── SettingsError      ours or the operator's: stop and say what to change (exit 2)
│   ├── Superseded         (ingest) a newer ingest writes: this one ends
│   └── SegmentsInUse      (segments) another process holds the folder
├── ExchangeError      theirs: back off and try again
├── DecodeError        this message's: dead-letter it, count it, go on
├── ServerAway         Redis or Postgres is out of reach or refuses for now: wait, keep, retry
│   └── PostgresAway       (store) the one of the two that is meant
├── SegmentsFull       (segments) a bound on disk is reached: nothing was written, make room
│   └── DiskFull           the disk itself has none
├── Forgotten          (ingest) Redis lost the raw stream: end, and tell it all anew with the next start
├── StepRefused        our transaction did not go through cleanly: restore, then go on
│   └── LeaseElsewhere     (worker) a process started later works here: stand by
├── TooManyFaults      (store) too much of a batch is unusable: nothing moves until a person looks
└── ContractBroken     a fault of ours in the data we share: stop, trust nothing in memory
"""


class TapelineError(Exception):
    """Root of every error Tapeline raises on purpose."""


class SettingsError(TapelineError):
    """The settings, the command line or the environment ask for something impossible."""


class ExchangeError(TapelineError):
    """The exchange refused, broke its protocol or went away."""


class DecodeError(TapelineError):
    """One frame cannot be decoded. `reason` is short and groups like cases together."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class ServerAway(TapelineError):
    """A server cannot be reached, timed out, or refuses writes for now (OOM, loading, read-only)."""


class StepRefused(TapelineError):
    """EXEC was not a clean answer: another owner committed first, or we cannot know what happened."""


class ContractBroken(TapelineError):
    """A command of ours failed inside EXEC, or a key has a type we did not write."""
