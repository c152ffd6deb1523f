"""`decone methods` and `decone doctor`: the objectives that there are, and this machine."""

from typing import Annotated

import typer

from decone.cli.console import print_json, say, write
from decone.cli.options import Json


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, shown whole.")] = None,
    as_json: Json = False,
) -> None:
    """List the objectives, or show one with its settings and source."""
    from rich.markup import escape
    from rich.table import Table

    from decone.objectives.cards import methods

    cards = methods(name).methods
    if as_json:
        print_json([card.model_dump() for card in cards])
    elif name:
        write(f"[bold]{escape(name)}[/bold]  {escape(cards[0].paper)}\n")
        write(escape(cards[0].description))
    else:
        table = Table("method", "cures", "cost", "settings", "paper", box=None, pad_edge=False)
        for card in cards:
            cells = (card.name, card.cures, card.cost, ", ".join(card.settings) or "-", card.paper)
            table.add_row(*map(escape, cells))
        write(table)


def doctor(as_json: Json = False) -> None:
    """Print what this machine offers and which engine evaluates the losses."""
    from decone.training.doctor import doctor

    diagnosis = doctor()
    if as_json:
        print_json(diagnosis.to_dict())
        return
    for line in diagnosis.lines():
        say(line)
