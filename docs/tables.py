"""Writes the tables of committed results into the pages, between `<!-- table NAME -->` and `<!-- end -->`.

python docs/tables.py
"""

import re
from pathlib import Path

from decone.report import markdown
from decone.studies.paper import Reproduction
from decone.studies.stop_jostling import TABLES

ROOT = Path(__file__).resolve().parents[1]
PLACE = re.compile(r"(<!-- table (?P<name>[\w:-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """The page with every table drawn from the results under `results/`."""
    return PLACE.sub(lambda place: f"{place[1]}\n{table(place['name'])}\n{place[3]}", text)


def table(name: str) -> str:
    """One table in markdown; rows without a finished run are left out."""
    paper = TABLES[name]
    folder = ROOT / "results" / paper.study
    rows = [row for row in paper.rows if any(folder.glob(f"{row.name}-seed-*.json"))]
    study = Reproduction(paper, rows, [], ROOT / "results", ROOT / "runs")
    return markdown.render(study.render()).strip() + "\n"


if __name__ == "__main__":
    for page in sorted((ROOT / "docs").glob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"{page.relative_to(ROOT)} is new")
