"""A scan: the tables of a model, its rows, and with a text its behaviour."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from decone.data.corpora import read_text
from decone.diagnosis.behaviour import measure_behaviour
from decone.diagnosis.blame import measure_blame
from decone.diagnosis.checks import check_limits
from decone.diagnosis.model_diff import diff_models, require_same_vocabulary
from decone.diagnosis.result import (
    SCHEMA,
    CosineHistogram,
    ModelFacts,
    RowNorms,
    ScanResult,
    Spectrum,
    TableFacts,
)
from decone.diagnosis.rows import RowKinds, find_rows, tables_by_name
from decone.diagnosis.suspects import find_suspects
from decone.diagnosis.table_metrics import table_metrics
from decone.diagnosis.verdicts import findings
from decone.diagnosis.words import word_similarity
from decone.files.settings import Progress
from decone.frequencies import Frequencies, frequencies, token_texts
from decone.metrics.statistics import spearman
from decone.metrics.table_geometry import effective_rank_of, energy_share, isoscore_of, norm_quantiles, norms_by_rank
from decone.metrics.table_survey import Plane, TableSurvey, sample_table, survey_table
from decone.metrics.undertrained import UNUSUAL
from decone.models.find_tables import find_tables
from decone.models.tables import ModelTables
from decone.training.machine import provenance

LISTED = 512  # singular values
FIRST = 32  # of them without a gap: on a logarithmic axis these are half of the picture


def scan(
    model: str | os.PathLike[str],
    *,
    text: str | Path | None = None,
    counts: str | Path | None = None,
    blame: bool = False,
    words: Sequence[str | Path] = (),
    against: str | os.PathLike[str] | None = None,
    embedding: str | None = None,
    head: str | None = None,
    device: str = "auto",
    seed: int = 0,
    prompts: int = 20,
    limit: int | None = None,
    checks: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> ScanResult:
    """Scans a model: the geometry of its tables, rows never trained, and with a text its behaviour.

    Args:
        model: a decone run, a folder or safetensors file of a Hugging Face model, or its name on the hub.
        text: UTF-8 file to run the model on, and to count in where there are no `counts` and none of training.
        counts: file of token frequencies.
        blame: also separate pull from push in the gradient of each row; needs a text.
        words: files of word pairs with human judgements of their similarity.
        against: model of the same vocabulary to compare with, the one before.
        embedding: name of the input table in the file, where it cannot be determined.
        head: likewise of the output table.
        device: for what needs the complete model.
        seed: of samples of rows and of sampled text.
        prompts: continuations per method of decoding.
        limit: most tokens of the text that are scored; None is all.
        checks: limits by name, see `diagnosis.checks`; the result says whether they hold.
        progress: called with a stage, steps done, and steps in all.

    Returns:
        The result; its `samples` are the rows that figures draw.

    Raises:
        ValueError: the model or a file cannot be read or lacks what the arguments need; the message says the mend.

    Example:
        >>> import tempfile, torch
        >>> from safetensors.torch import save_file
        >>> file = Path(tempfile.mkdtemp()) / "cone.safetensors"
        >>> save_file({"wte.weight": torch.randn(200, 8) + 3}, file)
        >>> result = scan(file, checks={"cone": 0.2})
        >>> result.findings[0].title, result.checks[0].passed
        ('Cone of the table', False)
    """
    report = progress or (lambda stage, done, total: None)
    begun = time.perf_counter()
    name, text, counts = os.fspath(model), *(None if path is None else Path(path) for path in (text, counts))
    if blame and text is None:
        raise ValueError("--blame needs a text whose gradients it looks at; give --text FILE")
    content = None if text is None else read_text(text)
    report("tables", 0, 1)
    model_tables = find_tables(name, embedding, head)
    causal = model_tables.kind in ("causal", "run")
    if blame and not causal:
        raise ValueError(f"--blame needs a causal model; {name} is not one, leave --blame out")
    report("rows", 0, 1)
    rows = find_rows(model_tables)
    known_frequencies = frequencies(
        model_tables, content, counts, nonfinite=rows.of("non-finite"), unreachable=rows.of("unreachable")
    )
    surveys = _survey(model_tables, known_frequencies, seed, report)
    facts = {table: facts for table, (facts, _) in surveys.items()}
    suspects, chat = find_suspects(model_tables, rows, known_frequencies)
    result = ScanResult(
        schema=SCHEMA,
        model=_model_facts(model_tables, rows),
        frequencies=known_frequencies.facts,
        tables=facts,
        rows=rows.findings if chat is None else [*rows.findings, chat],
        suspects=suspects,
        provenance=provenance(),
    )
    if text is not None and not causal:
        result.model.notes.append("The text gave frequencies only: what a model does is measured of causal models.")
    elif text is not None:
        groups = known_frequencies.groups if known_frequencies.facts.counted else None
        result.behaviour = measure_behaviour(
            name, text, groups, device=device, seed=seed, prompts=prompts, limit=limit, progress=progress
        )
        if blame:
            report("gradients", 0, 1)
            result.blame = measure_blame(name, text, counts=counts, device=device, seed=seed)
    for file in words:
        report("words", 0, 1)
        result.words.append(word_similarity(model_tables, Path(file), seed))
    tokens = token_texts(model_tables)
    if against is not None:
        report("the other model", 0, 1)
        reference = find_tables(os.fspath(against), embedding, head)
        require_same_vocabulary(model_tables, reference)
        reference_surveys = _survey(reference, known_frequencies, seed, report)
        reference_facts = {table: facts for table, (facts, _) in reference_surveys.items()}
        result.against = diff_models(model_tables, reference, known_frequencies.groups, tokens, facts, reference_facts)
    result.findings = findings(result)
    result.checks = check_limits(result, checks or {})
    report("drawing", 0, 1)
    marked = {suspect.id for suspect in suspects if suspect.score > UNUSUAL}
    result.samples.extend(
        sample_table(
            role, table, tokens, known_frequencies.groups, known_frequencies.rank, marked, seed, surveys[role][1]
        )
        for role, table in tables_by_name(model_tables).items()
    )
    result.seconds = time.perf_counter() - begun
    return result


def _survey(
    model_tables: ModelTables, known_frequencies: Frequencies, seed: int, report: Progress
) -> dict[str, tuple[TableFacts, Plane]]:
    """Facts and main plane of each table; the sums that they come from are as large as a table and are let go."""
    surveys = {}
    for name, table in tables_by_name(model_tables).items():
        report(f"geometry of the {name}", 0, 1)
        survey = survey_table(table, known_frequencies.groups, known_frequencies.rank, seed)
        surveys[name] = table_facts(survey), survey.plane
    return surveys


def _model_facts(model_tables: ModelTables, rows: RowKinds) -> ModelFacts:
    size, width = model_tables.output.shape
    tokens = model_tables.vocabulary
    return ModelFacts(
        name=model_tables.name,
        family=model_tables.family,
        kind=model_tables.kind,
        embedding=model_tables.embedding.name,
        head=None if model_tables.head is None else model_tables.head.name,
        tied=model_tables.tied,
        rows=size,
        width=width,
        dtype=str(model_tables.output.dtype).removeprefix("torch."),
        vocabulary=None if tokens is None else len(tokens) * model_tables.copies,
        reach=model_tables.tokenizer is not None,
        padded=len(rows.of("padded")),
        bias=model_tables.bias is not None,
        softcap=model_tables.softcap,
        state_scale=model_tables.state_scale,
        logit_scale=model_tables.logit_scale,
        notes=list(model_tables.notes),
    )


def table_facts(survey: TableSurvey) -> TableFacts:
    """Turns a survey into the facts of a result, every metric of `table_metrics` among them.

    Example:
        >>> import torch
        >>> from decone.metrics.table_survey import survey_table
        >>> from decone.models.tables import MemoryTable
        >>> facts = table_facts(survey_table(MemoryTable("weight", torch.eye(3)), {"frequent": torch.arange(3)}))
        >>> facts.cosine["all"]["all"], round(facts.metrics["effective_rank"], 6)
        (0.0, 3.0)
    """
    return TableFacts(
        isotropy={group: value._asdict() for group, value in survey.isotropy.items()},
        cosine=survey.cosine,
        spectrum=_spectrum(survey.singular_values, isoscore_of(survey.covariance)),
        norms=_norms(survey),
        mean_direction=survey.mean_direction,
        metrics={metric.name: metric.measure(survey) for metric in table_metrics()},
        histograms=[CosineHistogram(groups=pair.groups, counts=pair.counts) for pair in survey.histograms],
    )


def _spectrum(values: Float64[Tensor, " R"], isoscore: float) -> Spectrum:
    ranks = np.unique(np.linspace(min(FIRST, len(values)) + 1, max(len(values), FIRST + 1), LISTED - FIRST).round())
    ranks = np.concatenate((np.arange(1, FIRST + 1), ranks)).astype(int)
    ranks = ranks[ranks <= len(values)]
    return Spectrum(
        singular_values=values[ranks - 1].tolist(),
        ranks=ranks.tolist(),
        energy_first=energy_share(values, 1),
        energy_ten=energy_share(values, 10),
        effective_rank=effective_rank_of(values),
        isoscore=isoscore,
    )


def _norms(survey: TableSurvey) -> RowNorms:
    norms, rank = survey.norms, survey.rank
    return RowNorms(
        quantiles=norm_quantiles(norms),
        rank_correlation=None if rank is None else spearman(norms.numpy(), rank.double().numpy()),
        by_rank=[] if rank is None else norms_by_rank(norms, rank),
    )
