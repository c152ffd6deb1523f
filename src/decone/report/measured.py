"""One model's numbers on one text, for a terminal."""

from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table


def render(measured: dict[str, Any]) -> RenderableType:
    """Tables of `training.session.evaluate`: one line per language, then one per frequency group."""
    headings = ("language", "PPL", "PPL best", "T best", "bits/byte", "accuracy", "Recall@5", "MRR", "I(W)")
    overall = Table(*headings, box=None, pad_edge=False)
    groups = Table("language", "tokens", "types", "targets", "PPL", "accuracy", box=None)
    for name, found in measured["languages"].items():
        overall.add_row(
            escape(name),
            f"{found['perplexity']:.2f}",
            f"{found['best_perplexity']:.2f}",
            f"{found['best_temperature']:.2f}",
            f"{found['bits_per_byte']:.3f}",
            f"{found['accuracy']:.4f}",
            f"{found['recall']['5']:.4f}",
            f"{found['mrr']:.4f}",
            f"{found['isotropy']['raw']:.4f}",
        )
        for group, part in found["groups"].items():
            numbers = (f"{part['perplexity']:.2f}", f"{part['accuracy']:.4f}") if part["count"] else ("not in text", "")
            groups.add_row(escape(name), group, str(part["tokens"]), str(part["count"]), *numbers)
    title = f"{escape(str(measured['model']))} on {escape(measured['text'])}, {measured['tokens']} tokens\n"
    parts: list[RenderableType] = [title, overall, "", groups]
    if "alignment" in measured:
        parts.append(f"\nalignment: {measured['alignment']:.2f} of the low-resource rows lie nearest their translation")
    return Group(*parts)
