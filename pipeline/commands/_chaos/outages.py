"""The plan of `pipeline chaos --outages`: servers away for minutes, one alone and both at once. Pure."""

from pipeline.commands._chaos.plan import Planned

MINUTES = 15.0
"""How long it takes in full length; a shorter or longer run stretches every part of it."""
_AWAY = (("redis", 30.0, 120.0), ("postgres", 210.0, 600.0), ("redis", 450.0, 120.0))
"""(server, s after the start, s away): Redis alone; Postgres, and Redis once more in the midst of it."""


def outages(minutes: float) -> list[Planned]:
    """The plan for a run of so many minutes."""
    scale = minutes / MINUTES
    return [
        Planned(at=round(at * scale, 2), fault="away", target=server, seconds=round(seconds * scale, 2))
        for server, at, seconds in _AWAY
    ]
