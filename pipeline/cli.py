"""The command `pipeline`: options of the whole program, its commands found by file name, and exit codes.

Only the module of the command that is called is imported. Exit codes: 0 good, 1 a finding,
2 usage or settings, 3 unhealthy or a server away, 130 interrupted.
"""

import importlib
import importlib.metadata
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

import pipeline.commands
from pipeline.errors import ServerAway, SettingsError, TapelineError
from pipeline.spelling import advice

GOOD, FINDING, USAGE, UNHEALTHY, INTERRUPTED = 0, 1, 2, 3, 130


class Commands(click.Group):
    """`pipeline/commands/<name>.py` defines the click command `<name>`; hyphens for underscores outside."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command there is a file for."""
        found = (module.name for module in pkgutil.iter_modules(pipeline.commands.__path__))
        return sorted(name.replace("_", "-") for name in found if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, its module imported only now; None when there is no such file."""
        if cmd_name not in self.list_commands(ctx):
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"pipeline.commands.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest spelling of a command that does not exist."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0]!r}{advice(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's; a reader of our output that has what it wants (`pipeline tail trade | head`) is no error."""
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Python flushes once more at its end: that must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(GOOD)
        return answer

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs the command and ends the process with its exit code."""
        try:
            code = super().main(args, prog_name or "pipeline", complete_var, standalone_mode=False, **extra)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except TapelineError as error:
            click.echo(f"pipeline: {error}", err=True)
            sys.exit(exit_code(error))
        sys.exit(code if isinstance(code, int) else GOOD)


def exit_code(error: TapelineError) -> int:
    """The one that goes with whose fault it is."""
    if isinstance(error, SettingsError):
        return USAGE
    return UNHEALTHY if isinstance(error, ServerAway) else FINDING


def version() -> str:
    """The version of the installed distribution; `unknown` in a tree that was never installed."""
    try:
        return importlib.metadata.version("tapeline")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        click.echo(f"tapeline {version()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "-c",
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings file. Default: $DATA_COLLECTION_CONFIG, else config/data_collection.json of the project folder.",
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version."
)
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """Collect crypto market data around the clock, and prove that nothing is missing.

    \b
    Start here:
      pipeline config init     write settings for BTC-USDT and ETH-USDT on OKX
      pipeline up              start everything the settings ask for
      pipeline status          what runs, how fresh the data is, what is missing

    Exit codes of every command: 0 good, 1 a finding (degraded, gaps open, something undecoded),
    2 usage or settings, 3 unhealthy or nothing running, 130 interrupted.
    """
    ctx.obj = config


def main() -> NoReturn:
    """The entry point of the console script."""
    cli.main()
    raise AssertionError("unreachable")
