"""docs/configuration.md says of every setting and variable what the code does."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline import settings
from pipeline.servers import binary

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "The top level": settings.SettingsFile,
    "`exchanges.<name>`": settings.ExchangeSettings,
    "`exchanges.<name>.trading_pairs[]`": settings.TradingPair,
    "`collection_settings`": settings.CollectionSettings,
    "`logging`": settings.LoggingSettings,
    "`redis`": settings.RedisSettings,
    "`postgres`": settings.PostgresSettings,
    "`store`": settings.StoreSettings,
    "`disk`": settings.DiskSettings,
    "`repair`": settings.RepairSettings,
    "`retention`": settings.RetentionSettings,
    "`retention.days`": settings.RetentionDays,
}


def rows(title: str) -> dict[str, str]:
    """Key to default of the table under a heading."""
    part = PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", part, re.MULTILINE))


def shown(default: Any) -> str:
    """A default as the page spells it."""
    if default is msgspec.NODEFAULT:
        return "required"
    if isinstance(default, msgspec.Struct):
        return "all defaults"
    if default in (None, ()):
        return "none"
    return f"`{msgspec.json.encode(default).decode().replace(',', ', ')}`"


@pytest.mark.parametrize(("title", "section"), tuple(SECTIONS.items()), ids=tuple(SECTIONS))
def test_every_setting_stands_in_its_table_with_its_default(title: str, section: type[msgspec.Struct]) -> None:
    assert rows(title) == {field.encode_name: shown(field.default) for field in msgspec.structs.fields(section)}


def test_every_section_has_a_table() -> None:
    known = {section for section in vars(settings).values() if isinstance(section, type)}
    ours = {one for one in known if issubclass(one, settings.Section) and one is not settings.Section}
    assert ours == set(SECTIONS.values())


@pytest.mark.parametrize(
    "variable",
    [
        settings.PATH_VARIABLE,
        settings.STATE_VARIABLE,
        binary.REDIS_VARIABLE,
        binary.POSTGRES_VARIABLE,
        *settings.VARIABLES,
        *re.findall(r'"((?:REDIS|DATABASE|POSTGRES|XDG)_[A-Z_]+)"', Path(settings.__file__).read_text()),
    ],
)
def test_every_variable_is_named(variable: str) -> None:
    assert f"`{variable}`" in PAGE


def test_the_example_is_accepted() -> None:
    example = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    file = settings.decode(example[1].encode(), Path("example.json"))
    assert [pair.symbol for pair in file.exchanges["okx"].trading_pairs] == ["BTC-USDT", "BTC-USDT-PERP"]
