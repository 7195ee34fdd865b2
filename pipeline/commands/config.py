"""`pipeline config`: write, check and show the settings. Prints no secret."""

import importlib
import json
import os
from pathlib import Path
from typing import Any

import click
import msgspec

from pipeline import settings
from pipeline.errors import SettingsError
from pipeline.exchanges import EXCHANGES
from pipeline.timeframes import TIMEFRAMES


def _words(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


@click.group()
def config() -> None:
    """Write, check and show the settings.

    \b
    Examples:
      pipeline config init
      pipeline -c /srv/btc/data_collection.json config init
      pipeline config check
      pipeline config show --json
    """


@config.command()
@click.option("--exchange", "exchanges", multiple=True, type=click.Choice(sorted(EXCHANGES)), help="Default: okx.")
@click.option("--symbol", "symbols", multiple=True, help="Symbol or pattern (*-USDT). Default: BTC-USDT, ETH-USDT.")
@click.option("--types", callback=_words, help="Data types, e.g. trade,orderbook,quote. Default: trade.")
@click.option("--force", is_flag=True, help="Replace a file that is already there.")
@click.pass_context
def init(
    ctx: click.Context, exchanges: tuple[str, ...], symbols: tuple[str, ...], types: tuple[str, ...], force: bool
) -> None:
    """Write settings: without options BTC-USDT and ETH-USDT from OKX.

    --exchange and --symbol may be given more than once; `pipeline exchanges` shows the data types, `pipeline symbols`
    the symbols. A file that is there already is kept, unless --force is given.

    \b
    Examples:
      pipeline config init
      pipeline config init --exchange okx --exchange binance --symbol '*-USDT' --types trade,orderbook
      pipeline -c other.json config init --force
    """
    path = settings.settings_path(ctx.obj)
    if path.suffix == ".toml":
        raise SettingsError(f"{path}: settings are written as JSON; TOML is only read")
    written = settings.encode(_file(exchanges, symbols, types))
    file = settings.decode(written, path)
    _check_pairs(file, path)
    _write(path, written, force)
    click.echo(f"wrote {path}")
    for line in _collected(file):
        click.echo(f"will collect {line}")
    click.echo("start it with `pipeline up`")


@config.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.pass_context
def check(ctx: click.Context, file: Path | None) -> None:
    """Check the settings before anything starts (exit 2 and the reason when they are wrong).

    FILE is the file to check; without it, the one `pipeline` would use.

    \b
    Examples:
      pipeline config check
      pipeline config check new.json && cp new.json config/data_collection.json
    """
    given = settings.load(file or ctx.obj)
    _check_pairs(given.file, given.path)
    click.echo(f"{given.path}: good")
    for line in _collected(given.file):
        click.echo(f"collects {line}")
    click.echo("whether the exchange lists a symbol shows when it runs; `pipeline symbols EXCHANGE PATTERN` asks now")
    click.echo(f"processes: {' '.join(given.processes())}")


@config.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON document.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the settings file instead.")
@click.pass_context
def show(ctx: click.Context, as_json: bool, schema: bool) -> None:
    """Show the settings in effect: the file, its defaults and the environment. Passwords are hidden.

    \b
    Examples:
      pipeline config show
      pipeline config show --json
      pipeline config show --schema > data_collection.schema.json
    """
    if schema:
        click.echo(json.dumps(settings.schema(), indent=2))
        return
    effective = _effective(settings.load(ctx.obj))
    if as_json:
        click.echo(json.dumps(effective, indent=2))
        return
    tree = effective.pop("settings")
    for key, value in effective.items():
        click.echo(f"{key:<14} {' '.join(value) if isinstance(value, list) else value}")
    click.echo(json.dumps(tree, indent=2))


def _write(path: Path, text: bytes, force: bool) -> None:
    """Creates the file, whole or not at all, and never over another one unless forced."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(text)
        try:
            _put(fresh, path, force)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error


def _put(fresh: Path, path: Path, force: bool) -> None:
    if force:
        os.replace(fresh, path)
        return
    try:
        os.link(fresh, path)
    except FileExistsError:
        raise SettingsError(f"{path} is there already and was kept; --force replaces it") from None


def _file(exchanges: tuple[str, ...], symbols: tuple[str, ...], types: tuple[str, ...]) -> settings.SettingsFile:
    """The default file, with what was asked for in place of its pairs."""
    default = settings.default_file()
    if not (exchanges or symbols or types):
        return default
    pairs = tuple(
        settings.TradingPair(symbol=symbol, data_types=types or ("trade",))
        for symbol in symbols or ("BTC-USDT", "ETH-USDT")
    )
    wanted = settings.ExchangeSettings(trading_pairs=pairs)
    return msgspec.structs.replace(default, exchanges=dict.fromkeys(exchanges or ("okx",), wanted))


def _check_pairs(file: settings.SettingsFile, path: Path) -> None:
    """What only those know who speak to the exchange: one instrument spelt twice, klines it does not have. Raises
    SettingsError."""
    from ingest.symbols import Symbols

    for name, exchange in file.exchanges.items():
        feed = importlib.import_module(f"ingest.exchanges.{EXCHANGES[name].module}").Feed()
        try:
            Symbols(feed, exchange.trading_pairs)
        except SettingsError as error:
            raise SettingsError(f"{path}: exchanges.{name}.{error}") from error
        for number, pair in enumerate(exchange.trading_pairs):
            if pair.enabled and "kline" in pair.data_types and not feed.channels("kline", pair.timeframes):
                known = " ".join(timeframe for timeframe in TIMEFRAMES if feed.channels("kline", (timeframe,)))
                where = f"{path}: exchanges.{name}.trading_pairs[{number}].timeframes"
                raise SettingsError(f"{where}: {name} has klines of {known} only")


def _collected(file: settings.SettingsFile) -> list[str]:
    """One line for each pair that is enabled."""
    return [
        f"{name} {pair.symbol}{' (a pattern)' if set(pair.symbol) & set('*?[') else ''}: {' '.join(pair.data_types)}"
        f"{_bars(pair)}"
        for name, exchange in file.exchanges.items()
        if exchange.enabled
        for pair in exchange.trading_pairs
        if pair.enabled
    ]


def _bars(pair: settings.TradingPair) -> str:
    """Time frames, where something is made or asked for in them."""
    names = [name for name, kinds in (("candles", ("trade", "candle")), ("klines", ("kline",))) if _any(pair, kinds)]
    return f"; {' and '.join(names)} {' '.join(pair.timeframes)}" if names else ""


def _any(pair: settings.TradingPair, kinds: tuple[str, ...]) -> bool:
    return not set(kinds).isdisjoint(pair.data_types)


def _effective(given: settings.Settings) -> dict[str, Any]:
    """Where things are and what is in force, without passwords."""
    tree = msgspec.to_builtins(given.file)
    for section in ("redis", "postgres"):
        if tree[section]["url"]:
            tree[section]["url"] = settings.redacted(tree[section]["url"])
    return {
        "config_file": str(given.path),
        "state_dir": str(given.state_dir),
        "run_dir": str(given.run_dir),
        "log_dir": str(given.log_dir),
        "namespace": given.namespace,
        "redis": settings.redacted(given.redis_address()),
        "postgres": settings.redacted(given.database_address()),
        "processes": list(given.processes()),
        "settings": tree,
    }
