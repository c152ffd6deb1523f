"""Documents with summaries: DialogSum (Chen et al. 2021), CNN/DailyMail (Hermann et al. 2015, See et al. 2017).

Of each set one file is used, and it is cut: every fifth pair is for measuring, the others are for training. The file of
DialogSum is its development set, that of CNN/DailyMail 1,000 pairs of its validation set.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from decone.data.corpora import decode
from decone.data.glue import Split
from decone.data.published import Published, find

FOLDS = 5  # one of so many pairs is measured on


@dataclass(frozen=True)
class Pair:
    """A document and its summary."""

    document: str
    summary: str


@dataclass(frozen=True)
class SummarySet:
    """A file of pairs, one JSON object a line.

    Attributes:
        name: of the set.
        file: its one file.
        document: key of the document.
        summary: key of the summary.
    """

    name: str
    file: Published
    document: str
    summary: str


SOURCES = {
    source.name: source
    for source in (
        SummarySet(
            "dialogsum",
            Published(
                "dialogsum/dialogsum.dev.jsonl",
                "https://raw.githubusercontent.com/cylnlp/dialogsum/848cc8c05e0a04def79326539de827f1b28786a0/"
                "DialogSum_Data/dialogsum.dev.jsonl",
                "436721e0a3571eef7072964f80e042fb151d8c6178db1a688ce8f803bbf0a13f",
            ),
            "dialogue",
            "summary",
        ),
        SummarySet(
            "cnn_dailymail",
            Published(
                "cnn_dailymail/validation_subset.jsonl",
                None,
                "7d6a8f44439384068dd192a4b1daaac85036821c9f60439baed19bfbb4a51e94",
                "write the 1,000 rows of data/collection/cnn_dailymail_validation_subset.csv in "
                "github.com/hillaryke/rag-optimization-cnn-dailymail as JSON lines (keys id, article, highlights; "
                "ensure_ascii off)",
            ),
            "article",
            "highlights",
        ),
    )
}


def load(name: str, split: Split) -> list[Pair]:
    """Reads a split of a set, from this machine or fetched once; see `published.find`.

    Args:
        name: one of `SOURCES`.
        split: "dev" is the first pair of the file and every fifth after it, "train" are the others.

    Raises:
        ValueError: there is no such set, or its file is nowhere, another one, or damaged.
    """
    if name not in SOURCES:
        raise ValueError(f"no summaries {name!r}; choose from {', '.join(SOURCES)}")
    data, path = find(SOURCES[name].file)
    pairs = parse(SOURCES[name], decode(data, path), path)
    return [pair for index, pair in enumerate(pairs) if (index % FOLDS == 0) == (split == "dev")]


def parse(source: SummarySet, text: str, path: Path) -> list[Pair]:
    r"""Reads JSON lines; blanks at the ends of a document go, and a summary becomes one line.

    Args:
        source: its keys.
        text: content of the file, without a byte-order mark.
        path: of the file, for messages.

    Raises:
        ValueError: a line is no JSON object with two texts; the message names it.

    Example:
        >>> parse(SOURCES["dialogsum"], '{"dialogue": "A: Hi.\\nB: Oh.", "summary": "A and\\nB."}', Path("a.jsonl"))
        [Pair(document='A: Hi.\nB: Oh.', summary='A and B.')]
    """
    pairs = []
    # Not splitlines(): it would also cut at separators that a text may hold.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError(f"{path}, line {number}: no JSON; get the file again") from None
        texts = []
        for key in (source.document, source.summary):
            content = row.get(key) if isinstance(row, dict) else None
            if not isinstance(content, str) or not content.strip():
                raise ValueError(f"{path}, line {number}: no text under {key!r}; get the file again")
            texts.append(content)
        pairs.append(Pair(texts[0].strip(), " ".join(texts[1].split())))
    return pairs
