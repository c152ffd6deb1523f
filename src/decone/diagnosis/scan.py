"""A whole scan: the tables of a model, its rows, and with a text what it does."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from decone.data.corpora import read_text
from decone.diagnosis.against import against, require_same_vocabulary
from decone.diagnosis.behaviour import behave
from decone.diagnosis.blame import blame
from decone.diagnosis.findings_rows import UNUSUAL
from decone.diagnosis.result import SCHEMA, ModelFacts, ScanResult, TableFacts
from decone.diagnosis.rows import find_rows
from decone.diagnosis.suspects import find_suspects
from decone.diagnosis.table_facts import table_facts
from decone.diagnosis.verdict import findings
from decone.diagnosis.words import word_similarity
from decone.frequencies import Frequencies, frequencies, token_texts
from decone.metrics.table_survey import Plane, TableSample, sample_table, survey_table
from decone.models.find_tables import find_tables
from decone.models.tables import ModelTables, Table
from decone.training.machine import provenance

Progress = Callable[[str, int, int], None]


def scan(
    name: str,
    *,
    text: Path | None = None,
    counts: Path | None = None,
    blamed: bool = False,
    words: Sequence[Path] = (),
    other: str | None = None,
    embedding: str | None = None,
    head: str | None = None,
    device: str = "auto",
    seed: int = 0,
    prompts: int = 20,
    limit: int | None = None,
    progress: Progress | None = None,
) -> tuple[ScanResult, list[TableSample]]:
    """Scans a model.

    Args:
        name: a decone run, a folder or safetensors file of a Hugging Face model, or its name on the hub.
        text: UTF-8 text to run the model on, and to count frequencies on when there are no `counts`.
        counts: file of token frequencies.
        blamed: also tell pull from push in the gradient of each row; needs a text.
        words: files of word pairs with human judgements of their similarity.
        other: model of the same vocabulary to compare with, the one before.
        embedding: name of the input table in the file, where it is not found by itself.
        head: likewise of the output table.
        device: for what needs the whole model.
        seed: of samples of rows and of drawn text.
        prompts: continuations per way of decoding.
        limit: most tokens of the text that are scored; None is all.
        progress: called with a stage, how much of it is done, and of how much.

    Returns:
        The result, and the rows that its page draws.

    Raises:
        ValueError: the model or a file cannot be read or lacks what was asked for; the message says what to change.
    """
    tell = progress or (lambda stage, done, total: None)
    begun = time.perf_counter()
    if blamed and text is None:
        raise ValueError("--blame needs a text whose gradients it looks at; give --text FILE")
    content = None if text is None else read_text(text)
    tell("tables", 0, 1)
    model_tables = find_tables(name, embedding, head)
    continues = model_tables.kind in ("causal", "run")
    if blamed and not continues:
        raise ValueError(f"--blame needs a causal model; {name} is not one, leave --blame out")
    tell("rows", 0, 1)
    rows = find_rows(model_tables)
    known = frequencies(
        model_tables, content, counts, nonfinite=rows.of("non-finite"), unreachable=rows.of("unreachable")
    )
    surveys = _surveyed(model_tables, known, seed, tell)
    facts = {name: facts for name, (facts, _) in surveys.items()}
    suspects = find_suspects(model_tables, rows, known)
    result = ScanResult(
        schema=SCHEMA,
        model=_model(model_tables),
        frequencies=known.facts,
        tables=facts,
        rows=rows.findings,
        suspects=suspects,
        provenance=provenance(),
    )
    if text is not None and not continues:
        result.model.notes.append("The text gave frequencies only: what a model does is measured of causal models.")
    elif text is not None:
        counted = known.groups if known.facts.source in ("text", "counts", "training") else None
        result.behaviour = behave(
            name, text, counted, device=device, seed=seed, prompts=prompts, limit=limit, progress=progress
        )
        if blamed:
            tell("gradients", 0, 1)
            result.blame = blame(name, text, device=device, seed=seed)
    for file in words:
        tell("words", 0, 1)
        result.words.append(word_similarity(model_tables, file, seed))
    tokens = token_texts(model_tables)
    if other is not None:
        tell("the other model", 0, 1)
        before = find_tables(other, embedding, head)
        require_same_vocabulary(model_tables, before)
        other_facts = {table: facts for table, (facts, _) in _surveyed(before, known, seed, tell).items()}
        result.against = against(model_tables, before, known.groups, tokens, facts, other_facts)
    result.findings = findings(result)
    tell("drawing", 0, 1)
    marked = {suspect.id for suspect in suspects if suspect.score > UNUSUAL}
    drawings = [
        sample_table(part, table, tokens, known.groups, known.rank, marked, seed, surveys[part][1])
        for part, table in _tables(model_tables)
    ]
    result.seconds = time.perf_counter() - begun
    return result, drawings


def _tables(model_tables: ModelTables) -> list[tuple[str, Table]]:
    tables = [("embedding", model_tables.embedding)]
    return tables if model_tables.head is None else [*tables, ("head", model_tables.head)]


def _surveyed(
    model_tables: ModelTables, known: Frequencies, seed: int, tell: Progress
) -> dict[str, tuple[TableFacts, Plane]]:
    surveys = {}
    for name, table in _tables(model_tables):
        tell(f"geometry of the {name}", 0, 1)
        survey = survey_table(table, known.groups, known.rank, seed)
        surveys[name] = table_facts(survey), survey.plane
    return surveys


def _model(model_tables: ModelTables) -> ModelFacts:
    rows, width = model_tables.output.shape
    known = None if model_tables.tokenizer is None else model_tables.tokenizer.get_vocab_size() * model_tables.copies
    return ModelFacts(
        name=model_tables.name,
        family=model_tables.family,
        kind=model_tables.kind,
        embedding=model_tables.embedding.name,
        head=None if model_tables.head is None else model_tables.head.name,
        tied=model_tables.tied,
        rows=rows,
        width=width,
        dtype=str(model_tables.output.dtype).removeprefix("torch."),
        vocabulary=known,
        padded=0 if known is None else max(0, rows - known),
        bias=model_tables.bias is not None,
        softcap=model_tables.softcap,
        logit_scale=model_tables.logit_scale,
        notes=list(model_tables.notes),
    )
