"""The settings: one file, a few environment variables, frozen structs. The only reader of both.

Nothing but `config init`, `up` and `demo` writes the file. Secrets come from the environment or from
the file that a `*_FILE` variable names, never from the settings file.
"""

import hashlib
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

import msgspec

from pipeline.errors import SettingsError
from pipeline.exchanges import EXCHANGES
from pipeline.spelling import advice, explain
from pipeline.streams import partitions
from pipeline.timeframes import DEFAULT_TIMEFRAMES, SECOND, WIDTHS

DEFAULT_PATH = Path("config") / "data_collection.json"
PATH_VARIABLE = "DATA_COLLECTION_CONFIG"
STATE_VARIABLE = "TAPELINE_STATE_DIR"

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=False):
    """A part of the file: unknown keys are refused."""


class TradingPair(Section, frozen=True, kw_only=True):
    """`symbol` is canonical (BTC-USDT-PERP) or the venue's own (BTC-USDT-SWAP), in either case."""

    symbol: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    enabled: bool = True
    data_types: tuple[str, ...] = ("trade",)
    timeframes: tuple[str, ...] = DEFAULT_TIMEFRAMES


class ExchangeSettings(Section, frozen=True, kw_only=True):
    """One exchange. `ws_url` and `rest_url` default to the venue's own; `partitions` is fixed when a
    namespace is first used."""

    enabled: bool = True
    trading_pairs: tuple[TradingPair, ...] = ()
    ws_url: str | None = None
    rest_url: str | None = None
    partitions: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class CollectionSettings(Section, frozen=True, kw_only=True):
    """`health_check_interval`, `max_silence_duration`, `reconnect_delay` in seconds. `reconnect_delay` is the
    first step of the backoff; `max_reconnect_attempts` the number after which status says degraded:
    connecting itself never gives up. `candle_grace` is how long after a window's end the clock alone
    may close it; quiet candles are emitted from `quiet_from` upwards. Order books show `book_depth` levels a side,
    at most once in `book_interval`; each `store_interval` one is stored."""

    health_check_interval: Seconds = 120.0
    max_silence_duration: Seconds = 300.0
    auto_restart: bool = True
    max_restart_attempts: Positive = 3
    max_reconnect_attempts: Positive = 5
    reconnect_delay: Seconds = 5.0
    candle_grace: Seconds = 1.0
    quiet_from: str = "1m"
    book_depth: Annotated[int, msgspec.Meta(ge=1, le=400)] = 20
    book_interval: Annotated[float, msgspec.Meta(ge=0.01, le=60)] = 0.1
    store_interval: Annotated[float, msgspec.Meta(ge=0.1, le=3_600)] = 1.0
    store_raw_data: bool = True


class LoggingSettings(Section, frozen=True, kw_only=True):
    """`log_errors_only` drops INFO of routine work; `verbose_data_logging` adds a line per step."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_errors_only: bool = False
    verbose_data_logging: bool = False


class RedisSettings(Section, frozen=True, kw_only=True):
    """Without REDIS_URL (or `url` without a password) a private server is run on `port` of loopback and
    a unix socket, with at most `maxmemory` bytes. `accept_eviction` allows a server that may evict."""

    url: str | None = None
    namespace: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$")] = "md"
    port: Port = 16379
    maxmemory: Annotated[int, msgspec.Meta(ge=64 * 1024 * 1024)] = 1024 * 1024 * 1024
    accept_eviction: bool = False


class PostgresSettings(Section, frozen=True, kw_only=True):
    """Without DATABASE_URL (or `url` without a password) a private server is run on `port` of loopback
    and a unix socket. `user` is whom that server runs as when Tapeline runs as root."""

    url: str | None = None
    database: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,62}$")] = "tapeline"
    port: Port = 15432
    user: str | None = None


class StoreSettings(Section, frozen=True, kw_only=True):
    """A batch is written at `batch_rows` rows or `batch_age` seconds, whichever comes first."""

    batch_rows: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 5_000
    batch_age: Seconds = 0.1


class DiskSettings(Section, frozen=True, kw_only=True):
    """What may wait on disk, in bytes: `spool_bytes` of raw frames of each exchange while Redis takes none (shared
    evenly by its partitions), `spill_bytes` of batches of store while Postgres is away."""

    spool_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024 * 1024)] = 4 * 1024 * 1024 * 1024
    spill_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024 * 1024)] = 16 * 1024 * 1024 * 1024


class RepairSettings(Section, frozen=True, kw_only=True):
    """Whether trades that were missed are fetched again from the exchange, and of how many `days` back at most (null:
    as far back as the exchange remembers)."""

    enabled: bool = True
    days: Positive | None = None


class RetentionDays(Section, frozen=True, kw_only=True):
    """For how many days each kind is kept in Postgres; null: for ever. Bars of less than a minute have a key of their
    own: they are fifty times the rows, and their partitions are days where those of the others are months."""

    trade: Positive | None = None
    quote: Positive | None = None
    orderbook: Positive | None = None
    ticker: Positive | None = None
    candle: Positive | None = None
    candle_seconds: Positive | None = None
    kline: Positive | None = None
    kline_seconds: Positive | None = None

    def given(self) -> dict[str, int]:
        """Kind to days, of the kinds that are not kept for ever."""
        return {kind: days for kind in self.__struct_fields__ if (days := getattr(self, kind)) is not None}


class RetentionSettings(Section, frozen=True, kw_only=True):
    """How long streams are kept for outside readers after all of ours have read them: at least
    `stream_seconds`, and at least `stream_entries` entries. `days`: how long rows are kept in Postgres."""

    stream_seconds: Positive = 900
    stream_entries: Positive = 1_000_000
    days: RetentionDays = RetentionDays()


class SettingsFile(Section, frozen=True, kw_only=True):
    """The file as written. `state_dir` (default `var` beside the file's folder) is the instance: its
    sockets, data, logs and locks."""

    exchanges: dict[str, ExchangeSettings]
    collection_settings: CollectionSettings = CollectionSettings()
    logging: LoggingSettings = LoggingSettings()
    redis: RedisSettings = RedisSettings()
    postgres: PostgresSettings = PostgresSettings()
    store: StoreSettings = StoreSettings()
    disk: DiskSettings = DiskSettings()
    repair: RepairSettings = RepairSettings()
    retention: RetentionSettings = RetentionSettings()
    simulated: bool = False
    state_dir: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a process runs on: the file, where it was found, and what the environment adds.

    `redis_url` and `database_url` are null when a private server of ours is to be used; they may hold
    passwords and must not be printed (see `redacted`)."""

    file: SettingsFile
    path: Path
    project: Path
    state_dir: Path
    redis_url: str | None
    database_url: str | None

    @property
    def namespace(self) -> str:
        return self.file.redis.namespace

    @property
    def run_dir(self) -> Path:
        """Folder of sockets, locks and heartbeats: in the state folder, or, where that path is too long
        for a unix socket (103 bytes on macOS, less supervisord's own suffix), a private folder named after it."""
        inside = self.state_dir / "run"
        if len(os.fsencode(inside)) <= 75:
            return inside
        digest = hashlib.sha256(os.fsencode(self.state_dir)).hexdigest()[:12]
        return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"tapeline-{os.getuid()}-{digest}"

    @property
    def heartbeat_dir(self) -> Path:
        return self.run_dir / "hb"

    @property
    def log_dir(self) -> Path:
        return self.state_dir / "log"

    def enabled_exchanges(self) -> dict[str, ExchangeSettings]:
        return {name: exchange for name, exchange in self.file.exchanges.items() if exchange.enabled}

    def partitions(self, exchange: str) -> tuple[str, ...]:
        return partitions(exchange, self.file.exchanges[exchange].partitions)

    def all_partitions(self) -> tuple[str, ...]:
        """Every partition of every enabled exchange."""
        return tuple(partition for name in self.enabled_exchanges() for partition in self.partitions(name))

    def processes(self) -> tuple[str, ...]:
        """Names of the processes these settings ask for, in the order in which they are started."""
        servers = [name for name, url in (("redis", self.redis_url), ("postgres", self.database_url)) if url is None]
        exchanges = self.enabled_exchanges()
        stages = [f"{stage}-{name}" for stage in ("normalize", "ingest") for name in exchanges]
        return (*servers, "store-0", "aggregate-0", *stages)

    def redis_address(self) -> str:
        """The URL to connect to: the given one, or our private server's socket."""
        return self.redis_url or f"unix://{quote(str(self.run_dir / 'redis.sock'))}"

    def database_address(self) -> str:
        """The conninfo URL to connect to: the given one, or our private server's socket and database."""
        if self.database_url:
            return self.database_url
        socket_dir = quote(str(self.run_dir / "postgres"), safe="")
        return f"postgresql://postgres@/{self.file.postgres.database}?host={socket_dir}&port={self.file.postgres.port}"


def project_folder() -> Path:
    """The checkout this program is installed in (its venv is `<checkout>/.venv`), else the current folder."""
    checkout = Path(sys.prefix).parent
    return checkout if (checkout / "supervisord.conf").is_file() else Path.cwd()


def settings_path(given: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the settings are: `-c`, else DATA_COLLECTION_CONFIG, else config/data_collection.json of the project."""
    if given is not None:
        return given.absolute()
    if variable := environ.get(PATH_VARIABLE):
        return Path(variable).absolute()
    return project_folder() / DEFAULT_PATH


def load(given: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads, checks and completes the settings. Raises SettingsError with what to do about it."""
    path = settings_path(given, environ)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise SettingsError(f"no settings at {path}: type `pipeline config init` to write them") from None
    except OSError as error:
        raise SettingsError(f"cannot read the settings at {path}: {error.strerror}") from error
    return complete(decode(text, path), path, environ)


def decode(text: bytes, path: Path) -> SettingsFile:
    """The file's structs. Raises SettingsError naming path, value and the nearest valid spelling."""
    try:
        tree = tomllib.loads(text.decode()) if path.suffix == ".toml" else msgspec.json.decode(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.DecodeError) as error:
        raise SettingsError(
            f"{path} is not readable {'TOML' if path.suffix == '.toml' else 'JSON'}: {error}"
        ) from error
    try:
        file = _structs(tree)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    _check(file, path)
    return file


def complete(file: SettingsFile, path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Adds what the environment says and fixes the folders. Raises SettingsError."""
    project = path.parent.parent if path.parent.name == "config" else path.parent
    state = environ.get(STATE_VARIABLE) or file.state_dir or "var"
    return Settings(
        file=_override(file, environ),
        path=path,
        project=project,
        state_dir=(project / state).absolute(),
        redis_url=_secret(environ, "REDIS_URL") or _redis_parts(environ) or file.redis.url,
        database_url=_secret(environ, "DATABASE_URL") or _postgres_parts(environ, file) or file.postgres.url,
    )


def redacted(url: str) -> str:
    """The URL (or libpq's `key=value` words) without its password, even one that holds an unescaped `@`."""
    hidden = re.sub(r"(//[^:/@]*):.*@", r"\1:***@", url)
    return re.sub(r"(password\s*=\s*)('(?:\\.|[^'])*'|[^&\s]+)", r"\1***", hidden, flags=re.IGNORECASE)


def schema() -> dict[str, Any]:
    """JSON Schema of the settings file."""
    return msgspec.json.schema(SettingsFile)


def default_file() -> SettingsFile:
    """What `config init` writes: BTC-USDT and ETH-USDT on OKX."""
    pairs = (TradingPair(symbol="BTC-USDT"), TradingPair(symbol="ETH-USDT"))
    return SettingsFile(exchanges={"okx": ExchangeSettings(trading_pairs=pairs)})


def encode(file: SettingsFile) -> bytes:
    """The file as `config init` writes it: JSON, indented, nulls left out."""
    tree = _without_nulls(msgspec.to_builtins(file))
    return msgspec.json.format(msgspec.json.encode(tree), indent=2) + b"\n"


def candle_grace(file: SettingsFile) -> int:
    """`candle_grace` in ns."""
    return round(file.collection_settings.candle_grace * SECOND)


def _without_nulls(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_nulls(value) for key, value in tree.items() if value is not None}
    return [_without_nulls(item) for item in tree] if isinstance(tree, list) else tree


_SECTIONS: dict[str, type[Section]] = {
    r"\$\.collection_settings": CollectionSettings,
    r"\$\.logging": LoggingSettings,
    r"\$\.redis": RedisSettings,
    r"\$\.postgres": PostgresSettings,
    r"\$\.store": StoreSettings,
    r"\$\.disk": DiskSettings,
    r"\$\.repair": RepairSettings,
    r"\$\.retention": RetentionSettings,
    r"\$\.retention\.days": RetentionDays,
    r"\$": SettingsFile,
}
_EXCHANGE_SECTIONS: dict[str, type[Section]] = {r"\$\.trading_pairs\[\d+\]": TradingPair, r"\$": ExchangeSettings}


def _structs(tree: Any) -> SettingsFile:
    """The tree as structs. Raises SettingsError. Exchanges one by one: msgspec does not say in which a fault is."""
    exchanges = tree.get("exchanges") if isinstance(tree, dict) else None
    for name, exchange in exchanges.items() if isinstance(exchanges, dict) else ():
        try:
            msgspec.convert(exchange, ExchangeSettings)
        except msgspec.ValidationError as error:
            raise SettingsError(explain(error, exchange, _EXCHANGE_SECTIONS, f"exchanges.{name}")) from error
    try:
        return msgspec.convert(tree, SettingsFile)
    except msgspec.ValidationError as error:
        raise SettingsError(explain(error, tree, _SECTIONS, "")) from error


def _check(file: SettingsFile, path: Path) -> None:
    """What the types cannot say."""
    for name, exchange in file.exchanges.items():
        known = EXCHANGES.get(name)
        if known is None:
            raise SettingsError(f"{path}: exchange {name!r} is not supported{advice(name, list(EXCHANGES))}")
        symbols: set[str] = set()
        for number, pair in enumerate(exchange.trading_pairs):
            where = f"{path}: exchanges.{name}.trading_pairs[{number}]"
            _check_words(f"{where}.data_types", pair.data_types, list(known.kinds))
            _check_words(f"{where}.timeframes", pair.timeframes, list(WIDTHS))
            if pair.symbol.upper() in symbols:
                raise SettingsError(f"{where}.symbol: {pair.symbol!r} is listed twice")
            symbols.add(pair.symbol.upper())
        for key, url in (("ws_url", exchange.ws_url), ("rest_url", exchange.rest_url)):
            _check_endpoint(f"{path}: exchanges.{name}.{key}", url, file)
    if not any(exchange.enabled and exchange.trading_pairs for exchange in file.exchanges.values()):
        raise SettingsError(f"{path}: no exchange is enabled with a trading pair: nothing would be collected")
    _check_words(f"{path}: collection_settings.quiet_from", (file.collection_settings.quiet_from,), list(WIDTHS))
    for section, url in (("redis", file.redis.url), ("postgres", file.postgres.url)):
        if url and urlsplit(url).password:
            variable = {"redis": "REDIS_URL", "postgres": "DATABASE_URL"}[section]
            raise SettingsError(f"{path}: {section}.url holds a password; give it in {variable} or {variable}_FILE")


def _check_words(where: str, words: tuple[str, ...], known: list[str]) -> None:
    for word in words:
        if word not in known:
            raise SettingsError(f"{where}: {word!r} is unknown{advice(word, known)}")


_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _check_endpoint(where: str, url: str | None, file: SettingsFile) -> None:
    """A live namespace refuses a simulator: it would mix invented trades with real ones."""
    local = url is not None and urlsplit(url).hostname in _LOOPBACK
    if local and not file.simulated:
        raise SettingsError(f"{where}: {url!r} is a simulator; set simulated to true and a namespace of its own")
    if file.simulated and file.redis.namespace == "md":
        raise SettingsError(f"{where}: a simulated instance needs a redis.namespace other than 'md'")


def _secret(environ: Mapping[str, str], name: str) -> str | None:
    """The variable, or the contents of the file that `<name>_FILE` names."""
    if value := environ.get(name):
        return value
    if path := environ.get(f"{name}_FILE"):
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise SettingsError(f"{name}_FILE: cannot read {path}: {error.strerror}") from error
    return None


def _redis_parts(environ: Mapping[str, str]) -> str | None:
    host = environ.get("REDIS_HOST")
    return f"redis://{host}:{environ.get('REDIS_PORT', '6379')}/0" if host else None


def _postgres_parts(environ: Mapping[str, str], file: SettingsFile) -> str | None:
    host = environ.get("POSTGRES_HOST")
    if not host:
        return None
    user = quote(environ.get("POSTGRES_USER", "postgres"), safe="")
    password = _secret(environ, "POSTGRES_PASSWORD")
    login = f"{user}:{quote(password, safe='')}" if password else user
    database = environ.get("POSTGRES_DB", file.postgres.database)
    return f"postgresql://{login}@{host}:{environ.get('POSTGRES_PORT', '5432')}/{database}"


VARIABLES: dict[str, tuple[str, str]] = {
    "LOG_LEVEL": ("logging", "level"),
    "HEALTH_CHECK_INTERVAL": ("collection_settings", "health_check_interval"),
    "MAX_SILENCE_DURATION": ("collection_settings", "max_silence_duration"),
    "MAX_RECONNECT_ATTEMPTS": ("collection_settings", "max_reconnect_attempts"),
    "RECONNECT_DELAY": ("collection_settings", "reconnect_delay"),
}
"""Environment variables of the seeds that override one key of the file each."""


def _override(file: SettingsFile, environ: Mapping[str, str]) -> SettingsFile:
    for variable, (section, key) in VARIABLES.items():
        if (value := environ.get(variable)) is None:
            continue
        current = getattr(file, section)
        tree = msgspec.to_builtins(current) | {key: value.upper() if key == "level" else value}
        try:
            changed = msgspec.convert(tree, type(current), strict=False)
        except msgspec.ValidationError as error:
            raise SettingsError(f"environment variable {variable}={value!r}: {error}") from error
        file = msgspec.structs.replace(file, **{section: changed})
    return file
