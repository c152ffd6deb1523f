"""`decone methods`: every objective, what it cures, what it costs."""

import inspect
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from decone import objectives
from decone.cli.console import out, print_json
from decone.cli.options import Json


def command(
    name: Annotated[str | None, typer.Argument(help="One method, shown whole.")] = None,
    as_json: Json = False,
) -> None:
    """List the objectives, or show one with its settings and source."""
    cards = [_card(method) for method in ([name] if name else objectives.names())]
    if as_json:
        print_json(cards)
    elif name:
        out.print(f"[bold]{escape(name)}[/bold]  {escape(cards[0]['paper'])}\n")
        out.print(escape(cards[0]["description"]))
    else:
        table = Table("method", "cures", "cost", "settings", "paper", box=None, pad_edge=False)
        for card in cards:
            cells = (card["name"], card["cures"], card["cost"], ", ".join(card["settings"]) or "-", card["paper"])
            table.add_row(*map(escape, cells))
        out.print(table)


def _card(name: str) -> dict[str, Any]:
    found = objectives.find(name)
    settings = {
        key: None if parameter.default is parameter.empty else parameter.default
        for key, parameter in list(inspect.signature(found.__init__).parameters.items())[1:]
    }
    return {
        "name": name,
        "cures": found.cures,
        "cost": found.cost,
        "paper": found.paper,
        "settings": settings,
        "description": inspect.cleandoc(found.__doc__ or ""),
    }
