"""A model without the tokens that nobody uses: what stays keeps its rows byte for byte, its texts are cut as before."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import Tokenizer

from decone.files.foreign import plain
from decone.files.new_folder import vacant_folder
from decone.files.safetensors import DTYPES
from decone.models.find_tables import find_tables
from decone.repair.vocabulary.cut_texts import require_same
from decone.repair.vocabulary.grow import written
from decone.repair.vocabulary.history import IDS, NAME, content, read_history, step
from decone.repair.vocabulary.layout import Layout, Resized
from decone.repair.vocabulary.resize import resize
from decone.repair.vocabulary.result import TRIMMED, TableFacts, Trimmed
from decone.repair.vocabulary.tokenizer_parts import opened, read_parts
from decone.repair.vocabulary.trimming import Choice, Trimming, plan_trimming, to_check

SHOWN = 20  # dropped tokens that are told of
SIGNS = 200  # characters of one

Progress = Callable[[str, int, int], None]


def trim(
    name: str,
    choice: Choice,
    out: Path | None = None,
    *,
    leave: Collection[str] = (),
    embedding: str | None = None,
    head: str | None = None,
    link: bool = False,
    progress: Progress | None = None,
) -> Trimmed:
    """Takes tokens out of a model, as a new folder with new ids.

    The new id of every old one is in "decone/ids.safetensors" there: its tensor "old" holds the old id per new row.

    Args:
        name: folder of transformers, or its name at a hub; it is never changed.
        choice: which tokens are wanted.
        out: the new folder; None only tells what would be done.
        leave: tensors as long as the vocabulary that have nothing to do with it.
        embedding: name of the input table's tensor, where it cannot be told.
        head: likewise of the output table.
        link: other files are not copied but linked.
        progress: called with a stage, steps done and all steps.

    Returns:
        What was done, or would be.

    Raises:
        ValueError: the model's vocabulary cannot be changed, nothing would go, a text would be cut otherwise, or the
            new folder cannot be written; nothing is left behind.
    """
    tell = progress or (lambda stage, done, total: None)
    tell("tokens", 0, 1)
    model_tables = find_tables(name, embedding, head)
    trimming = plan_trimming(model_tables, choice, leave)
    model, notes = trimming.model, [*model_tables.notes, *trimming.notes]
    if out is not None:
        vacant_folder(out, model.folder)
    past = read_history(model.folder)
    layout = Layout(torch.tensor(sorted(trimming.new)))
    parts = [Resized(tensor, torch.zeros(0, tensor.width, dtype=DTYPES[tensor.dtype])) for tensor in model.tensors]
    before = trimming.tokenizer.get_vocab(with_added_tokens=True)
    settings: dict[str, Any] = {"text": [path.name for path in choice.texts], "min_count": choice.min_count}
    settings |= {"keep": choice.keep and choice.keep.name, "unreachable": choice.unreachable, "leave": sorted(leave)}
    report = Trimmed(
        schema=TRIMMED,
        model=name,
        settings=settings,
        tokens_before=len(before),
        tokens_after=len(before) - len(trimming.dropped),
        rows_before=model.rows,
        rows_after=layout.rows,
        kept={reason: len(ids) for reason, ids in trimming.kept.items()},
        dropped=[token[:SIGNS] for token in trimming.dropped[:: max(1, len(trimming.dropped) // SHOWN)][:SHOWN]],
        bytes_of_rows=sum((model.rows - layout.rows) * part.width * len(part.tensor.names) for part in parts),
        checked=0,
        tables=[],
        notes=notes,
        written=None,
    )
    if out is None:
        tell("texts", 0, 1)
        checked = _checked(trimming, choice, opened(trimming.parts, model.folder))
        return report.model_copy(update={"checked": checked})
    counted: list[int] = []

    def check(folder: Path) -> None:
        again = find_tables(str(folder), embedding, head)
        if again.embedding.shape[0] != layout.rows or again.tied != model_tables.tied:
            raise ValueError(f"{plain(out)} does not come back as it was written; please report this model")
        tell("texts", 0, 1)
        counted.append(_checked(trimming, choice, opened(read_parts(folder), folder)))

    def history(tables: list[TableFacts], said: list[str]) -> dict[str, bytes]:
        sizes = (report.tokens_before, report.tokens_after), (report.rows_before, report.rows_after)
        return {NAME: content([*past, step("trim", model_tables, settings, *sizes, tables, [*notes, *said])])}

    tell("writing", 0, 1)
    edited = {**trimming.files, NAME: b"", IDS: save({"old": layout.origin}, metadata={"model": "old id per new row"})}
    result = resize(model, layout, parts, out, edited, check, history, link)
    return report.model_copy(
        update={
            "tables": result.tables,
            "checked": counted[0],
            "notes": [*notes, *result.notes],
            "written": written(out, result, link),
        }
    )


def _checked(trimming: Trimming, choice: Choice, new: Tokenizer) -> int:
    """Tokens that are cut as before; every token that stays must have its new id."""
    after = new.get_vocab(with_added_tokens=True)
    before = trimming.tokenizer.get_vocab(with_added_tokens=True)
    wanted = {token: trimming.new[index] for token, index in before.items() if index in trimming.new}
    if after != wanted:
        wrong = sorted(token for token in wanted.keys() | after.keys() if wanted.get(token) != after.get(token))
        raise ValueError(
            f"the trimmed tokenizer gives {plain(wrong[0], 60)!r} the id {after.get(wrong[0])} instead of "
            f"{wanted.get(wrong[0])}: its added tokens do not stand behind the others, which is not supported"
        )
    return require_same(trimming.tokenizer, new, to_check(trimming, choice), trimming.new)
