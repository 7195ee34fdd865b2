"""What the pages name is there: links and their headings, files, constants of tests, commands and their options."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipeline.cli import cli

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "tests" / "frames" / "README.md"]
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
EACH = pytest.mark.parametrize("page", PAGES, ids=NAMES)
COMMAND = re.compile(r"(?<![\w-])pipeline ((?:-c \S+ )?)([a-z]+)\b([^`|#\n]*)")


def anchors(page: Path) -> set[str]:
    """The headings as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def spelt(text: str) -> Iterator[str]:
    """What is set as code: blocks, and words between backticks."""
    yield from re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    yield from re.findall(r"^(?:    .*\n)+", text, re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", text)


@EACH
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text()):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@EACH
def test_files_that_are_named_exist(page: Path) -> None:
    packages = r"(?:pipeline|ingest|normalize|aggregate|store|simulator|tests|docs)"
    for name in re.findall(rf"`({packages}/[\w./-]+\.(?:py|md|json))`", page.read_text()):
        # The page about a further exchange names those that are to be written.
        assert (ROOT / name).is_file() or "kraken" in name, name


def test_constants_that_are_named_exist() -> None:
    text = (ROOT / "docs" / "adding-an-exchange.md").read_text()
    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) in `([\w./]+)`", text, re.MULTILINE)
    assert len(rows) >= 7
    for names, file in rows:
        for name in re.findall(r"`([A-Z_]+)`", names):
            assert re.search(rf"^{name}\b.* = ", (ROOT / file).read_text(), re.MULTILINE), f"{name} in {file}"


@EACH
def test_commands_and_options_are_those_of_the_program(page: Path) -> None:
    context = click.Context(cli)
    for code in spelt(page.read_text()):
        for _, name, rest in COMMAND.findall(code):
            command = cli.get_command(context, name)
            assert command is not None, f"pipeline {name}"
            for option in re.findall(r"(?<![\w-])(--[a-z-]+)", rest):
                assert option in options(command), f"pipeline {name} {option}"


def options(command: click.Command) -> set[str]:
    """Those of the command and of its parts."""
    own = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    parts = command.commands.values() if isinstance(command, click.Group) else ()
    return own.union(*map(options, parts))
