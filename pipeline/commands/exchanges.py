"""`pipeline exchanges`: which exchange gives which kind of data, its endpoints and the limits kept to."""

import json

import click

from pipeline.commands._exchanges.capability import capabilities
from pipeline.commands._exchanges.page import detail, markdown, matrix
from pipeline.errors import SettingsError
from pipeline.spelling import advice


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="As one JSON document (fields: docs/commands.md).")
@click.option("--markdown", "as_page", is_flag=True, help="As docs/exchanges.md.")
def exchanges(name: str | None, as_json: bool, as_page: bool) -> None:
    """Show what can be collected: exchange by kind of data, as the code does it today.

    NAME is an exchange: its channels, endpoints and limits. Needs no settings and no servers.

    \b
    Examples:
      pipeline exchanges
      pipeline exchanges binance
      pipeline exchanges --json | jq 'keys'
    """
    found = capabilities()
    if name is not None and name.lower() not in found:
        raise SettingsError(f"no exchange {name!r}{advice(name, list(found))}")
    if name is not None:
        found = {name.lower(): found[name.lower()]}
    if as_json:
        click.echo(json.dumps(found if name is None else found[name.lower()], indent=2))
    elif as_page:
        click.echo(markdown(found))
    else:
        click.echo("\n".join(matrix(found) if name is None else detail(found[name.lower()])))
