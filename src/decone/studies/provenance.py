"""Provenance of a comparison: its settings, corpus, checkpoint rule, versions, machines, dates."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from decone.document.blocks import ContentBlock, Facts, Folded, Grid, Note, Phrase, Swatch, dotted_pairs
from decone.document.figures import colour, mark
from decone.document.numbers import DASH, count
from decone.studies.table import Results, StudyTable

IDENTITY = ("method", "seed")  # settings that the rows and dots say already
RULES = {
    "best": "the checkpoint with the lowest validation loss of each run, looked at every {every} steps",
    "last": "the last checkpoint of each run",
}


def provenance_blocks(table: StudyTable, results: Results, provenance: Mapping[str, Any]) -> Iterator[ContentBlock]:
    """Blocks about the runs of a comparison; `provenance` describes the drawing of the page."""
    runs = [result for seeds in results.values() for result in seeds.values()]
    common, differing = split_settings(results)
    yield Facts(tuple(_run_facts(table, runs, common)))
    if differing:
        labels = [label for label in table.labels if results.get(label)]
        lines = [(key, *(values.get(label, DASH) for label in labels)) for key, values in differing.items()]
        yield Grid(
            ("Setting", *(method_swatch(table.labels, label) for label in labels)), tuple(lines), "Settings that differ"
        )
    elif len(runs) > 1:
        yield Note("Apart from method and seed, all runs have the same settings.")
    for heading, pairs in (("Settings of all runs", common), ("Drawn with", dict(dotted_pairs(provenance)))):
        if pairs:
            yield Folded(heading, (Facts(tuple(pairs.items())),))


def split_settings(results: Results) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Splits settings into those that all runs share and those that differ.

    Returns:
        Value by dotted key; and, for each key that is not the same in all runs, the values of each method. Method, seed
        and the machine's section are left out of both.
    """
    values: dict[str, dict[str, list[str]]] = {}
    for label, runs in results.items():
        for result in runs.values():
            for key, value in dotted_pairs(result["config"]):
                if key not in IDENTITY and not key.startswith("machine."):
                    distinct = values.setdefault(key, {}).setdefault(label, [])
                    distinct += [value] if value not in distinct else []
    labels = [label for label, runs in results.items() if runs]
    common: dict[str, str] = {}
    differing: dict[str, dict[str, str]] = {}
    for key, by_label in values.items():
        distinct = list(dict.fromkeys(value for texts in by_label.values() for value in texts))
        if len(distinct) == 1 and len(by_label) == len(labels):
            common[key] = distinct[0]
        else:
            differing[key] = {label: " or ".join(texts) for label, texts in by_label.items()}
    return common, differing


def _run_facts(
    table: StudyTable, runs: Sequence[Mapping[str, Any]], common: Mapping[str, str]
) -> Iterator[tuple[str, Phrase]]:
    if not runs:
        yield "Runs", "none is finished"
        return
    yield "Runs", f"{count(len(runs), 'run')} of {common.get('steps', 'differing')} steps"
    yield from (("Corpus", line) for line in _distinct(_corpus(run.get("corpus", {})) for run in runs))
    yield "What is measured", RULES[table.select].format(every=common.get("evaluation.every", "some"))
    yield from (("Model", line) for line in _distinct(map(_model, runs)))
    yield from (("Machine", line) for line in _distinct(_machine(run.get("machine", {})) for run in runs))
    yield from (("Versions", line) for line in _distinct(_versions(run.get("versions", {})) for run in runs))
    yield from (("Commit", line) for line in _distinct(str(run.get("commit") or "") for run in runs))
    days = sorted(str(run["date"])[:10] for run in runs if run.get("date"))
    if days:
        yield "Date", " to ".join(dict.fromkeys((days[0], days[-1])))
    seconds = sum(float(run.get("seconds", 0)) for run in runs)
    yield "Time", f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"


def _distinct(lines: Iterable[str]) -> list[str]:
    return [line for line in dict.fromkeys(lines) if line]


def _corpus(corpus: Mapping[str, Any]) -> str:
    if not corpus:
        return ""
    tokens = f", {corpus['tokens']:,} tokens" if isinstance(corpus.get("tokens"), int) else ""
    digest = f", SHA-256 {str(corpus['sha256'])[:12]}…" if corpus.get("sha256") else ""
    source = f" ({corpus['source']})" if corpus.get("source") else ""
    return f"{corpus.get('name')}{source}{tokens}{digest}"


def _model(run: Mapping[str, Any]) -> str:
    units = (("parameters", "parameters"), ("vocabulary", "token ids"))
    return ", ".join(f"{run[key]:,} {unit}" for key, unit in units if key in run)


def _machine(machine: Mapping[str, Any]) -> str:
    cores = count(machine["cores"], "core") if machine.get("cores") else ""
    items = (machine.get("accelerator"), machine.get("processor"), cores, machine.get("system"))
    return ", ".join(str(item) for item in items if item)


def _versions(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items() if version)


def method_swatch(labels: Sequence[str], label: str) -> Swatch:
    """A method's name with the dot of its colour in figures; a method that is none of the labels comes after them."""
    index = labels.index(label) if label in labels else len(labels)
    return Swatch(label, colour(index), hollow=mark(index) != "circle", mono=True)
