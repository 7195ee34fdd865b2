"""Option types that several commands share."""

import re
from typing import Any

import click

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class Duration(click.ParamType[float]):
    """`90`, `45s`, `10m`, `1h30m`, `7d`, `2w`: a length of time in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds. Refuses what is not a length of time."""
        if isinstance(value, float):
            return value
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", value)
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value)
        if not parts or "".join(map("".join, parts)) != value:
            self.fail(f"{value!r} is not a length of time like 45s, 10m, 1h30m or 7d", param, ctx)
        return sum(float(amount) * _UNITS[unit] for amount, unit in parts)


DURATION = Duration()
