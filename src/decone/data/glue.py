"""GLUE tasks as examples: sentences or pairs of them, each with a class or a score.

Wang et al. 2018 (gluebenchmark.com), in the form of its own download: tab-separated lines without quoting. Test labels
are withheld, so the development set is what is measured. CoLA is its public part (Warstadt et al. 2018), whose
development sentences are of the same sources as the training ones.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decone.data.corpora import decode
from decone.data.published import Published, find

Split = Literal["train", "dev"]

_COPY = "https://raw.githubusercontent.com/F0restL1n/BERT/0d0288be08079531c7b3a85af3d532f9adb0f13a/glue_data"
_COLA = "https://raw.githubusercontent.com/nyu-mll/CoLA-baselines/dd095d3646ed05a315280aaa8ed4ec84ba435b3e"


@dataclass(frozen=True)
class Example:
    """One or two sentences and their label: the number of a class, or a score."""

    first: str
    second: str | None
    label: int | float


@dataclass(frozen=True)
class Task:
    """A task of GLUE.

    Attributes:
        name: as in GLUE.
        train: file of the training examples.
        dev: file of the development examples.
        columns: of the first sentence, the second (None where there is one only), and the label, from 0.
        width: columns of a line.
        header: the first line names the columns.
        classes: the label of each class in the file; empty where labels are scores.
        scores: lowest and highest score, where labels are scores.
    """

    name: str
    train: Published
    dev: Published
    columns: tuple[int, int | None, int]
    width: int
    header: bool = True
    classes: tuple[str, ...] = ()
    scores: tuple[float, float] = (0.0, 0.0)

    @property
    def outputs(self) -> int:
        """Numbers a model gives per example: one per class, or one score."""
        return len(self.classes) or 1


def _copy(path: str, sha256: str) -> Published:
    return Published(f"glue/{path}", f"{_COPY}/{path}", sha256)


TASKS = {
    task.name: task
    for task in (
        Task(
            "CoLA",
            Published(
                "glue/CoLA/in_domain_train.tsv",
                f"{_COLA}/acceptability_corpus/cola_public/raw/in_domain_train.tsv",
                "f320a10f92d3bce6b29152fde322a362eac39238e50d8de0c8815457fdf4fc12",
            ),
            Published(
                "glue/CoLA/in_domain_dev.tsv",
                f"{_COLA}/acceptability_corpus/cola_public/raw/in_domain_dev.tsv",
                "77176f6a03faa5a1c4f23c69971fc1bff565931112fb65af47b2d6e24b7f42f7",
            ),
            (3, None, 1),
            4,
            header=False,
            classes=("0", "1"),
        ),
        Task(
            "SST-2",
            _copy("SST-2/train.tsv", "48eac26399f8456935f81dd9e3a745c1430adb6c62e233ccfe22db4a0d15d1d1"),
            _copy("SST-2/dev.tsv", "54a9c12c77e402fc14d6a66a506f24d999f596b0176eb777c972cccc2f9cc4b0"),
            (0, None, 1),
            2,
            classes=("0", "1"),
        ),
        Task(
            "MRPC",
            Published(
                "glue/MRPC/train.tsv",
                None,
                "69abcedee3cf738c6ce58d772e43e1b7cdf5b4edee4aceda459c0d9f4e5599f3",
                "make its 3,668 pairs from Microsoft's msr_paraphrase_train.txt as the download script of GLUE does",
            ),
            _copy("MRPC/dev.tsv", "9e8f284788040f7c9ecde2e1b3c07237c756f926bd9ef8548ef5d34b56f69f17"),
            (3, 4, 0),
            5,
            classes=("0", "1"),
        ),
        Task(
            "RTE",
            _copy("RTE/train.tsv", "41e3a9b063433392343fad9e962cf2f58b681c78d8f71592f4186f0837246c5c"),
            _copy("RTE/dev.tsv", "80230dfa1347282e7b532b06a1004a76a710087541189bf874223ddf0e3819fb"),
            (1, 2, 3),
            4,
            classes=("entailment", "not_entailment"),
        ),
        Task(
            "STS-B",
            _copy("STS-B/train.tsv", "41c4d978b6162abdcada7e49a982211954cca5459c228db478af333124b257a2"),
            _copy("STS-B/dev.tsv", "fe7dc0632a5033562f3cadff991f6e8d9b9b6311861660e78c3c82eb7db67f59"),
            (7, 8, 9),
            10,
            scores=(0.0, 5.0),
        ),
    )
}


def load(task: Task | str, split: Split) -> list[Example]:
    """Reads a split of a task, from this machine or fetched once; see `published.find`.

    Args:
        task: a task, or the name of one of `TASKS`.
        split: "train" or "dev".

    Raises:
        ValueError: there is no such task, or its file is nowhere, another one, or damaged.
    """
    if isinstance(task, str):
        if task not in TASKS:
            raise ValueError(f"no task {task!r}; choose from {', '.join(TASKS)}")
        task = TASKS[task]
    data, path = find(task.train if split == "train" else task.dev)
    return parse(task, decode(data, path), path)


def parse(task: Task, text: str, path: Path) -> list[Example]:
    r"""Reads the lines of a file of a task; nothing is quoted, so a quotation mark is a character like others.

    Args:
        task: its columns and labels.
        text: content of the file, without a byte-order mark.
        path: of the file, for messages.

    Raises:
        ValueError: a line has another number of columns, an empty sentence or a label that the task does not have (the
            message names the line), or there is no example.

    Example:
        >>> parse(TASKS["SST-2"], 'sentence\tlabel\na "fine" film \t1\n', Path("dev.tsv"))
        [Example(first='a "fine" film', second=None, label=1)]
    """
    examples = []
    # Not splitlines(): it would also cut at separators that a sentence may hold.
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if number == 1 and task.header:
            continue
        fields = line.rstrip("\r").split("\t")
        if len(fields) != task.width:
            raise ValueError(
                f"{path}, line {number}: {len(fields)} columns where {task.name} has {task.width}; get the file again"
            )
        first, second, label = task.columns
        sentences = [fields[column].strip() for column in (first, second) if column is not None]
        if not all(sentences):
            raise ValueError(f"{path}, line {number}: an empty sentence; get the file again")
        score = _label(task, fields[label])
        if score is None:
            raise ValueError(
                f"{path}, line {number}: {fields[label][:40]!r} is no label of {task.name}, which has "
                f"{_labels(task)}; get the file again"
            )
        examples.append(Example(sentences[0], sentences[1] if second is not None else None, score))
    if not examples:
        raise ValueError(f"{path} holds no example of {task.name}; get the file again")
    return examples


def _label(task: Task, field: str) -> int | float | None:
    """The label in a field; None where it is none of the task."""
    if task.classes:
        return task.classes.index(field) if field in task.classes else None
    try:
        score = float(field)
    except ValueError:
        return None
    low, high = task.scores
    return score if low <= score <= high else None


def _labels(task: Task) -> str:
    return ", ".join(task.classes) if task.classes else f"scores from {task.scores[0]:g} to {task.scores[1]:g}"
