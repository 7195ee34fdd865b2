"""The demo's own instance: a fresh folder, settings of its own on free ports, and an environment without ours.

It removes only what an earlier demo left in that very folder.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from pipeline import settings as settings_module
from pipeline.errors import SettingsError
from pipeline.exchanges import EXCHANGES
from pipeline.servers.folders import system_home
from pipeline.servers.ports import free_ports
from pipeline.servers.postgres import home_of
from pipeline.settings import (
    CollectionSettings,
    ExchangeSettings,
    PostgresSettings,
    RedisSettings,
    Settings,
    SettingsFile,
    TradingPair,
)
from pipeline.timeframes import TIMEFRAMES

NAMESPACE = "sim"
DATABASE = "tapeline_sim"
RECONNECT = 0.5
"""Seconds: the demo cuts connections on purpose and has no venue to be gentle to."""
Change = Callable[[SettingsFile], SettingsFile]
OTHERS = ("REDIS_", "DATABASE_", "POSTGRES_", "SUPERVISOR_")
"""Beginnings of variables that would lead the demo to somebody's real servers."""

WRITTEN = ("up.log", "plan.jsonl", "dealt.jsonl", "resources.jsonl", "audit.txt", "audit-spoilt.txt")
"""Files of a run beside its settings."""


class Folder(msgspec.Struct, frozen=True):
    """Where everything of one demo lies. `lock` is held while it runs."""

    path: Path
    lock: int

    @property
    def settings(self) -> Path:
        return self.path / "data_collection.json"

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def truth(self) -> Path:
        return self.path / "truth"


def take_folder(project: Path, given: Path | None = None, name: str = "demo") -> Folder:
    """The folder given, else `var/<name>` of the project, else a temporary one where that cannot be written; emptied
    of an earlier run. Raises SettingsError when it holds anything else, or when another run goes on there."""
    path = given.absolute() if given else project / "var" / name
    if path.is_dir() and any(path.iterdir()) and not (path / "lock").is_file():
        raise SettingsError(f"{path} holds something that no {name} wrote: name an empty or a new folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ".gitignore").write_text("*\n")
    except OSError as error:
        if given:
            raise SettingsError(f"cannot write into {path}: {error.strerror}") from error
        path = Path(tempfile.mkdtemp(prefix=f"tapeline-{name}-"))
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SettingsError(f"another {name} is running in {path}") from None
    folder = Folder(path, lock)
    clear(folder)
    return folder


def clear(folder: Folder) -> None:
    """Removes what a demo wrote, also where links of its servers lead (see `pipeline.servers.folders`)."""
    with contextlib.suppress(SettingsError):
        _clear_elsewhere(folder, settings_module.load(folder.settings, {}))
    for name in ("state", "truth", "slowdisk"):
        shutil.rmtree(folder.path / name, ignore_errors=True)
    for path in (folder.settings, *map(folder.path.joinpath, WRITTEN), *folder.path.glob("simulator-*.log")):
        path.unlink(missing_ok=True)


def _clear_elsewhere(folder: Folder, settings: Settings) -> None:
    places = {home_of(settings), (settings.run_dir / "postgres").resolve(), settings.run_dir, system_home(settings)}
    for place in places:
        if not place.is_relative_to(folder.path) and "tapeline" in str(place):
            shutil.rmtree(place, ignore_errors=True)


class Offer(NamedTuple):
    """What one exchange offers to be collected, and where."""

    symbols: tuple[str, ...]
    ws_url: str
    rest_url: str


def write_settings(folder: Folder, offers: Mapping[str, Offer], change: Change | None = None) -> Settings:
    """Writes the settings file, everything of every exchange, as `change` makes it; returns what a process will make
    of it."""
    redis_port, postgres_port = free_ports(2)
    file = SettingsFile(
        simulated=True,
        state_dir="state",
        exchanges={name: _collected(name, offer) for name, offer in offers.items()},
        collection_settings=CollectionSettings(reconnect_delay=RECONNECT),
        redis=RedisSettings(namespace=NAMESPACE, port=redis_port),
        postgres=PostgresSettings(database=DATABASE, port=postgres_port),
    )
    folder.settings.write_bytes(settings_module.encode(change(file) if change else file))
    settings = settings_module.load(folder.settings, {})
    # Of an earlier run whose folder somebody removed.
    _clear_elsewhere(folder, settings)
    return settings


def _collected(exchange: str, offer: Offer) -> ExchangeSettings:
    kinds = EXCHANGES[exchange].kinds
    pairs = (TradingPair(symbol=symbol, data_types=kinds, timeframes=TIMEFRAMES) for symbol in offer.symbols)
    return ExchangeSettings(trading_pairs=tuple(pairs), ws_url=offer.ws_url, rest_url=offer.rest_url)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for the demo's processes: ours, without what would change its settings."""
    ours = {settings_module.PATH_VARIABLE, settings_module.STATE_VARIABLE, *settings_module.VARIABLES}
    return {name: value for name, value in environ.items() if name not in ours and not name.startswith(OTHERS)}
