"""Writes the tables of committed results into the pages, between `<!-- table NAME -->` and `<!-- end -->`.

A table of fine-tuned models has the model behind its name, `<!-- table definitionemb:glue minilm -->`.

Tables of `benchmarks/engines.py` stand between `<!-- engines WORKLOAD -->` and `<!-- end -->`, those of
`benchmarks/definitions.py` between `<!-- definitions -->` and `<!-- end -->`.

python docs/tables.py
"""

import json
import re
from pathlib import Path
from typing import Any

from decone.document import markdown
from decone.studies.reproduce import EXHIBITS
from decone.studies.store import FinetuneRequest, Study, StudyRequest
from decone.studies.view import table_document

ROOT = Path(__file__).resolve().parents[1]
PLACE = re.compile(r"(<!-- table (?P<name>[\w:-]+)(?: (?P<model>[\w.-]+))? -->\n).*?(<!-- end -->)", re.DOTALL)
ENGINES = re.compile(r"(<!-- engines (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
DEFINITIONS = re.compile(r"(<!-- definitions -->\n).*?(<!-- end -->)", re.DOTALL)
REBUILT = {
    "gloss": "mean row of the definition's words, nothing learned",
    "slot": "frozen model, state at one masked slot, first sense",
    "ridge-once": "`rounds=1`",
    "ridge-mean": "`senses=mean`",
    "ridge": "**default**",
    "gradient": "**`solver=gradient`**",
}
WAYS = {
    "chunked": "**decone**",
    "dense": "PyTorch, dense",
    "compiled": "PyTorch, dense, compiled",
    "lce": "PyTorch `linear_cross_entropy`, default options",
    "lce-tuned": "PyTorch `linear_cross_entropy`, 256 positions",
    "cce-compiled": "cut-cross-entropy, `torch_compile`",
    "naive": "whole logits, by hand",
}
LOSSES = {"ce": "cross-entropy", "agg": "AGG", "scalegrad": "ScaleGrad", "unlikelihood": "unlikelihood"}


def filled(text: str) -> str:
    """The page with every table drawn from the results under `results/`."""
    text = ENGINES.sub(lambda place: f"{place[1]}\n{engines(place['name'])}\n{place[3]}", text)
    text = DEFINITIONS.sub(lambda place: f"{place[1]}\n{definitions()}\n{place[2]}", text)
    return PLACE.sub(lambda place: f"{place[1]}\n{table(place['name'], place['model'])}\n{place[4]}", text)


def table(name: str, model: str | None) -> str:
    """One table in markdown; rows without a finished run are left out."""
    exhibit = EXHIBITS[name]

    def study(rows: list[str]) -> Study:
        request = StudyRequest(",".join(rows), [], ROOT / "results", ROOT / "runs")
        return exhibit.plan(request, FinetuneRequest(model))

    there = zip(exhibit.row_names, study(exhibit.row_names).documents().values(), strict=True)
    rows = [row for row, documents in there if documents]
    return markdown.render(table_document(study(rows).render())).strip() + "\n" if rows else "No run is finished yet.\n"


def definitions() -> str:
    """What definitions give back of a loss planted in a real table: rows against the true ones, and tasks."""
    path = ROOT / "results" / "benchmarks" / "definitions.json"
    if not path.is_file():
        return "Not measured yet.\n"
    found = json.loads(path.read_text(encoding="utf-8"))
    table = [
        "| rows by | R2 | cosine | length | own row nearest | among 10 | median rank | seconds |",
        "|" + " --- |" + " --: |" * 7,
    ]
    for way, result in sorted(found["ways"].items(), key=lambda item: list(REBUILT).index(item[0])):
        rows = result["lost"]
        spans = [f"{100 * a:.1f} % ({100 * b:.1f} to {100 * c:.1f})" for a, b, c in (rows["nearest"], rows["top10"])]
        cosine = "{:.3f} ({:.3f} to {:.3f})".format(*rows["cosine"])
        cells = [REBUILT[way], f"{rows['r2']:.3f}", cosine, f"{rows['norm_ratio']:.2f}", *spans]
        threads = result.get("threads", found["threads"])
        took = f"{result['seconds']:.0f}" + (f" ({threads} threads)" if threads != found["threads"] else "")
        table.append(f"| {' | '.join([*cells, str(rows['median_rank']), took])} |")
    sets = list(found["original"])
    table += ["", f"| table | {' | '.join(sets)} |", "|" + " --- |" + " --: |" * len(sets)]
    for name in ("original", "damaged"):
        table.append(f"| {name} | {' | '.join(_correlation(found[name][key]) for key in sets)} |")

    def judged(heading: str, result: dict[str, Any]) -> str:
        cells = [f"{result['judged'][key][0]:.3f}, {100 * result['recovered'][key]:.0f} %" for key in sets]
        return f"| {heading} | {' | '.join(cells)} |"

    table.append(judged("the mean row", found["mean"]))
    for way in REBUILT:
        for scale in ("none", "spread"):
            if way in found["ways"]:
                table.append(judged(f"{REBUILT[way]}, `scale={scale}`", found["ways"][way][scale]))
    table += ["", "| whole table | I(W), both signs | mean cosine | mean norm |", "|" + " --- |" + " --: |" * 3]
    for way in REBUILT:
        for scale in ("none", "spread"):
            if way in found["ways"]:
                geometry = found["ways"][way][scale]["geometry"]
                parts = [geometry[key] for key in ("before", "after", "control")]
                cells = [
                    " / ".join(f"{part[key]:.3f}" for part in parts) for key in ("isotropy_plus_minus", "mean_cosine")
                ]
                cells.append(" / ".join(f"{part['norms']['mean']:.3f}" for part in parts[:2]))
                table.append(f"| {REBUILT[way]}, `scale={scale}` | {' | '.join(cells)} |")
    machine = f"{found['machine']['processor']}, torch {found['versions']['torch']}, {found['date'][:10]}"
    return "\n".join(table) + f"\n\n{machine}; {found['threads']} thread, {found['precision']}, seed {found['seed']}.\n"


def _correlation(value: list[float]) -> str:
    if len(value) == 2:
        return f"{value[0]:.3f}"
    return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"


def engines(name: str) -> str:
    """Loss and gradients on one workload: time and peak memory of everything that ran, the slowest first."""
    lines = (ROOT / "results" / "benchmarks" / "engines.jsonl").read_text(encoding="utf-8").splitlines()
    sizes = {"W1": (2048, 32768, 3.3), "W1-untrained": (2048, 32768, 3.3)}.get(name)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in map(json.loads, lines):
        load = row["workload"]
        if load["name"] != name or row["pass"] != "step" or "milliseconds" not in row or row["way"] == "product":
            continue
        if sizes is None or (load["N"], load["V"], load["mean_nll"]) == sizes:
            found[row["way"], row["loss"]] = row
    head = (
        "| loss | by | ms | of dense PyTorch | of tuned PyTorch | of our plain | of the floor | peak MiB | of dense |"
    )
    table = [head, "|" + " --- |" * 2 + " --: |" * 7]
    for (way, loss), row in sorted(found.items(), key=lambda item: -item[1]["milliseconds"][0]):
        kind, _, margin = loss.partition(":")
        what = f"threshold, margin {margin}" if kind == "threshold" else LOSSES[kind]
        peak, share = row.get("peak_mebibytes"), row.get("peak_of_dense")
        ratios = [row[key] for key in ("of_dense", "of_tuned", "of_chunked", "of_floor")]
        cells = [what, WAYS.get(way, f"`{way}`"), f"{row['milliseconds'][0]:,.0f}"]
        cells += ["" if ratio is None else f"{ratio[0]:.2f}" for ratio in ratios]
        cells += ["" if peak is None else f"{peak:.0f}", "" if share is None else f"{share:.3f}"]
        table.append(f"| {' | '.join(cells)} |")
    about = next(iter(found.values()))
    machine = f"{about['machine']['processor']}, torch {about['versions']['torch']}, {about['date'][:10]}"
    return "\n".join(table) + f"\n\n{machine}; {about['rounds']} rounds.\n"


if __name__ == "__main__":
    for page in sorted((ROOT / "docs").glob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"{page.relative_to(ROOT)} is new")
