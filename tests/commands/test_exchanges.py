"""`pipeline exchanges`: what it claims is what the code collects, and docs/exchanges.md says the same."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ingest.feed import Feed
from normalize.mapper import load
from pipeline.cli import cli
from pipeline.commands._exchanges.capability import COLUMNS, capabilities
from pipeline.exchanges import EXCHANGES
from pipeline.records import KINDS
from pipeline.timeframes import TIMEFRAMES

PAGE = Path(__file__).parents[2] / "docs" / "exchanges.md"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["exchanges", *arguments])


def feed_of(name: str) -> Feed:
    import importlib

    feed: Feed = importlib.import_module(f"ingest.exchanges.{EXCHANGES[name].module}").Feed()
    return feed


def test_the_page_in_docs_is_what_the_code_says() -> None:
    assert PAGE.read_text() == run("--markdown").stdout, "type `pipeline exchanges --markdown > docs/exchanges.md`"


def test_the_matrix_has_every_exchange_and_kind() -> None:
    lines = run().stdout.splitlines()
    assert lines[0].split() == ["EXCHANGE", *(kind.upper() for kind in COLUMNS)]
    assert [line.split()[0] for line in lines[1:]] == list(EXCHANGES)
    assert max(map(len, lines)) <= 80
    # What is made of trades, not collected.
    assert set(COLUMNS) == set(KINDS) - {"gap", "rebuild"}


@pytest.mark.parametrize("name", EXCHANGES)
def test_what_is_claimed_is_subscribed_and_read(name: str) -> None:
    kinds = capabilities()[name]["kinds"]
    assert set(kinds) == {*EXCHANGES[name].kinds, "instrument"}
    feed, mapper = feed_of(name), load(EXCHANGES[name])
    assert {*kinds["trade"]["channels"], *kinds["candle"]["channels"]} <= mapper.trade_channels
    assert set(feed.channels("orderbook", ())) <= mapper.book_channels
    for kind in EXCHANGES[name].kinds:
        assert feed.channels(kind, TIMEFRAMES), kind
    assert set(kinds["kline"]["timeframes"]) <= set(TIMEFRAMES)


@pytest.mark.parametrize("name", EXCHANGES)
def test_one_exchange_in_detail(name: str) -> None:
    result = run(name.upper())
    assert result.exit_code == 0
    assert EXCHANGES[name].ws_url in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    document = json.loads(run(name, "--json").stdout)
    assert document == json.loads(run("--json").stdout)[name]
    assert document["limits"]["connects"]["count"] > 0


def test_an_unknown_exchange_is_2_with_the_nearest() -> None:
    result = run("binanse")
    assert result.exit_code == 2
    assert "'binance'" in result.stderr
