"""`decone grow`: a model with new tokens, whose old rows stay byte for byte.

New tokens take rows of the tables that no token has yet, and only then make them longer. Rows added for padding alone
get the mean of the trained ones, so that no logit of theirs stands out.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decone.data.corpora import read_text
from decone.files.atomic import require_vacant
from decone.files.foreign import join_names, plain
from decone.files.safetensors import DTYPES
from decone.files.settings import Progress
from decone.metrics.neighbours import nearest_rows
from decone.metrics.table_geometry import row_norms
from decone.models.families import family_of
from decone.models.find_tables import find_tables
from decone.models.tables import ModelTables, Table, blocks
from decone.repair.alignment.surfaces import surfaces
from decone.repair.comparison import NEIGHBOURS, TOKEN_LENGTH, norm_quantiles
from decone.repair.result import NeighbourRow
from decone.repair.vocabulary.addition import Addition, add_tokens
from decone.repair.vocabulary.check import KINDS, compare_outputs
from decone.repair.vocabulary.companions import find_companions
from decone.repair.vocabulary.config_ids import VocabularyChange, language_configs
from decone.repair.vocabulary.initialisations import (
    DEFINITIONS,
    Initialisation,
    NewRows,
    RowRequest,
    find_initialisation,
    trained_mean,
)
from decone.repair.vocabulary.result import (
    GROW_SCHEMA,
    IDS_FILE,
    Divergence,
    GrowthReport,
    NewToken,
    NormComparison,
    read_history,
)
from decone.repair.vocabulary.spelling import Match, Special, Spelling, read_tokens, select_new
from decone.repair.vocabulary.tensors import VocabModel, open_vocab_model
from decone.repair.vocabulary.tokenizer import build_tokenizer, read_spec, unknown_ids
from decone.repair.vocabulary.trial import try_tokens
from decone.repair.vocabulary.write import ResizedTensor, RowLayout, write_model

_UNTRAINED = ("special", "unused", "padding")  # kinds of surfaces


@dataclass(frozen=True)
class GrowthPlan:
    """Ids and pieces of new tokens, and the size of the new tables, before anything is written.

    Attributes:
        model: the source.
        spellings: the new tokens.
        addition: their names, ids, pieces, and the new files of the tokenizer.
        pieces: ids that the old tokenizer cuts each of them into, without unknown ones.
        unknown: ids for whatever it does not know.
        ordinary: mask of rows of old tokens that are neither special nor reserved by name, [V].
        layout: order of the new rows.
        vocabulary: the old one, ids by token.
        notes: sentences for the user.
    """

    model: VocabModel
    spellings: list[Spelling]
    addition: Addition
    pieces: list[list[int]]
    unknown: set[int]
    ordinary: Bool[Tensor, " V"]
    layout: RowLayout
    vocabulary: dict[str, int]
    notes: list[str]

    @property
    def ids(self) -> list[int]:
        """Ids of the new tokens."""
        return self.addition.ids

    @property
    def in_padding(self) -> int:
        """Number of new tokens in rows that the tables have already."""
        return sum(index < self.model.rows for index in self.ids)

    @property
    def fresh_indices(self) -> Tensor:
        """Indices of the new tokens among the new rows, the others being padding."""
        return torch.searchsorted(self.layout.fresh, torch.tensor(self.ids))

    def trained(self, table: Table) -> Bool[Tensor, " V"]:
        """Mask of rows that new ones can be made from: of ordinary tokens, finite, and not zero."""
        usable = [torch.isfinite(block).all(1) & block.any(1) for _, block in blocks(table)]
        return self.ordinary & torch.cat(usable)


def grow(
    model: str | os.PathLike[str],
    tokens: str | Path | Iterable[str],
    out: str | Path | None = None,
    *,
    init: str | Initialisation = "pieces",
    neighbours: int = 10,
    lexicon: Sequence[str | Path] = (),
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    multiple: int | None = None,
    match: Match = "word",
    special: Special = "marks",
    literal: bool = False,
    seed: int = 0,
    text: str | Path | None = None,
    leave: Collection[str] = (),
    embedding: str | None = None,
    head: str | None = None,
    link: bool = False,
    show: int = 10,
    progress: Progress | None = None,
) -> GrowthReport:
    """Adds tokens to a model, as a new folder.

    Args:
        model: folder of transformers, or its name at a hub; it is never changed.
        tokens: new tokens as they stand in text or in the vocabulary (Ġword, ▁word, ##word), or a file with one per
            line, or a string with commas between them; those the tokenizer has already are left out.
        out: the new folder; None is a dry run.
        init: how rows are made: a name of `INITIALISATIONS`, "like=TOKEN", "definitions", or a function.
        neighbours: K, for "neighbours".
        lexicon: files that define every new token, for "definitions".
        settings: settings of `definitions.recipe.DefinitionRecipe`, for "definitions".
        device: device for "definitions".
        multiple: the number of rows becomes a multiple of it.
        match: "word": tokens are not found inside longer words, but for letters, punctuation, and scripts without
            spaces; "anywhere": inside them too.
        special: tokens that decoding can leave out: those in marks such as <|…|>, <…> and […], all, or none.
        literal: True takes Ġ, ▁ and ## in tokens for letters of a text.
        seed: seed of "sample" and "definitions".
        text: UTF-8 file on which the outputs before and after are compared.
        leave: names of tensors that are as long as the vocabulary by chance, and of files without tokens.
        embedding: name of the input table's tensor, where it cannot be determined.
        head: likewise of the output table.
        link: other files are not copied but linked.
        show: number of new tokens that are reported one by one.
        progress: called with a stage, steps done and all steps.

    Returns:
        Report of what was done, or would be.

    Raises:
        ValueError: the model's vocabulary cannot be changed, no token is new, or the new folder cannot be written;
            nothing is left behind.
    """
    if init != DEFINITIONS and (lexicon or settings):
        raise ValueError("--lexicon and --set are of --init definitions; add it, or leave them out")
    name, out = os.fspath(model), None if out is None else Path(out)
    text = None if text is None else Path(text)
    advance = progress or (lambda stage, done, total: None)
    requested = read_tokens(str(tokens)) if isinstance(tokens, str | Path) else tokens
    if init == DEFINITIONS:
        init = _definitions(find_tables(name, embedding, head), lexicon, settings or {}, seed, device, advance)
    make_rows = find_initialisation(init, (DEFINITIONS,)) if isinstance(init, str) else init
    if text is not None:
        if out is None:
            raise ValueError("--text compares the new model with the old, so it must be written: leave out --dry-run")
        read_text(text)
    advance("tables", 0, 1)
    model_tables = find_tables(name, embedding, head)
    plan = _plan_growth(model_tables, requested, multiple, leave, match, special, literal)
    source, notes = plan.model, [*model_tables.notes, *plan.notes]
    if isinstance(tokens, str) and [tokens.strip()] == requested:
        notes.append(f"there is no file {plain(tokens)}, so it is the new token itself")
    if out is not None:
        require_vacant(out, source.folder)
    history = read_history(source.folder)
    kind = model_tables.kind
    if text is not None and kind not in KINDS:
        notes.append("the model has no outputs, so none were compared; only its input table grew")
    files = _files(plan, leave, notes)
    advance("tokens", 0, 1)
    notes += try_tokens(source.folder, files, plan.spellings, plan.ids, plan.unknown)
    advance("new rows", 0, 1)
    tensors = _new_tensors(plan, make_rows, neighbours, seed)
    options: dict[str, Any] = {"init": init if isinstance(init, str) else getattr(init, "__name__", "given")}
    options |= {"neighbours": neighbours if init == "neighbours" else None, "multiple": multiple, "match": match}
    options |= {"special": special, "literal": literal}
    options |= {"seed": seed if init == "sample" else None, "leave": sorted(leave)}
    report = GrowthReport(
        schema=GROW_SCHEMA,
        model=name,
        settings=options,
        added=len(plan.ids),
        in_padding=plan.in_padding,
        tokens_before=len(plan.vocabulary),
        tokens_after=len(plan.vocabulary) + len(plan.ids),
        rows_before=source.rows,
        rows_after=plan.layout.rows,
        norms=_compare_norms(plan, tensors),
        tables=[],
        tokens=_describe_tokens(plan, tensors[0], show),
        notes=notes,
        written=None,
    )
    if out is None:
        return report
    divergences: list[Divergence] = []

    def check(folder: Path) -> None:
        new = find_tables(str(folder), embedding, head)
        ids = [None if new.tokenizer is None else new.tokenizer.token_to_id(name) for name in plan.addition.names]
        if new.embedding.shape[0] != plan.layout.rows or new.tied != model_tables.tied or ids != plan.ids:
            raise ValueError(f"{plain(out)} does not come back as it was written; please report this model")
        if text is not None and kind in KINDS:
            advance("outputs", 0, 1)
            old_ids = torch.tensor(sorted(plan.vocabulary.values()))
            divergences.append(compare_outputs(source.folder, folder, kind, text, old_ids, torch.tensor(plan.ids)))

    advance("writing", 0, 1)
    report = write_model(source, plan.layout, tensors, out, files, report, history, check, link)
    return report.model_copy(update={"divergence": next(iter(divergences), None)})


def _plan_growth(
    model_tables: ModelTables,
    tokens: Iterable[str],
    multiple: int | None,
    leave: Collection[str],
    match: Match,
    special: Special,
    literal: bool,
) -> GrowthPlan:
    """Finds ids for new tokens: rows without a token first, then rows behind the table; arguments as of `grow`."""
    if multiple is not None and multiple < 1:
        raise ValueError(f"--multiple {multiple}; take at least 1, e.g. 64")
    model = open_vocab_model(model_tables, leave)
    _require_room(model)
    spec = read_spec(model.folder)
    tokenizer = build_tokenizer(spec, model.folder)
    unknown = unknown_ids(spec, tokenizer)
    new = select_new(tokens, spec, tokenizer, unknown, match, special, literal)
    addition = add_tokens(model.folder, spec, tokenizer, new.spellings)
    ids = addition.ids
    rows = max(model.rows, max(ids) + 1)
    rows = rows if multiple is None else -(-rows // multiple) * multiple
    origin = torch.full((rows,), -1)
    origin[: model.rows] = torch.arange(model.rows)
    origin[torch.tensor(ids)] = -1
    pieces = [[index for index in piece_ids if index not in unknown] for piece_ids, _ in addition.pieces]
    notes = new.notes()
    if pieceless := [spelling for spelling, piece_ids in zip(new.spellings, pieces, strict=True) if not piece_ids]:
        names = join_names([spelling.request for spelling in pieceless])
        notes.append(f"the old tokenizer knows no piece of {names}; they start from the mean of all rows")
    kinds = [surface.kind for surface in surfaces(tokenizer, model.rows, model_tables.special)]
    return GrowthPlan(
        model=model,
        spellings=new.spellings,
        addition=addition,
        pieces=pieces,
        unknown=unknown,
        ordinary=torch.tensor([kind not in _UNTRAINED for kind in kinds]),
        layout=RowLayout(origin),
        vocabulary=tokenizer.get_vocab(with_added_tokens=True),
        notes=notes,
    )


def _new_tensors(plan: GrowthPlan, make_rows: Initialisation, neighbours: int, seed: int) -> list[ResizedTensor]:
    """Makes the new rows and biases of every tensor, the input table first."""
    tensors, new_rows = list[ResizedTensor](), list[NewRows]()
    for tensor in plan.model.tensors:
        if tensor.role == "bias":
            continue
        table = plan.model.table(tensor)
        texts = [spelling.text for spelling in plan.spellings]
        request = RowRequest(texts, plan.pieces, table, plan.trained(table), neighbours, seed, plan.vocabulary)
        new_rows.append(make_rows(request))
        rows = _with_padding(plan, new_rows[-1].rows, trained_mean(request)).to(table.dtype)
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(f"new rows of {plain(table.name)} are not finite in {table.dtype}; take another --init")
        tensors.append(ResizedTensor(tensor, rows))
    outputs = [index for index, resized in enumerate(tensors) if resized.tensor.role == "output"]
    sources = new_rows[outputs[0] if outputs else 0].sources
    for tensor in plan.model.tensors:
        if tensor.role == "bias":
            bias = plan.model.weights.vector(tensor.names[0]).double()
            means = torch.stack([bias[ids].mean() for ids in sources])[:, None]
            biases = _with_padding(plan, means, bias[plan.ordinary].mean()[None])
            tensors.append(ResizedTensor(tensor, biases.to(DTYPES[tensor.dtype])))
    return tensors


def _compare_norms(plan: GrowthPlan, tensors: list[ResizedTensor]) -> list[NormComparison]:
    """Lengths of the trained rows and of the new ones, of every table."""
    norms = []
    for resized in tensors:
        if resized.tensor.role == "bias":
            continue
        table = plan.model.table(resized.tensor)
        trained = plan.trained(table)
        rows = [block[trained[start : start + len(block)]] for start, block in blocks(table)]
        old = torch.cat([row_norms(block) for block in rows if len(block)])
        new = row_norms(resized.fresh[plan.fresh_indices])
        role, names = resized.tensor.role, list(resized.tensor.names)
        norms.append(NormComparison(role=role, tensors=names, old=norm_quantiles(old), new=norm_quantiles(new)))
    return norms


def _describe_tokens(plan: GrowthPlan, resized: ResizedTensor, limit: int) -> list[NewToken]:
    """Describes the first new tokens one by one."""
    count = min(limit, len(plan.ids))
    if not count:
        return []
    table, rows = plan.model.table(resized.tensor), resized.fresh[plan.fresh_indices][:count]
    near = nearest_rows(torch.full((count,), -1), rows, blocks(table), plan.trained(table), NEIGHBOURS)
    names = {index: token for token, index in plan.vocabulary.items()}
    return [
        NewToken(
            id=plan.ids[index],
            token=plan.addition.names[index][:TOKEN_LENGTH],
            pieces=[piece[:TOKEN_LENGTH] for piece in plan.addition.pieces[index][1]],
            norm=length,
            neighbours=[
                NeighbourRow(id=row, token=names[row][:TOKEN_LENGTH]) for row in near[index].tolist() if row >= 0
            ],
        )
        for index, length in enumerate(row_norms(rows).tolist())
    ]


def _definitions(
    model_tables: ModelTables,
    paths: Sequence[str | Path],
    settings: Mapping[str, Any],
    seed: int,
    device: str,
    progress: Progress,
) -> Initialisation:
    """The initialisation from definitions; the reconstruction is imported where it is needed alone."""
    from decone.repair.alignment.align import open_lexicons
    from decone.repair.definitions.rebuild import from_definitions
    from decone.repair.definitions.recipe import DefinitionRecipe

    recipe = DefinitionRecipe.build("decone", {"seed": str(seed), **settings})
    lexicon = open_lexicons([Path(path) for path in paths])
    return from_definitions(model_tables, lexicon, recipe, device=device, progress=progress)


def _files(plan: GrowthPlan, leave: Collection[str], notes: list[str]) -> dict[str, bytes | None]:
    """New content of all files but the weights; what is left out is told in the notes."""
    addition = plan.addition
    companions = find_companions(plan.model, plan.vocabulary, leave, grown=addition.model is None)
    companions.require_unnamed(plan.ids)
    tokens = {index: index for index in range(plan.model.rows)}
    number = len(plan.vocabulary) + len(plan.ids)
    change = VocabularyChange(plan.vocabulary, plan.model.rows, tokens, number, plan.layout.rows)
    files, more = companions.follow(change, addition.respell)
    notes += more
    return {**files, **addition.files, IDS_FILE: None}


def _require_room(model: VocabModel) -> None:
    """Refuses models to which the highest id means something."""
    name, family = model.model_tables.name, family_of(model.model_tables.family)
    if family.timestamp_ids:
        raise ValueError(f"{name} takes every id behind its first timestamp for a time, so no token can be added there")
    eos_ids = [section.get("eos_token_id") for section in language_configs(model.config)]
    if family.reads_highest_id and 2 in eos_ids:
        raise ValueError(
            f"{name} reads a text off where its highest id stands, for its eos_token_id is 2; correct it to the id of "
            "the token that ends a text"
        )


def _with_padding(plan: GrowthPlan, rows: Float[Tensor, "M H"], padding: Float[Tensor, " H"]) -> Float[Tensor, "K H"]:
    """The rows in the order of their ids, and one row for every id that is padding."""
    filled = padding.expand(len(plan.layout.fresh), -1).clone()
    filled[plan.fresh_indices] = rows
    return filled
