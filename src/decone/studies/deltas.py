"""The tables that a downstream study compares: a pretrained model as it is, or with a repair applied.

This is the one place that knows how each repair is called; a delta of the user's own takes its place.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from decone.data.lexicons import Lexicon
from decone.data.published import Published, find
from decone.models.find_tables import find_tables
from decone.repair import checkpoint
from decone.repair.alignment import align
from decone.repair.definitions.choice import rows_by_name
from decone.repair.definitions.rebuild import rebuild
from decone.repair.definitions.recipe import Recipe
from decone.repair.definitions.reconstructor import Reconstructor
from decone.repair.delta import read_delta, write_delta
from decone.repair.directions import Centre, remove_directions
from decone.repair.tables import home, other_inputs, targets

# The senses of the lexicon as a table, made from its YAML source; see the page on the study.
OEWN = Published(
    "wordnet/oewn_lemma_glosses.tsv",
    None,
    "b11bd34fb60cc0df23c48a5225b8341177d6f4b399f28a3f4f59fd21fe0e7de1",
    "write lemma, pos, sense, synset, gloss and examples of every sense of its YAML source to a table",
)
ROWS = "rare"
Maker = Callable[[str, Path], None]  # a model (folder or hub name), and the delta file to write


def directions(model: str, out: Path, components: int | None = None, centre: Centre = "mean") -> None:
    """Makes a delta that takes the mean and principal directions out of all rows; see `repair.directions`.

    Args:
        model: folder or hub name.
        out: the delta to write.
        components: taken out; None is a hundredth of the width.
        centre: which formula.

    Raises:
        ValueError: as `find_tables`, `remove_directions` and `write_delta`.
    """
    model_tables = find_tables(model)
    ids = torch.arange(model_tables.embedding.shape[0])
    changes, found = [], dict[str, Any]()
    for target in targets(model_tables):
        change, found[target.role] = remove_directions(target, ids, components, centre)
        changes.append(change)
    settings = {"components": components, "centre": centre, "rows": "all", "statistics": "all", "table": "input"}
    write_delta(out, model_tables, "directions", settings, changes, found)


def del_direction(model: str, out: Path) -> None:
    """DelDirection as released with DefinitionEMB: ten components of the rows as they were."""
    directions(model, out, components=10, centre="released")


def definitions(model: str, out: Path) -> None:
    """Makes a delta whose rows are rebuilt from Open English WordNet: the rarest fifth of the defined, by index.

    Args:
        model: folder or hub name of an encoder, or of an encoder with a decoder.
        out: the delta to write.

    Raises:
        ValueError: the lexicon is nowhere, or the model cannot read definitions.
    """
    model_tables = find_tables(model)
    if model_tables.tokenizer is None:
        raise ValueError(f"{model} has no tokenizer to align a lexicon with; save one with it")
    (target,) = targets(model_tables)
    if others := other_inputs(model_tables, target):
        raise ValueError(
            f"encoder and decoder of {model} have tables of their own ({target.table.name}, {others[0]}); make a delta "
            "with decone repair definitions --embedding NAME, and give it: --delta definitions=FILE.safetensors"
        )
    lexicon = Lexicon.open(find(OEWN, "Open English WordNet")[1])
    alignment = align(model_tables.tokenizer, lexicon, model_tables.embedding.shape[0], model_tables.special)
    recipe = Recipe()
    reconstructor = Reconstructor(model_tables, target.table, alignment, recipe)
    change, found, notes = rebuild(target, reconstructor, rows_by_name(alignment, ROWS))
    settings = {"rows": ROWS, "lexicon": "oewn", "recipe": recipe.model_dump(mode="json")}
    write_delta(out, model_tables, "definitions", settings, [change], {target.role: found}, notes)


MAKERS: Mapping[str, Maker] = {
    "directions": del_direction,
    "directions-mean": directions,
    "definitions": definitions,
}


def make_delta(row: str, model: str, out: Path) -> None:
    """Makes the delta of a row, unless it is there.

    Args:
        row: one of `MAKERS`.
        model: folder or hub name.
        out: the delta to write, a .safetensors file.

    Raises:
        ValueError: it cannot be made; nothing is left behind.
    """
    if not out.exists():
        MAKERS[row](model, out)


def repaired(model: str, delta: Path, folder: Path) -> Path:
    """A model with a delta applied, under a folder, by the digest of its table; made unless it is there.

    Other files than those of the table are hard links where both lie on one disk, and copies elsewhere.

    Raises:
        ValueError: as `checkpoint.apply`.
    """
    facts = read_delta(delta).facts
    out = folder / f"{facts.method}-{facts.tables[0].after[:16]}"
    if not out.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        source = Path(model) if Path(model).exists() else home(find_tables(model))
        checkpoint.apply(model, delta, out, link=source.stat().st_dev == folder.stat().st_dev)
    return out
