"""Rows of a scanned table that were never trained, and tokens that look so, as HTML."""

import html
from collections.abc import Iterable, Sequence
from itertools import pairwise

from decone.diagnosis.result import RowFinding, ScanResult
from decone.report.format import DASH
from decone.report.scan_sections import swatch
from decone.report.scan_strings import named, sentence, word
from decone.report.scan_words import KINDS, LISTED, UNUSUAL, share, significant

RUNS = 60  # runs of ids that are shown
TOKENS = 60  # tokens of a kind that are shown


def runs(ids: Sequence[int], limit: int = RUNS) -> str:
    """Ids with neighbouring ones drawn together.

    Example:
        >>> runs([1, 2, 3, 7, 9, 10])
        '1–3, 7, 9, 10'
    """
    ordered = sorted(set(ids))
    breaks = [0, *(place for place, (a, b) in enumerate(pairwise(ordered), 1) if b != a + 1), len(ordered)]
    found = [ordered[low:high] for low, high in pairwise(breaks) if low < high]
    said = [
        str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" if len(run) > 2 else f"{run[0]}, {run[1]}"
        for run in found[:limit]
    ]
    return ", ".join(said) + (", …" if len(found) > limit else "")


def never_trained(result: ScanResult) -> str:
    """Rows of each kind: how many, what that means, which."""
    found = [finding for finding in result.rows if finding.count]
    if not found:
        return "<p>None: every row is its own, finite, reachable and looks trained.</p>"
    return f'<div class="kinds">{"".join(_kind(finding, result.model.rows) for finding in found)}</div>'


def _kind(finding: RowFinding, rows: int) -> str:
    tokens = " ".join(word(text, 30) for text in finding.tokens[:TOKENS])
    more = " …" if finding.count > min(len(finding.tokens), TOKENS) and tokens else ""
    ids = runs(finding.ids)
    listed = f'<p class="ids">ids {ids}{"" if finding.count <= len(finding.ids) or ids.endswith("…") else ", …"}</p>'
    note = f'<p class="how">{sentence(finding.note, 300)}</p>' if finding.note else ""
    return (
        f'<article class="card kind"><h3><span class="amount">{finding.count:,}</span> {finding.kind} '
        f"<small>{share(float(finding.count), rows)} of the rows</small></h3><p>{KINDS[finding.kind]}</p>{note}"
        f"<details><summary>{_first(finding)}</summary>{listed if finding.ids else ''}"
        f'<p class="words">{tokens}{more}</p></details></article>'
    )


def _first(finding: RowFinding) -> str:
    said = runs(finding.ids, 4)
    return f"ids {said}" if said else "Which"


def suspects(result: ScanResult) -> str:
    """The tokens that seem never trained, in a table that can be searched and sorted."""
    if not result.suspects:
        return "<p>None: no token that the tokenizer produces stands out.</p>"
    counted = any(suspect.count is not None for suspect in result.suspects)
    heads = [("Token", "text"), ("Id", "number"), ("Score", "number"), ("Group", "text"), ("Norm", "number")]
    heads += [("Count", "number")] if counted else []
    lines = []
    for suspect in result.suspects:
        cells = [
            (named(suspect.token), None),
            (str(suspect.id), suspect.id),
            (_score(suspect.score), suspect.score),
            (swatch(suspect.group), None),
            (significant(suspect.norm), suspect.norm),
        ]
        if counted:
            cells.append((DASH if suspect.count is None else f"{suspect.count:,}", suspect.count))
        reasons = "".join(f"<li>{sentence(reason, 160)}</li>" for reason in suspect.reasons)
        lines.append([*cells, (f'<ul class="reasons">{reasons}</ul>', None)])
    full = " The list ends there." if len(result.suspects) >= LISTED else ""
    lede = f'<p class="how">A score above {UNUSUAL} is unusual. Listed are {len(result.suspects):,} tokens.{full}</p>'
    return lede + searchable("suspects", "Suspects", [*heads, ("Reasons", "text")], lines, "a token, an id, a reason")


def searchable(
    name: str,
    title: str,
    heads: Sequence[tuple[str, str]],
    lines: Iterable[Sequence[tuple[str, float | int | None]]],
    example: str,
    page: int = 25,
) -> str:
    """A table with search, sorting and pages; without JavaScript all of it is shown.

    Args:
        name: in ids of the page.
        title: caption (HTML).
        heads: heading (HTML) and "text" or "number" of each column.
        lines: HTML of each cell, and the number that it is sorted by.
        example: what one may search for.
        page: lines on a page.
    """
    head = "".join(f'<th scope="col" data-sort="{kind}" class="{kind}">{heading}</th>' for heading, kind in heads)
    body = "".join(f"<tr>{''.join(_cell(place, *cell) for place, cell in enumerate(line))}</tr>" for line in lines)
    label = html.escape(f"Search {title.lower()}: {example}")
    return (
        f'<div class="searchable" data-page="{page}"><div class="tools" hidden>'
        f'<input type="search" id="{name}-search" placeholder="Search: {html.escape(example)}" aria-label="{label}" '
        f'autocomplete="off" spellcheck="false"><p class="status" role="status"></p></div>'
        f'<div class="scroll" tabindex="0"><table class="long"><caption class="unseen">{title}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f'<div class="pages" hidden><button type="button" class="back">← Previous</button>'
        f'<button type="button" class="on">Next →</button></div></div>'
    )


def _score(score: float) -> str:
    return f"{score:.1f}" if score < 1000 else significant(score)


def _cell(place: int, content: str, value: float | int | None) -> str:
    known = "" if value is None else f' data-value="{value!r}"'
    return f'<th scope="row"{known}>{content}</th>' if place == 0 else f"<td{known}>{content}</td>"
