"""What is known of instruments, from lists or before any list; whose a symbol is."""

from typing import Any

import msgspec

from normalize.catalogue import UNLISTED, Catalogue
from pipeline.records import Instrument, Quote
from tests.normalize.booking import LINEAR, SPOT

NAMED: dict[str, Any] = {"exchange": "binance", "market": "spot", "time": None, "received": 5}


def test_what_a_record_tells_is_kept_until_a_list_tells_more() -> None:
    catalogue = Catalogue({})
    catalogue.know(Quote(**NAMED, symbol="BTC-USDT", instrument="BTCUSDT"))
    known = catalogue.instruments["BTCUSDT"]
    assert (known.base, known.quote, known.status, known.received) == ("BTC", "USDT", UNLISTED, 5)
    listed = Instrument(**NAMED, symbol="BTC-USDT", instrument="BTCUSDT", base="BTC", quote="USDT", status="TRADING")
    assert catalogue.take(listed) == listed
    catalogue.know(Quote(**NAMED, symbol="OTHER", instrument="BTCUSDT"))
    assert catalogue.instruments["BTCUSDT"] == listed


def test_an_instrument_that_a_mapper_made_is_kept_as_it_is_but_not_as_listed() -> None:
    catalogue = Catalogue({})
    catalogue.know(LINEAR)
    assert catalogue.instruments["BTC-USDT-SWAP"] == msgspec.structs.replace(LINEAR, status=UNLISTED)
    assert catalogue.changed == {"BTC-USDT-SWAP"}
    assert catalogue.take(LINEAR) == LINEAR


def test_nothing_new_is_nothing_to_emit() -> None:
    catalogue = Catalogue({})
    assert catalogue.take(SPOT) == SPOT
    assert catalogue.take(msgspec.structs.replace(SPOT, received=SPOT.received + 1)) is None
