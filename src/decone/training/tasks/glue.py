"""Five tasks of GLUE: a classifier, or a regression of scores, on sentences and pairs of them.

Wang et al. 2018 (gluebenchmark.com), in the form of its own download: tab-separated lines without quoting. Test labels
are withheld, so the development set is what is measured, after the last epoch: CoLA by Matthews' correlation, MRPC by
F1 and accuracy, STS-B by correlations, the others by accuracy. CoLA is its public part (Warstadt et al. 2018), whose
development sentences are of the same sources as the training ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from decone.data.corpora import decode
from decone.data.published import Published, find
from decone.files.foreign import quoted
from decone.metrics.statistics import accuracy, correlations, f1, matthews
from decone.training.finetuning import FinetuneConfig, TaskLearner, finetune, length_batches, lengths
from decone.training.tasks import LOADER, FinetuneTask, Split, load_model

HEADS = ("classifier", "classification_head", "score")
CLASSIFIERS = replace(LOADER, may_lack=(*HEADS, "pooler"))  # modules that a pretrained model need not have
SENTENCES = 64  # sentences encoded at once

MeasureFunction = Callable[[NDArray[Any], NDArray[Any]], float]  # of answers and labels


@dataclass(frozen=True)
class Example:
    """One or two sentences and their label: the number of a class, or a score."""

    first: str
    second: str | None
    label: int | float


@dataclass(eq=False)
class GlueTask(FinetuneTask):
    """A task of GLUE.

    Attributes:
        train: file of the training examples; `dev` of the development examples.
        columns: of the first sentence, the second (None where there is one only), and the label, from 0.
        width: columns of a line.
        measures: heading and function of every measure, by its key.
        header: the first line names the columns.
        classes: the label of each class in the file; empty where labels are scores, from the lowest to the highest.
        untuned_heading: heading of Spearman's correlation of cosines of sentence vectors before fine-tuning, which an
            encoder can answer without a head; None for tasks that are no similarity of pairs.
    """

    suite: ClassVar[str] = "glue"

    name: str
    train: Published
    dev: Published
    columns: tuple[int, int | None, int]
    width: int
    measures: Mapping[str, tuple[str, MeasureFunction]]
    header: bool = True
    classes: tuple[str, ...] = ()
    scores: tuple[float, float] = (0.0, 0.0)
    untuned_heading: str | None = None

    def __post_init__(self) -> None:
        self.headings = {key: heading for key, (heading, _) in self.measures.items()}

    @property
    def outputs(self) -> int:
        """Numbers a model gives per example: one per class, or one score."""
        return len(self.classes) or 1

    def count(self, config: FinetuneConfig) -> int:
        """Number of training examples; ValueError where a file cannot be had."""
        load(self, "dev")
        return len(load(self, "train")[: config.examples or None])

    def run(
        self, config: FinetuneConfig, model: str, folder: Path, device: str, stop: Callable[[], bool]
    ) -> dict[str, Any]:
        """Fine-tunes a model with a fresh head; see `FinetuneTask.run`."""
        train, dev = load(self, "train")[: config.examples or None], load(self, "dev")
        network, tokenizer = load_classifier(model, self.outputs, config.seed)
        untuned = None
        if self.untuned_heading is not None and not network.config.is_encoder_decoder:
            untuned = similarity_correlation(network.base_model, tokenizer, dev, config.length)
        learner = Classification(network, tokenizer, self, train, dev, config)
        epochs = finetune(learner, config, folder, device, stop)
        return {"epochs": epochs, "untuned": untuned, "examples": {"train": len(train), "dev": len(dev)}}

    def score(self, logits: Float[Tensor, "N C"], labels: Sequence[int | float]) -> dict[str, float]:
        """Measures of the answers of a model to examples with these labels.

        Example:
            >>> rte = next(task for task in TASKS if task.name == "RTE")
            >>> rte.score(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), [0, 0])
            {'accuracy': 0.5}
        """
        answers: NDArray[Any]
        if self.classes:
            answers, truth = logits.argmax(1).numpy(), np.array(labels, dtype=np.int64)
        else:
            answers, truth = logits.squeeze(1).double().numpy(), np.array(labels, dtype=np.float64)
        return {key: function(answers, truth) for key, (_, function) in self.measures.items()}


def load(task: GlueTask | str, split: Split) -> list[Example]:
    """Reads a split of a task, which may be named, from this machine or fetched once; see `published.find`.

    Raises:
        ValueError: there is no such task, or its file is nowhere, another one, or damaged.
    """
    if isinstance(task, str):
        by_name = {candidate.name: candidate for candidate in TASKS}
        if task not in by_name:
            raise ValueError(f"no task {quoted(task)}; choose from {', '.join(by_name)}")
        task = by_name[task]
    data, path = find(task.train if split == "train" else task.dev)
    return parse(task, decode(data, path), path)


def parse(task: GlueTask, text: str, path: Path) -> list[Example]:
    r"""Reads the lines of a file of a task; nothing is quoted, so a quotation mark is a character like others.

    Raises:
        ValueError: a line has another number of columns, an empty sentence or a label that the task does not have (the
            message names the line in the file `path`), or there is no example.

    Example:
        >>> parse(TASKS[1], 'sentence\tlabel\na "fine" film \t1\n', Path("dev.tsv"))
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
                f"{path}, line {number}: {quoted(fields[label])} is no label of {task.name}, which has "
                f"{_labels(task)}; get the file again"
            )
        examples.append(Example(sentences[0], sentences[1] if second is not None else None, score))
    if not examples:
        raise ValueError(f"{path} holds no example of {task.name}; get the file again")
    return examples


def _label(task: GlueTask, field: str) -> int | float | None:
    """The label in a field; None where it is none of the task."""
    if task.classes:
        return task.classes.index(field) if field in task.classes else None
    try:
        score = float(field)
    except ValueError:
        return None
    low, high = task.scores
    return score if low <= score <= high else None


def _labels(task: GlueTask) -> str:
    return ", ".join(task.classes) if task.classes else f"scores from {task.scores[0]:g} to {task.scores[1]:g}"


class Classification(TaskLearner):
    """A classifier with the examples of a task, as the loop trains it; it gives `logits` for token ids."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        task: GlueTask,
        train: Sequence[Example],
        dev: Sequence[Example],
        config: FinetuneConfig,
    ) -> None:
        def encode(example: Example) -> dict[str, list[int]]:
            pair = () if example.second is None else (example.second,)
            return dict(tokenizer(example.first, *pair, truncation=True, max_length=config.length))

        super().__init__(model, tokenizer, config, list(map(encode, train)), list(map(encode, dev)))
        self.task = task
        self.labels = [example.label for example in train]
        self.dev_labels = [example.label for example in dev]

    def loss(self, indices: Sequence[int]) -> Tensor:
        """Cross-entropy of classes, or the squared error of scores."""
        logits = self._logits([self.train[index] for index in indices])
        labels = torch.tensor([self.labels[index] for index in indices], device=logits.device)
        if self.task.classes:
            return F.cross_entropy(logits, labels)
        return F.mse_loss(logits.squeeze(1), labels.float())

    def measure(self) -> dict[str, float]:
        """Measures of the task on the development set."""
        rows = torch.empty(len(self.dev), self.task.outputs)
        # Twice the training batch fits: no activations are kept for backward.
        for indices in self.dev_batches(2 * self.config.batch):
            rows[indices] = self._logits([self.dev[index] for index in indices]).cpu()
        return self.task.score(rows, self.dev_labels)

    def _logits(self, encoded: Sequence[dict[str, list[int]]]) -> Float[Tensor, "B C"]:
        logits: Tensor = self.model(**self.padded(encoded)).logits
        return logits.float()


def load_classifier(name: str, outputs: int, seed: int) -> tuple[Any, Any]:
    """Loads a model that gives some numbers per text, and its tokenizer; the head that makes them is new.

    Equal seeds give equal heads whatever the table.

    Raises:
        ValueError: transformers is missing, there is no such model in safetensors, it lacks other weights than a head,
            or it brings a head of its own.
    """
    torch.manual_seed(seed)
    # Mismatched sizes are refused below, in words.
    model, tokenizer, missing = load_model(
        CLASSIFIERS, "AutoModelForSequenceClassification", name, num_labels=outputs, ignore_mismatched_sizes=True
    )
    if {key for key, _ in model.named_parameters() if key.split(".")[0] in HEADS} - missing:
        raise ValueError(f"{name} has a head for another task already; name the pretrained model it was made from")
    return model, tokenizer


@torch.inference_mode()
def sentence_vectors(encoder: nn.Module, tokenizer: Any, sentences: Sequence[str], length: int) -> Float[Tensor, "N H"]:
    """Means of an encoder's last hidden states, in float32: the worth of a table before any fine-tuning."""
    device = next(encoder.parameters()).device
    encoded = [dict(tokenizer(sentence, truncation=True, max_length=length)) for sentence in sentences]
    rows: list[Tensor | None] = [None] * len(encoded)
    for indices in length_batches(lengths(encoded), SENTENCES):
        inputs = tokenizer.pad([encoded[index] for index in indices], return_tensors="pt").to(device)
        hidden = encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"][:, :, None].to(hidden.dtype)
        for index, row in zip(indices, (hidden * mask).sum(1) / mask.sum(1), strict=True):
            rows[index] = row.float().cpu()
    return torch.stack([row for row in rows if row is not None])


def similarity_correlation(encoder: nn.Module, tokenizer: Any, pairs: Sequence[Example], length: int) -> float:
    """Spearman's correlation of cosines of sentence pairs with human scores, as of STS-B."""
    training = encoder.training
    encoder.eval()
    first = sentence_vectors(encoder, tokenizer, [pair.first for pair in pairs], length)
    second = sentence_vectors(encoder, tokenizer, [pair.second or "" for pair in pairs], length)
    encoder.train(training)
    scores = torch.tensor([float(pair.label) for pair in pairs], dtype=torch.float64)
    return correlations(F.cosine_similarity(first, second).double().numpy(), scores.numpy())[1]


_COPY = "https://raw.githubusercontent.com/F0restL1n/BERT/0d0288be08079531c7b3a85af3d532f9adb0f13a/glue_data"
_COLA = (
    "https://raw.githubusercontent.com/nyu-mll/CoLA-baselines/dd095d3646ed05a315280aaa8ed4ec84ba435b3e/"
    "acceptability_corpus/cola_public/raw"
)


def _file(path: str, sha256: str) -> Published:
    return Published(f"glue/{path}", f"{_COPY}/{path}", sha256)


def _cola(name: str, sha256: str) -> Published:
    return Published(f"glue/CoLA/{name}", f"{_COLA}/{name}", sha256)


TASKS = (
    GlueTask(
        "CoLA",
        _cola("in_domain_train.tsv", "f320a10f92d3bce6b29152fde322a362eac39238e50d8de0c8815457fdf4fc12"),
        _cola("in_domain_dev.tsv", "77176f6a03faa5a1c4f23c69971fc1bff565931112fb65af47b2d6e24b7f42f7"),
        (3, None, 1),
        4,
        {"matthews": ("CoLA MCC", matthews)},
        header=False,
        classes=("0", "1"),
    ),
    GlueTask(
        "SST-2",
        _file("SST-2/train.tsv", "48eac26399f8456935f81dd9e3a745c1430adb6c62e233ccfe22db4a0d15d1d1"),
        _file("SST-2/dev.tsv", "54a9c12c77e402fc14d6a66a506f24d999f596b0176eb777c972cccc2f9cc4b0"),
        (0, None, 1),
        2,
        {"accuracy": ("SST-2 acc", accuracy)},
        classes=("0", "1"),
    ),
    GlueTask(
        "MRPC",
        Published(
            "glue/MRPC/train.tsv",
            None,
            "69abcedee3cf738c6ce58d772e43e1b7cdf5b4edee4aceda459c0d9f4e5599f3",
            "make its 3,668 pairs from Microsoft's msr_paraphrase_train.txt as the download script of GLUE does",
        ),
        _file("MRPC/dev.tsv", "9e8f284788040f7c9ecde2e1b3c07237c756f926bd9ef8548ef5d34b56f69f17"),
        (3, 4, 0),
        5,
        {"f1": ("MRPC F1", f1), "accuracy": ("MRPC acc", accuracy)},
        classes=("0", "1"),
    ),
    GlueTask(
        "RTE",
        _file("RTE/train.tsv", "41e3a9b063433392343fad9e962cf2f58b681c78d8f71592f4186f0837246c5c"),
        _file("RTE/dev.tsv", "80230dfa1347282e7b532b06a1004a76a710087541189bf874223ddf0e3819fb"),
        (1, 2, 3),
        4,
        {"accuracy": ("RTE acc", accuracy)},
        classes=("entailment", "not_entailment"),
    ),
    GlueTask(
        "STS-B",
        _file("STS-B/train.tsv", "41c4d978b6162abdcada7e49a982211954cca5459c228db478af333124b257a2"),
        _file("STS-B/dev.tsv", "fe7dc0632a5033562f3cadff991f6e8d9b9b6311861660e78c3c82eb7db67f59"),
        (7, 8, 9),
        10,
        {
            "pearson": ("STS-B r", lambda answers, scores: correlations(answers, scores)[0]),
            "spearman": ("STS-B ρ", lambda answers, scores: correlations(answers, scores)[1]),
        },
        scores=(0.0, 5.0),
        untuned_heading="Untuned ρ",
    ),
)
