"""What a scanned model does on a text: perplexity by kind of token, repetition against a human, decoding, samples."""

import html
import math
from collections.abc import Mapping

from decone.diagnosis.result import Behaviour, Perplexities, Repetition
from decone.files.foreign import LONG
from decone.report.format import DASH, number
from decone.report.frame import Canvases, Plot
from decone.report.scan_bars import bars
from decone.report.scan_sections import swatch
from decone.report.scan_strings import sentence
from decone.report.scan_style import MODEL, human_first
from decone.report.scan_words import GROUPS, share, significant
from decone.report.sections import grid
from decone.report.style import LIGHT

SAMPLES = 12  # continuations shown of each way of decoding
DECODING = {"greedy": LIGHT[1], "beam": LIGHT[4], "top-k": LIGHT[2], "top-p": LIGHT[3], "human": LIGHT[0]}


def behaviour(found: Behaviour, canvases: Canvases) -> str:
    """The section as HTML; its figures go to `canvases`."""
    overall = [
        ("perplexity", significant(found.perplexity)),
        (f"best, at T = {number(found.best_temperature, 2)}", significant(found.best_perplexity)),
        ("accuracy", share(found.accuracy)),
        ("Recall@5", share(found.recall5)),
        ("MRR", significant(found.mrr)),
        ("bits per byte", significant(found.bits_per_byte)),
    ]
    said = " · ".join(f"{name} <b>{html.escape(value)}</b>" for name, value in overall)
    pieces = [f'<p class="more">{said}</p>']
    if found.groups:
        pieces.append(_perplexities("By frequency", found.groups, True))
    if found.scripts:
        pieces.append(_perplexities("By script", found.scripts, False))
    plots = _plots(found)
    if plots:
        pieces.append(canvases.grid(plots))
    if found.decoding:
        pieces += [_decoding(found.decoding), _samples(found.decoding)]
    return "".join(pieces)


def _perplexities(caption: str, parts: Mapping[str, Perplexities], by_group: bool) -> str:
    known = [part.perplexity for part in parts.values() if part.perplexity is not None and part.perplexity > 1]
    highest = max((math.log(value) for value in known if math.isfinite(value)), default=0.0)
    names = [name for name in ("all", *GROUPS) if name in parts] if by_group else []
    names += sorted(parts.keys() - set(names), key=lambda name: -parts[name].tokens)
    lines = []
    for name in names:
        part = parts[name]
        value = part.perplexity
        reach = math.log(value) / highest if value and highest and 1 < value < math.inf else 0.0
        lines.append(
            [
                swatch(name) if by_group else sentence(name, 40),
                f"{part.tokens:,}",
                f"{share(part.share)}{_bar(part.share)}",
                f"{significant(value)}{_bar(reach)}",
                DASH if part.accuracy is None else f"{share(part.accuracy)}{_bar(part.accuracy)}",
            ]
        )
    heads = [caption, "Tokens", "Share of the text", "Perplexity (log bar)", "Accuracy"]
    return grid(heads, lines, "", "numbers barred")


def _bar(part: float) -> str:
    width = 100 * min(max(part, 0.0), 1.0) if math.isfinite(part) else 0.0
    return f'<span class="bar" aria-hidden="true"><span style="width:{width:.1f}%"></span></span>'


def _plots(found: Behaviour) -> list[Plot]:
    plots = []
    lengths = sorted({*found.rep_at, *found.rep_at_human}, key=_as_number)
    if lengths:
        series: dict[str, dict[str, float]] = {"model": found.rep_at, "human": found.rep_at_human}
        how = "Share of the model's next tokens that stand among the last l already; the text itself in grey."
        plots.append(
            Plot("Does it repeat what was just said?", how, bars(lengths, series, MODEL, "last l tokens", percent=True))
        )
    sizes = sorted({n for one in found.decoding.values() for n in one.rep}, key=_as_number)
    if sizes:
        series = {name: found.decoding[name].rep for name in human_first(found.decoding)}
        how = "Share of repeated n-grams in its continuations, for each way of decoding; human text in grey."
        plots.append(
            Plot("Which way of decoding repeats itself?", how, bars(sizes, series, DECODING, "n", percent=True))
        )
    groups = [name for name in GROUPS if name in found.uniq or name in found.uniq_human]
    if groups:
        different = {"model": found.uniq, "human": found.uniq_human}
        how = "Different tokens of each group that the model puts first somewhere, and that the text itself holds. "
        how += "A short bar beside a long grey one: tokens that it never chooses."
        plots.append(
            Plot(
                "How much of its vocabulary does it use?",
                how,
                bars(groups, different, MODEL, "group", percent=False),
                wide=len(plots) % 2 == 0,
            )
        )
    return plots


def _decoding(found: Mapping[str, Repetition]) -> str:
    sizes = sorted({n for one in found.values() for n in one.rep}, key=_as_number)
    heads = ["Decoding", *(f"Rep-{html.escape(n)}" for n in sizes), "Words", "Tokens", "Continuations"]
    lines = []
    for name in human_first(found):
        one = found[name]
        rates = [DASH if n not in one.rep else share(one.rep[n]) for n in sizes]
        lines.append(
            [sentence(name, 40), *rates, f"{one.uniq_words:,}", f"{one.uniq_tokens:,}", f"{one.continuations:,}"]
        )
    return grid(heads, lines, "Continuations: repetition, different words and tokens", "numbers")


def _samples(found: Mapping[str, Repetition]) -> str:
    pieces = []
    for name in human_first(found):
        samples = found[name].samples
        if not samples:
            continue
        shown = "".join(
            f'<blockquote dir="auto"><span class="prompt">{sentence(prompt, LONG)}</span> '
            f"<b>{sentence(text, LONG)}</b></blockquote>"
            for prompt, text in samples[:SAMPLES]
        )
        pieces.append(f"<details><summary>Samples: {sentence(name, 40)}</summary>{shown}</details>")
    return "".join(pieces)


def _as_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text
