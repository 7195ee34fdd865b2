"""The exchanges Tapeline knows: names, modules, hosts (old ones too) and what each can give."""

from urllib.parse import urlsplit

import msgspec


class Exchange(msgspec.Struct, frozen=True):
    """One venue.

    `name` is its word everywhere outside Python, `module` the file name under every `*/exchanges/`.
    `hosts` are all hosts recordings of it may name, the retired ones too.
    `kinds` are the record kinds that can be collected from it. `traded` is its word for the status of an
    instrument that is being traded. `files_url` is where it publishes daily files of trades, null where it does not,
    or not so that they could be the same trades.
    """

    name: str
    module: str
    title: str
    ws_url: str
    rest_url: str
    hosts: frozenset[str]
    kinds: tuple[str, ...]
    traded: str
    files_url: str | None = None


EXCHANGES: dict[str, Exchange] = {
    exchange.name: exchange
    for exchange in (
        Exchange(
            name="okx",
            module="okx",
            title="OKX",
            # Port 443: OKX stopped answering on 8443 on 2026-10-31.
            ws_url="wss://ws.okx.com/ws/v5",
            rest_url="https://openapi.okx.com",
            hosts=frozenset(
                {
                    "ws.okx.com",
                    "wspap.okx.com",
                    "wseea.okx.com",
                    "wseeapap.okx.com",
                    "wsus.okx.com",
                    "wsuspap.okx.com",
                    "ws.okex.com",
                    "real.okex.com",
                    "real.okcoin.com",
                    "ws.okcoin.com",
                    "openapi.okx.com",
                    "www.okx.com",
                    "aws.okx.com",
                    "eea.okx.com",
                    "us.okx.com",
                    "www.okex.com",
                    "www.okcoin.com",
                }
            ),
            kinds=("trade", "candle", "orderbook", "quote", "ticker", "kline"),
            traded="live",
        ),
        Exchange(
            name="binance",
            module="binance",
            title="Binance spot",
            ws_url="wss://stream.binance.com",
            rest_url="https://api.binance.com",
            hosts=frozenset(
                {
                    "stream.binance.com",
                    "data-stream.binance.vision",
                    "stream.testnet.binance.vision",
                    "demo-stream.binance.com",
                    "api.binance.com",
                    "api-gcp.binance.com",
                    "api1.binance.com",
                    "api2.binance.com",
                    "api3.binance.com",
                    "api4.binance.com",
                    "data-api.binance.vision",
                    "data.binance.vision",
                    "testnet.binance.vision",
                    "demo-api.binance.com",
                    # Old recordings read depth from here.
                    "www.binance.com",
                }
            ),
            kinds=("trade", "candle", "orderbook", "quote", "ticker", "kline"),
            traded="TRADING",
            # OKX has files too, but spells their numbers as floats ("9.0" for 9), and tells `source` only in new ones.
            files_url="https://data.binance.vision",
        ),
    )
}


def exchange_of_connection(connection: str) -> Exchange | None:
    """The exchange a frame's `conn` names (`wss://ws.okx.com:8443/ws/v5/public#2`), or None."""
    host = urlsplit(connection).hostname
    for exchange in EXCHANGES.values():
        if host in exchange.hosts:
            return exchange
    return None
