"""The rules of the house, checked on the source: who may import whom, where I/O may live, what must be documented."""

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline import settings
from pipeline.exchanges import EXCHANGES
from pipeline.records import CONTROLS, KINDS
from pipeline.streams import READERS

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipeline", "ingest", "normalize", "aggregate", "store", "simulator", "bench")
STAGES = ("ingest", "normalize", "aggregate", "store")
CONTRACT = (
    "errors",
    "records",
    "frames",
    "streams",
    "wants",
    "exchanges",
    "instruments",
    "timeframes",
    "settings",
    "spelling",
    "steps",
)
IO_MODULES = {"redis", "websockets", "aiohttp", "psycopg", "asyncio", "time", "socket", "hiredis", "random"}
BANNED_WORDS = {"manager", "handler", "helper", "helpers", "utils", "util", "base", "factory", "common", "misc"}
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def test_there_is_something_to_check() -> None:
    assert {package_of(path) for path in SOURCES} == set(PACKAGES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_dependency_rule(path: Path) -> None:
    package = package_of(path)
    in_commands = path.is_relative_to(ROOT / "pipeline" / "commands")
    ours = {name.split(".")[0] for name in imports(path)} & set(PACKAGES)
    if in_commands:
        at_top = {name.split(".")[0] for name in imports(path, top_level_only=True)} & set(PACKAGES)
        assert at_top <= {"pipeline"}, "commands import stages inside the function that needs them"
    elif package == "bench":
        # It measures them all; the market it feeds them must not share a fault with the simulator's, nor be its.
        assert "simulator" not in ours
    else:
        assert ours <= {"pipeline", package}
    if package == "pipeline" and not in_commands:
        assert not ours & {*STAGES, "simulator"}


@pytest.mark.parametrize("path", [p for p in SOURCES if package_of(p) == "simulator"], ids=lambda p: p.stem)
def test_simulator_knows_only_the_contract(path: Path) -> None:
    for name in imports(path):
        if name.startswith("pipeline."):
            assert name.split(".")[1] in CONTRACT


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if p.parent.name == "exchanges" and package_of(p) in (*STAGES, "simulator")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_exchange_modules_do_no_io(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & IO_MODULES


@pytest.mark.parametrize("name", CONTRACT)
def test_contract_modules_need_only_the_standard_library_and_msgspec(name: str) -> None:
    foreign = {"redis", "websockets", "aiohttp", "psycopg", "click", "rich", "uvloop", "hiredis", "supervisor"}
    assert not {module.split(".")[0] for module in imports(ROOT / "pipeline" / f"{name}.py")} & foreign


@pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=lambda exchange: exchange.name)
def test_an_exchange_is_a_file_in_every_layer(exchange: object) -> None:
    module = getattr(exchange, "module")  # noqa: B009
    for package in ("ingest", "normalize", "simulator"):
        assert (ROOT / package / "exchanges" / f"{module}.py").is_file()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_an_exchange_has_its_stanzas(exchange: str) -> None:
    text = (ROOT / "supervisord.conf").read_text()
    for stage in ("normalize", "ingest"):
        assert f"[program:{stage}-{exchange}]\ncommand=pipeline run {stage}-{exchange}\n" in text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_named_by_a_noun_and_documented(path: Path) -> None:
    assert not set(path.stem.strip("_").split("_")) & BANNED_WORDS
    assert ast.get_docstring(ast.parse(path.read_text())), "a module says what it is for"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_settings_reads_the_environment(path: Path) -> None:
    if path.name in ("settings.py",) or path.is_relative_to(ROOT / "pipeline" / "commands"):
        return
    if path == ROOT / "bench" / "__main__.py":
        return
    text = path.read_text()
    assert "os.environ" not in text or "SUPERVISOR_SERVER_URL" in text or "TAPELINE_" in text
    assert "os.getenv" not in text


def test_every_command_is_documented() -> None:
    docs = "\n".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    for path in (ROOT / "pipeline" / "commands").glob("[!_]*.py"):
        assert f"pipeline {path.stem.replace('_', '-')}" in docs, f"pipeline {path.stem} is not documented"


def setting_names(section: type[msgspec.Struct]) -> Iterator[str]:
    for field in msgspec.structs.fields(section):
        yield field.encode_name


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    sections = (
        settings.SettingsFile,
        settings.ExchangeSettings,
        settings.TradingPair,
        settings.CollectionSettings,
        settings.LoggingSettings,
        settings.RedisSettings,
        settings.PostgresSettings,
        settings.StoreSettings,
        settings.RetentionSettings,
    )
    missing = {name for section in sections for name in setting_names(section) if f"`{name}`" not in text}
    assert not missing


def test_every_stream_and_kind_is_documented() -> None:
    text = (ROOT / "docs" / "streams.md").read_text()
    for kind in {name.split(":")[0] for name in READERS}:
        assert f"md:{kind}" in text
    for name, record in {**KINDS, **CONTROLS}.items():
        assert f"`{name}`" in text
        for field in msgspec.structs.fields(record):
            assert f"`{field.name}`" in text, f"{name}.{field.name} is not documented"
