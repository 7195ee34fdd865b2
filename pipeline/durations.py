"""Durations as people type them: 8h, 90m, 1h30m, 45s, 2d."""

import re

from pipeline.errors import SettingsError

UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def seconds(text: str) -> float:
    """Seconds. Raises SettingsError."""
    if not re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text):
        raise SettingsError(f"{text!r} is not a duration: write it as 8h, 90m, 1h30m or 45s")
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)([dhms])", text))
