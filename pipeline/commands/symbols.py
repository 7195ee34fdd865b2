"""`pipeline symbols`: the instruments of an exchange and how they are spelt, here and there."""

import asyncio
import json
from pathlib import Path
from typing import Any

import click
import msgspec
import redis.exceptions

from pipeline import settings, text
from pipeline.cli import FINDING, GOOD
from pipeline.commands._symbols.asking import ask
from pipeline.commands._symbols.choice import Choice
from pipeline.errors import DecodeError, ExchangeError, ServerAway, SettingsError
from pipeline.exchanges import EXCHANGES, Exchange
from pipeline.probes.redis import call, connect
from pipeline.records import Instrument
from pipeline.settings import Settings
from pipeline.spelling import advice
from pipeline.streams import Keys

MARKETS = ("spot", "perpetual", "future", "option")
_INSTRUMENT = msgspec.json.Decoder(Instrument)


@click.command()
@click.argument("exchange")
@click.argument("pattern", required=False)
@click.option("--market", type=click.Choice(MARKETS), help="Only of this market.")
@click.option("--all", "everything", is_flag=True, help="Those too that are not being traded now.")
@click.option("--rest", "by_rest", is_flag=True, help="Ask the exchange, whatever the pipeline knows.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON document: a list of instrument records.")
@click.pass_context
def symbols(
    ctx: click.Context,
    exchange: str,
    pattern: str | None,
    market: str | None,
    everything: bool,
    by_rest: bool,
    as_json: bool,
) -> None:
    """List the instruments of an exchange: our symbol, its own id, market, status, tick and lot.

    PATTERN is a symbol or a pattern as in the settings (*-USDT, BTC-*). What a running pipeline knows is shown; where
    none runs, or nothing of it fits, the exchange is asked. Options of OKX are listed by family: name it, as in
    BTC-USD-*-*-C.

    Exit code: 0, 1 when nothing fits, 2 for wrong usage, 3 when neither Redis nor the exchange answers.

    \b
    Examples:
      pipeline symbols okx
      pipeline symbols binance '*-USDT' --json
      pipeline symbols okx 'BTC-*' --market perpetual
    """
    known = EXCHANGES.get(exchange.lower())
    if known is None:
        raise SettingsError(f"no exchange {exchange!r}{advice(exchange, list(EXCHANGES))}")
    choice = Choice(pattern, market, everything)
    found, source = _find(_settings(ctx.obj), known, choice, by_rest)
    if as_json:
        click.echo(json.dumps([_document(record) for record in found], indent=2))
    else:
        click.echo("\n".join(_lines(found, known, pattern)))
        click.echo(f"from {source}", err=True)
    ctx.exit(GOOD if found else FINDING)


def _settings(config: Path | None) -> Settings | None:
    """The settings; None where there are none and none were named."""
    try:
        return settings.load(config)
    except SettingsError:
        if config is not None or settings.settings_path().exists():
            raise
        return None


def _find(given: Settings | None, exchange: Exchange, choice: Choice, by_rest: bool) -> tuple[list[Instrument], str]:
    """What is chosen, and who told it. Raises ServerAway when nobody does."""
    trouble = "no pipeline was asked"
    if given is not None and not by_rest:
        try:
            if found := choice.of(_running(given, exchange), exchange):
                return found, f"the running pipeline (namespace {given.namespace})"
            trouble = f"the pipeline of {given.path} knows none"
        except redis.exceptions.RedisError as error:
            trouble = f"Redis does not answer ({error})"
    rest_url = _rest_url(given, exchange)
    try:
        return choice.of(asyncio.run(ask(exchange, rest_url, choice.pattern)), exchange), rest_url
    except (ExchangeError, DecodeError) as error:
        raise ServerAway(f"no list of instruments of {exchange.name}: {trouble}; {error}") from error


def _running(given: Settings, exchange: Exchange) -> list[Instrument]:
    """What normalize knows. Raises redis.exceptions.RedisError."""
    wanted = given.file.exchanges.get(exchange.name)
    if wanted is None:
        return []
    client = connect(given, timeout=5.0)
    try:
        found: dict[str, Instrument] = {}
        for partition in given.partitions(exchange.name):
            saved: dict[bytes, bytes] = call(client, "HGETALL", Keys(given.namespace, partition).last("instrument"))
            records = map(_INSTRUMENT.decode, saved.values())
            found |= {record.instrument: record for record in records}
        return list(found.values())
    finally:
        client.close()


def _rest_url(given: Settings | None, exchange: Exchange) -> str:
    wanted = given.file.exchanges.get(exchange.name) if given else None
    return (wanted.rest_url if wanted else None) or exchange.rest_url


def _document(record: Instrument) -> dict[str, Any]:
    """Every field, those at their default too."""
    return {field.name: getattr(record, field.name) for field in msgspec.structs.fields(record)}


def _lines(found: list[Instrument], exchange: Exchange, pattern: str | None) -> list[str]:
    if not found:
        hint = f"; try '*{pattern}*'" if pattern and not set(pattern) & set("*?[") else ""
        return [f"no instrument of {exchange.name} fits{hint}"]
    rows = [
        (
            record.symbol,
            record.instrument if record.instrument != record.symbol else text.NOTHING,
            record.market,
            record.status,
            record.tick_size or text.NOTHING,
            record.lot_size or text.NOTHING,
        )
        for record in found
    ]
    return text.table(("SYMBOL", "OWN ID", "MARKET", "STATUS", "TICK", "LOT"), rows, left=4)
