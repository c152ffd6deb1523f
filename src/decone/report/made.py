"""How the numbers of a page were made: settings, corpus, checkpoint rule, versions, machines, dates."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from decone.files.foreign import visible
from decone.report.format import count
from decone.report.sections import grid, method, text
from decone.studies.table import Results, Table

OWN = ("method", "seed")  # what the rows and dots already tell
RULES = {
    "best": "the checkpoint with the lowest validation loss of each run, looked at every {every} steps",
    "last": "the last checkpoint of each run",
}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as dotted keys with their values as text.

    Example:
        >>> list(flat({"model": {"width": 64}, "commit": None}))
        [('model.width', '64'), ('commit', 'not known')]
    """
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{dotted}.")
        elif value is None:
            yield dotted, "not known"
        else:
            yield dotted, value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def settings(results: Results) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The settings all runs share, and those that differ, by method.

    Returns:
        Value by dotted key; and, for each key that is not the same in all runs, the values of each method. Method, seed
        and the machine's section are left out of both.
    """
    seen: dict[str, dict[str, list[str]]] = {}
    for label, runs in results.items():
        for result in runs.values():
            for key, value in flat(result["config"]):
                if key not in OWN and not key.startswith("machine."):
                    many = seen.setdefault(key, {}).setdefault(label, [])
                    many += [value] if value not in many else []
    labels = [label for label, runs in results.items() if runs]
    same: dict[str, str] = {}
    different: dict[str, dict[str, str]] = {}
    for key, found in seen.items():
        values = {value for many in found.values() for value in many}
        if len(values) == 1 and len(found) == len(labels):
            same[key] = values.pop()
        else:
            different[key] = {label: " or ".join(many) for label, many in found.items()}
    return same, different


def made(table: Table, results: Results, provenance: Mapping[str, Any]) -> str:
    """The section as HTML; `provenance` describes the drawing of the page, the results describe themselves."""
    runs = [result for seeds in results.values() for result in seeds.values()]
    same, different = settings(results)
    parts = [_list(_facts(table, runs, same))]
    if different:
        labels = [label for label in table.labels if results.get(label)]
        lines = [[text(key), *(text(found.get(label, "—")) for label in labels)] for key, found in different.items()]
        parts.append(
            grid(["Setting", *(method(table, label) for label in labels)], lines, "Settings that differ", "numbers")
        )
    elif len(runs) > 1:
        parts.append("<p>Apart from method and seed, all runs have the same settings.</p>")
    for heading, pairs in (("Settings of all runs", same), ("Drawn with", dict(flat(provenance)))):
        if pairs:
            parts.append(f"<details><summary>{heading}</summary>{_list(pairs.items())}</details>")
    return "".join(parts)


def _list(pairs: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{text(key)}</dt><dd>{text(value)}</dd>' for key, value in pairs)}</dl>"


def _facts(table: Table, runs: Sequence[dict[str, Any]], same: Mapping[str, str]) -> list[tuple[str, str]]:
    if not runs:
        return [("Runs", "none is finished")]
    facts = [("Runs", f"{count(len(runs), 'run')} of {same.get('steps', 'differing')} steps")]
    facts += [("Corpus", line) for line in _distinct(_corpus(run.get("corpus", {})) for run in runs)]
    rule = RULES[table.select].format(every=same.get("evaluation.every", "some"))
    facts.append(("What is measured", rule))
    facts += [("Model", line) for line in _distinct(_model(run) for run in runs)]
    facts += [("Machine", line) for line in _distinct(_machine(run.get("machine", {})) for run in runs)]
    versions = _distinct(
        ", ".join(f"{package} {version}" for package, version in run.get("versions", {}).items() if version)
        for run in runs
    )
    facts += [("Versions", line) for line in versions]
    facts += [("Commit", line) for line in _distinct(str(run["commit"]) for run in runs if run.get("commit"))]
    dates = sorted(str(run["date"]) for run in runs if run.get("date"))
    if dates:
        days = list(dict.fromkeys((dates[0][:10], dates[-1][:10])))
        facts.append(("Date", " to ".join(days)))
    seconds = sum(float(run.get("seconds", 0)) for run in runs)
    facts.append(("Time", f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"))
    return facts


def _distinct(lines: Iterable[str]) -> list[str]:
    return [line for line in dict.fromkeys(lines) if line]


def _corpus(corpus: Mapping[str, Any]) -> str:
    if not corpus:
        return ""
    amount = f", {corpus['tokens']:,} tokens" if isinstance(corpus.get("tokens"), int) else ""
    digest = f", SHA-256 {str(corpus['sha256'])[:12]}…" if corpus.get("sha256") else ""
    source = f" ({corpus['source']})" if corpus.get("source") else ""
    return visible(f"{corpus.get('name')}{source}{amount}{digest}")


def _model(run: Mapping[str, Any]) -> str:
    sizes = [
        f"{run[key]:,} {unit}"
        for key, unit in (("parameters", "parameters"), ("vocabulary", "token ids"))
        if key in run
    ]
    return ", ".join(sizes)


def _machine(machine: Mapping[str, Any]) -> str:
    cores = count(machine["cores"], "core") if machine.get("cores") else ""
    return ", ".join(
        str(part)
        for part in (machine.get("accelerator"), machine.get("processor"), cores, machine.get("system"))
        if part
    )
