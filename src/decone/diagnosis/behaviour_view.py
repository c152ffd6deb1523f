"""Sections of a scan beyond its tables: what the model does on a text, gradients, words, another model."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath

from decone.diagnosis import figures
from decone.diagnosis.figures import GROUPS, group_swatch
from decone.diagnosis.result import Behaviour, Blame, ModelDiff, Perplexities, Repetition, WordSimilarity
from decone.document.blocks import (
    CellContent,
    ContentBlock,
    Facts,
    Figure,
    Folded,
    Grid,
    GridCell,
    GridColumn,
    Media,
    Note,
    Samples,
    Styled,
    Token,
)
from decone.document.figures import bars
from decone.document.numbers import number, proportion, significant
from decone.files.foreign import shorten

BRIEF = 10  # rows of a long table in a terminal
SAMPLES = 12  # continuations shown of each way of decoding


def behaviour_blocks(behaviour: Behaviour) -> Iterator[ContentBlock]:
    """Perplexity by kind of token, repetition beside a human text, decoding, samples."""
    pairs = (
        (f"{shorten(behaviour.text, 60)}: perplexity", significant(behaviour.perplexity)),
        (f"best, at T = {number(behaviour.best_temperature, 2)}", significant(behaviour.best_perplexity)),
        ("accuracy", proportion(behaviour.accuracy)),
        ("Recall@5", proportion(behaviour.recall5)),
        ("MRR", significant(behaviour.mrr)),
        ("bits per byte", significant(behaviour.bits_per_byte)),
    )
    yield Facts(pairs, inline=True, media=Media.SCREEN)
    if behaviour.groups:
        names = [name for name in ("all", *GROUPS) if name in behaviour.groups]
        names += sorted(behaviour.groups.keys() - set(names), key=lambda name: -behaviour.groups[name].tokens)
        yield _perplexities("By frequency", behaviour.groups, names, Media.SCREEN)
        yield Note("Bars of perplexity are logarithmic.", "hint", media=Media.PAGE)
    if behaviour.scripts:
        names = sorted(behaviour.scripts, key=lambda name: -behaviour.scripts[name].tokens)
        yield _perplexities("By script", behaviour.scripts, names, Media.PAGE)
    yield from _behaviour_figures(behaviour)
    if behaviour.decoding:
        yield from _decoding(behaviour.decoding)


def _perplexities(caption: str, scores: Mapping[str, Perplexities], names: Sequence[str], media: Media) -> Grid:
    logs = [math.log(score.perplexity) for score in scores.values() if score.perplexity and score.perplexity > 1]
    highest = max(filter(math.isfinite, logs), default=0.0)
    rows = []
    for name in names:
        score = scores[name]
        value = score.perplexity
        height = math.log(value) / highest if value and highest and 1 < value < math.inf else 0.0
        rows.append(
            (
                group_swatch(name) if caption == "By frequency" else shorten(name, 40),
                score.tokens,
                GridCell(score.share, format=proportion, bar=score.share),
                GridCell(value, bar=height),
                GridCell(score.accuracy, format=proportion, bar=score.accuracy),
            )
        )
    columns = (caption, "Tokens", "Share of the text", "Perplexity", "Accuracy")
    return Grid(columns, rows, media=media)


def _behaviour_figures(behaviour: Behaviour) -> Iterator[Figure]:
    lengths = sorted({*behaviour.rep_at, *behaviour.rep_at_human}, key=_as_number)
    colours = figures.SERIES_COLOURS
    if lengths:
        series: dict[str, Mapping[str, float | int]] = {"model": behaviour.rep_at, "human": behaviour.rep_at_human}
        reading = "Share of the model's next tokens that stand among the last l already; the text itself in grey."
        draw = partial(bars, lengths, series, colours, "last l tokens", percent=True)
        yield Figure("Does it repeat what was just said?", reading, draw)
    sizes = _ngram_sizes(behaviour.decoding)
    if sizes:
        series = {name: behaviour.decoding[name].rep for name in _human_first(behaviour.decoding)}
        reading = "Share of repeated n-grams in its continuations, for each way of decoding; human text in grey."
        draw = partial(bars, sizes, series, figures.DECODING_COLOURS, "n", percent=True)
        yield Figure("Which way of decoding repeats itself?", reading, draw)
    groups = [name for name in GROUPS if name in behaviour.uniq or name in behaviour.uniq_human]
    if groups:
        series = {"model": behaviour.uniq, "human": behaviour.uniq_human}
        reading = "Different tokens of each group that the model puts first somewhere, and that the text itself holds. "
        reading += "A short bar beside a long grey one: tokens that it never chooses."
        draw = partial(bars, groups, series, colours, "group", percent=False)
        yield Figure("How much of its vocabulary does it use?", reading, draw, wide=bool(lengths) == bool(sizes))


def _decoding(decoding: Mapping[str, Repetition]) -> Iterator[ContentBlock]:
    sizes = _ngram_sizes(decoding)
    rows: list[list[CellContent]] = []
    for name in _human_first(decoding):
        run = decoding[name]
        rates = [GridCell(run.rep.get(n), format=proportion) for n in sizes]
        rows.append([shorten(name, 40), *rates, run.uniq_words, run.uniq_tokens, run.continuations])
    headings = ["Decoding", *(f"Rep-{n}" for n in sizes), "Different words", "Different tokens"]
    columns: list[str | GridColumn] = [*headings, GridColumn("Continuations", media=Media.PAGE)]
    yield Grid(columns, rows, "Continuations", media=Media.SCREEN)
    for name in _human_first(decoding):
        pairs = tuple(decoding[name].samples[:SAMPLES])
        if pairs:
            yield Folded(f"Samples: {shorten(name, 40)}", (Samples(pairs),), media=Media.PAGE)


def _ngram_sizes(decoding: Mapping[str, Repetition]) -> list[str]:
    return sorted({n for run in decoding.values() for n in run.rep}, key=_as_number)


def _human_first(names: Iterable[str]) -> list[str]:
    """Names in order, the human reference before all others."""
    return sorted(names, key=lambda name: name != "human")


def _as_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def blame_blocks(blame: Blame) -> Iterator[ContentBlock]:
    """The gradient microscope: pulls and pushes by group, and the rows they act on."""
    ratios, averages = blame.ratio_of_average, blame.average_of_ratio
    names = [name for name in ("all", *GROUPS) if name in ratios or name in averages]
    rows = [(group_swatch(name), ratios.get(name), averages.get(name)) for name in names]
    yield Grid(("Pull over push", "Ratio of average", "Average of ratio"), rows, media=Media.SCREEN)
    reading = "Below 1 a row is moved more by targets that are not it than by what speaks for it "
    yield Note(f"{reading}(Turumtaev, Stop Jostling, Figure 3).", "hint", media=Media.PAGE)
    if not blame.rows:
        return
    reading = "A dot for each row; below the dashed line the push is stronger than the pull. "
    reading += "Rows without any pull lie on the lower edge."
    yield Figure("Which rows are pushed more than pulled?", reading, partial(figures.pull_and_push, blame.rows))
    reading = "Mean gradient norm on the rows of each group by where it comes from: circles pull, triangles push. "
    reading += "Healthy rows have their circles right of their triangles."
    yield Figure("Who pushes whom?", reading, partial(figures.forces, blame.rows))
    columns = ("Token", GridColumn("Group", "left"), "Count", "Pull", "Input", "Push", "Pull over push")
    table = []
    for row in blame.rows:
        ratio = (row.pull + row.input) / row.push if row.push > 0 else None
        table.append((Token(row.token), group_swatch(row.group), row.count, row.pull, row.input, row.push, ratio))
    grid = Grid(columns, table, "Rows", quiet=True, search="a token or a group", page=15)
    yield Folded(f"All {len(blame.rows):,} rows", (grid,), media=Media.PAGE)


def words_blocks(files: Sequence[WordSimilarity]) -> Iterator[ContentBlock]:
    """Agreement with human judgements of word similarity."""
    names = [shorten(PurePosixPath(file.file.replace("\\", "/")).name or file.file, 60) for file in files]
    reading = "Spearman correlation × 100 with human judgements; the line is the 95 % interval. Higher is better."
    draw = partial(figures.word_similarity, files, names)
    yield Figure("Do near rows mean near words?", reading, draw, wide=True)
    rows = [
        (
            name,
            f"{file.used:,} of {file.pairs:,}",
            figures.score_text(file.plain, file.plain_interval),
            figures.score_text(file.spaced, file.spaced_interval),
        )
        for name, file in zip(names, files, strict=True)
    ]
    columns = ("Word pairs", "Used", "Without leading space", "With leading space")
    yield Grid(columns, rows, media=Media.SCREEN)


def diff_blocks(diff: ModelDiff) -> Iterator[ContentBlock]:
    """Metrics before and after, groups, and the most changed rows."""
    yield Note(("Against ", Styled(shorten(diff.reference, 120), "strong")), media=Media.TERMINAL)
    if diff.metrics:
        metrics = [
            (shorten(name, 80), before, after, _change(None if before is None or after is None else after - before))
            for name, (before, after) in diff.metrics.items()
        ]
        headings = ("Measure", "before", "this model", "change")
        yield Grid(headings, metrics, "Before and after", quiet=True, media=Media.SCREEN)
    if not diff.same_width:
        yield Note("The two tables differ in width, so rows are not compared one to one.", "notice", media=Media.SCREEN)
    names = [name for name in ("all", *GROUPS) if name in diff.cosine or name in diff.neighbours]
    if names:
        groups = [
            (group_swatch(name), diff.cosine.get(name), GridCell(diff.neighbours.get(name), format=proportion))
            for name in names
        ]
        columns = ("Group", "cosine of a row with itself", "nearest ten in common")
        yield Grid(columns, groups, "How much each group moved", media=Media.SCREEN)
    if diff.changed:
        rows = [
            (
                Token(row.token),
                GridCell(str(row.id), row.id),
                group_swatch(row.group),
                _change(row.cosine),
                row.norm_before,
                row.norm_after,
            )
            for row in diff.changed
        ]
        yield Grid(
            ("Token", "Id", GridColumn("Group", "left"), "Cosine", "Norm before", "Norm after"),
            rows,
            "Which rows changed most?",
            search="a token or an id",
            page=15,
            brief=BRIEF,
            media=Media.SCREEN,
        )


def _change(value: float | None) -> GridCell:
    return GridCell(value, format=partial(significant, signed=True))
