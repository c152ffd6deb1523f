"""`decone methods`, `decone doctor` and `decone --version`: the objectives, this machine, this package."""

from typing import Annotated

import typer

from decone import __version__
from decone.cli.console import print_json, say, write_document
from decone.cli.options import Json


def print_version(requested: bool) -> bool:
    """Prints the version and ends."""
    if requested:
        print(f"decone {__version__}")
        raise typer.Exit
    return requested


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and end.", callback=print_version, is_eager=True)
]


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, shown whole.")] = None,
    as_json: Json = False,
) -> None:
    """List the objectives, or show one with its settings and source."""
    from decone.objectives.registry import methods

    catalogue = methods(name)
    if as_json:
        print_json(catalogue.to_dict()["methods"])
    else:
        write_document(catalogue.to_document())


def doctor(as_json: Json = False) -> None:
    """Print what this machine offers and which engine evaluates the losses."""
    from decone.training.doctor import doctor

    environment = doctor()
    if as_json:
        print_json(environment.to_dict())
        return
    for heading, sentence in environment.sentences():
        say(sentence if heading in ("versions", "machine") else f"{heading}: {sentence}")
