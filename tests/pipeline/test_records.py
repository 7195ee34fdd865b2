"""Records on the wire: what stands at its default is left out, unknown fields are ignored, the schema is true."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from pipeline import records
from pipeline.records import Candle, CandleSettings, Clock, Coverage, DeadLetter, Gap, Instrument, Trade
from pipeline.schema import publish

HEADER: dict[str, Any] = {
    "exchange": "okx",
    "market": "perpetual",
    "symbol": "BTC-USDT-PERP",
    "instrument": "BTC-USDT-SWAP",
    "time": 1_791_369_350_776_000_000,
    "received": 1_791_369_350_776_123_456,
}
SCHEMAS = Path(__file__).parent.parent.parent / "docs" / "schema"
SAMPLES: list[msgspec.Struct] = [
    Trade(**HEADER, id="2978601964", sequence=2978601964, price="83725.9", size="0.05", side="buy", contracts="5"),
    Trade(**HEADER, id="1", sequence=1, price="1", size="1", side="sell", conditions=("rpi",), epoch=1, repaired=True),
    Candle(
        **HEADER,
        timeframe="1m",
        open_time=0,
        close_time=60_000_000_000,
        open="1",
        high="2",
        low="0.5",
        close="1",
        volume="10",
        quote_volume="12.5",
        buy_volume="0",
        buy_quote_volume="0",
        trades_count=3,
        quality="partial",
        missing=5,
        revision=2,
    ),
    Instrument(**HEADER, base="BTC", quote="USDT", status="live", contract="linear", contract_value="0.01"),
    Gap(
        **HEADER,
        epoch=0,
        from_sequence=5,
        to_sequence=9,
        from_time=1,
        to_time=2,
        cause="sequence",
        state="shrunk",
        repaired=1,
        remaining=((6, 9),),
    ),
    Coverage(**HEADER, state="covered", cause="open", connection="ws#1", candles=CandleSettings(timeframes=("1s",))),
    Clock(exchange="okx", time=None, received=1, connections={"ws#1": 5}),
    DeadLetter(
        exchange="okx",
        stage="normalize",
        reason="r",
        detail="d",
        received=None,
        entry="1-1",
        frame="{",
        length=1,
        sha256="0",
    ),
]


@pytest.mark.parametrize("record", SAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_and_fits_the_schema(record: msgspec.Struct) -> None:
    text = records.encode(record)
    assert msgspec.json.decode(text, type=type(record)) == record
    schema = records.schema()
    jsonschema.validate(json.loads(text), {**schema, "$ref": f"#/$defs/{type(record).__name__}"})


def test_a_float_or_an_exponent_does_not_fit_the_schema() -> None:
    schema = {**records.schema(), "$ref": "#/$defs/Trade"}
    tree = json.loads(records.encode(SAMPLES[0]))
    for wrong in (1.5, "1E-8", "1.", "NaN"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**tree, "price": wrong}, schema)


def test_defaults_are_left_out_and_unknown_fields_ignored() -> None:
    tree = json.loads(records.encode(SAMPLES[0]))
    assert not {"epoch", "fills", "repaired", "conditions", "first_sequence"} & set(tree)
    assert msgspec.json.decode(json.dumps({**tree, "added_later": 1}), type=Trade) == SAMPLES[0]


def test_a_price_is_not_taken_from_a_number() -> None:
    tree = json.loads(records.encode(SAMPLES[0]))
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps({**tree, "price": 83725.9}), type=Trade)


@pytest.mark.parametrize("name", ["records.json", "settings.json"])
def test_the_published_schemas_are_those_of_the_structs(name: str, tmp_path: Path) -> None:
    """Regenerate with `python -m pipeline.schema docs/schema` after a change of the contract; read the difference."""
    publish(tmp_path)
    assert (SCHEMAS / name).read_text() == (tmp_path / name).read_text()
