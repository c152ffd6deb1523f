"""The parts of a page without plots, as HTML: findings, tables, neighbours, sample text."""

import html
import re
from collections.abc import Iterable, Sequence

from decone.files.foreign import visible, visible_token
from decone.report.format import DASH, MAIN, NOT_RUN, count, estimate, language, number, percent, verdict
from decone.report.geometry import asked, nearest
from decone.report.summary import Change, Story, stories
from decone.studies.exhibits import Exhibit
from decone.studies.table import ALIGNED, Cell, Measure, Row, Table

OPEN = 12  # seeds above which a list of seeds starts folded


def text(foreign: object) -> str:
    """A foreign string for HTML: escaped, its control characters visible."""
    return html.escape(visible(str(foreign)))


def method(table: Table, label: str) -> str:
    """A method's name with the dot of its colour."""
    place = f"own-{table.labels.index(label)}" if label in table.labels else "own-none"
    return f'<span class="swatch {place}"></span><span class="method">{_breakable(label)}</span>'


def grid(headings: Sequence[str], lines: Iterable[Sequence[str]], caption: str = "", kind: str = "") -> str:
    """A table that scrolls sideways; headings and cells are HTML, the first cell of a line heads it."""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in lines
    )
    named = f"<caption>{caption}</caption>" if caption else ""
    # tabindex: what scrolls must be reachable by keyboard
    return (
        f'<div class="scroll" tabindex="0"><table class="{kind}">{named}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def findings(table: Table, sentences: Sequence[str] | None) -> str:
    """What each method did to the language in question, in words and seed by seed."""
    told = stories(table)
    parts = []
    if sentences is not None:
        parts += [f"<p>{text(sentence)}</p>" for sentence in sentences]
    parts += [_card(table, story, sentences is None) for story in told if story.runs]
    waiting = ", ".join(method(table, story.label) for story in told if not story.runs)
    if waiting:
        parts.append(f"<p>Not run yet: {waiting}.</p>")
    if not told:
        parts.append("<p>One method only: there is nothing to compare it with.</p>")
    return "".join(parts)


def numbers(table: Table) -> str:
    """The table: mean, interval, published number and change, one block per language; then alignment."""
    parts = []
    for name in dict.fromkeys(row.language for row in table.rows):
        lines = [_line(table, row) for row in table.rows if row.language == name]
        headings = ["Method", "Seeds", *(html.escape(measure.heading) for measure in table.measures)]
        spoken = language(name)
        parts.append(grid(headings, lines, html.escape(spoken[:1].upper() + spoken[1:]), "numbers"))
    if table.alignment:
        headings = ["Method", "Runs aligned", "95 % interval", "Every seed"]
        parts.append(grid(headings, [_share(table, label) for label in table.labels], "Alignment", "numbers shares"))
        parts.append(
            '<p class="how">Alignment is the share of low-resource rows whose nearest high-resource row is their own '
            f"translation; a run counts as aligned above {percent(ALIGNED)}.</p>"
        )
    return "".join(parts) + "".join(f'<p class="how">{text(note)}</p>' for note in table.notes)


def neighbour_tables(table: Table, exhibits: Sequence[Exhibit]) -> str:
    """Nearest rows of two tokens in every language, one line per method; translations stand out."""
    parts = []
    groups: dict[tuple[tuple[str, str], ...], list[Exhibit]] = {}
    for exhibit in exhibits:
        asking = tuple((name, exhibit.tokens[i]) for name in exhibit.languages.offsets() for i in asked(exhibit))
        groups.setdefault(asking, []).append(exhibit)
    for words, members in groups.items():
        headings = ["Method", *(_word(*word) for word in words)]
        lines = []
        for exhibit in members:
            cells = []
            for (name, index), close in nearest(exhibit).items():
                found = []
                for other, place, near in close:
                    word = f"{_word(other, exhibit.tokens[place])} {number(near, 2)}"
                    found.append(f"<mark>{word}</mark>" if place == index and other != name else word)
                cells.append("<br>".join(found))
            lines.append([method(table, exhibit.label), *cells])
        parts.append(grid(headings, lines, "Nearest neighbours", "numbers"))
    return "".join(parts)


def samples(table: Table, exhibits: Sequence[Exhibit]) -> str:
    """What each model writes in each language."""
    parts = []
    for exhibit in exhibits:
        for name, written in exhibit.samples.items():
            lines = html.escape("\n".join(visible(line) for line in written.split("\n")))
            spoken = html.escape(language(name))
            where = f"{spoken[:1].upper()}{spoken[1:]}, seed {exhibit.seed}, T {exhibit.temperatures[name]:.2f}"
            parts.append(
                f"<figure><figcaption><h3>{method(table, exhibit.label)}</h3>"
                f'<p class="how">{where}</p></figcaption>'
                f'<pre tabindex="0">{lines.replace(chr(10), "<i>↵</i>" + chr(10))}</pre></figure>'
            )
    return f'<div class="grid">{"".join(parts)}</div>'


def _card(table: Table, story: Story, worded: bool) -> str:
    base = text(table.labels[0])
    against = f' <small>against <span class="method">{base}</span></small>'
    chips = "".join(
        f'<li class="chip {word.split()[0]}">{html.escape(name)}: <b>{html.escape(word)}</b></li>'
        for name, word in story.verdicts
    )
    said = "".join(f"<p>{text(sentence)}</p>" for sentence in story.sentences) if worded or not story.seeds else ""
    seeds = ""
    if story.seeds:
        headings = ["Seed", *(html.escape(change.name) for change in max(story.seeds.values(), key=len))]
        lines = [[str(seed), *map(_change, changes)] for seed, changes in story.seeds.items()]
        opened = " open" if len(lines) <= OPEN else ""
        heading = f"Seed by seed, {html.escape(language(story.language))}"
        seeds = f"<details{opened}><summary>{heading}</summary>{grid(headings, lines)}</details>"
    shown = f'<ul class="chips">{chips}</ul>' if chips else ""
    return f'<article class="card"><h3>{method(table, story.label)}{against}</h3>{shown}{said}{seeds}</article>'


def _change(change: Change) -> str:
    return (
        f'{html.escape(change.before)}<span class="arrow"> → </span>{html.escape(change.after)} '
        f'<span class="{change.word.split()[0]}">{html.escape(change.word)}</span>'
    )


def _line(table: Table, row: Row) -> list[str]:
    cells = [(measure, row.cells[measure.key]) for measure in table.measures]
    runs = max(cell.mean.count for _, cell in cells)
    return [method(table, row.label), str(runs) if runs else NOT_RUN, *(_cell(m, cell) for m, cell in cells)]


def _cell(measure: Measure, cell: Cell) -> str:
    mean, _, reach = estimate(cell.mean, measure.digits).partition(" ")
    parts = [mean + (f' <span class="pm">{reach}</span>' if reach else "")]
    if cell.published is not None:
        parts.append(f'<span class="sub">paper {number(cell.published, measure.digits)}</span>')
    if cell.difference is not None and measure.key in MAIN:
        word = verdict(measure, cell.difference)
        change = estimate(cell.difference, measure.digits, signed=True)
        parts.append(f'<span class="sub {word.split()[0]}">{change}<br>{word}</span>')
    return "".join(parts)


def _share(table: Table, label: str) -> list[str]:
    found = table.alignment.get(label)
    if found is None:
        return [method(table, label), NOT_RUN, DASH, ""]
    aligned = sum(share > ALIGNED for share in found.seeds.values())
    every = ", ".join(f"{seed}:\N{NO-BREAK SPACE}{percent(share)}" for seed, share in found.seeds.items())
    interval = f"{percent(found.share.low)} to {percent(found.share.high)}"
    return [
        method(table, label),
        f"{aligned} of {count(len(found.seeds), 'run')}",
        interval,
        every,
    ]


def _breakable(label: str) -> str:
    """A label that may be broken after its signs, not inside its words."""
    return "<wbr>".join(html.escape(part) for part in re.findall(r"[^:+,]*[:+,]|[^:+,]+", visible(label)))


def _word(name: str, written: str) -> str:
    shown = f'<span class="method">{html.escape(visible_token(written))}</span>'
    return shown if name == "all" else f"{shown} {html.escape(visible(name))}"
