"""The time an audit is about: whole UTC days, or from a moment to a moment. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Self

from pipeline.errors import SettingsError

DAY = timedelta(days=1)


class Period(NamedTuple):
    """[start, end), both in UTC."""

    start: datetime
    end: datetime

    @classmethod
    def asked(cls, day: str | None, since: str | None, until: str | None, now: datetime) -> Self:
        """What the options say: a day, or a range (to now where it has no end); yesterday and today without any.
        Raises SettingsError."""
        midnight = _midnight(now)
        if day is not None:
            if since or until:
                raise SettingsError("--day is a range of its own: give it without --from and --to")
            start = _day(day, midnight)
            return cls(start, start + DAY)
        if until and not since:
            raise SettingsError("--to needs --from")
        start = _moment(since, "--from", midnight) if since else midnight - DAY
        end = _moment(until, "--to", midnight) if until else midnight + DAY if not since else now
        if start >= end:
            raise SettingsError(f"--from {start:%Y-%m-%d %H:%M:%S} is not before --to {end:%Y-%m-%d %H:%M:%S}")
        return cls(start, end)

    def days(self) -> Iterator["Period"]:
        """Its parts, cut at midnights."""
        start = self.start
        while start < self.end:
            end = min(self.end, _midnight(start) + DAY)
            yield Period(start, end)
            start = end

    @property
    def name(self) -> str:
        """`2026-11-20` of a whole day, else both ends."""
        if self.start == _midnight(self.start) and self.end == self.start + DAY:
            return f"{self.start:%Y-%m-%d}"
        return f"{_text(self.start)} to {_text(self.end)}"


def _text(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="auto").removesuffix("+00:00")


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _day(text: str, midnight: datetime) -> datetime:
    named = {"today": midnight, "yesterday": midnight - DAY}
    if text in named:
        return named[text]
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise SettingsError(f"--day {text!r} is no day: 2026-11-20, today or yesterday") from None


def _moment(text: str, option: str, midnight: datetime) -> datetime:
    """ISO 8601; UTC where it names no zone."""
    if text in ("today", "yesterday"):
        return _day(text, midnight)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            f"{option} {text!r} is no time: 2026-11-20, 2026-11-20T12:00 or 2026-11-20T12:00Z"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
