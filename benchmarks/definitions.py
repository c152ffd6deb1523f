"""A loss planted in a real table, and how much of it definitions give back.

    python benchmarks/definitions.py MODEL LEXICON DATA [--ways slot,ridge,gradient] [--out FILE]

MODEL is a folder of an encoder, LEXICON a file of glosses, DATA a folder with word-sim/ and glue/STS-B/dev.tsv. Of the
whole words that have a definition, the last fifth by index get each other's rows. Each way learns from the other four
fifths of the damaged model and rebuilds the lost rows. They are held against the true ones, with intervals over tokens,
in word similarity over the pairs whose words are both defined (with bootstrap intervals), and in STS-B without
fine-tuning; the share of the loss that is recovered is (repaired - damaged) / (original - damaged).
"""

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from decone.data.lexicons import Lexicon
from decone.diagnosis.words import read_word_pairs
from decone.metrics.statistics import spearman, spearman_interval
from decone.models.find_tables import find_tables
from decone.models.tables import MemoryTable, ModelTables
from decone.repair import checkpoint
from decone.repair.alignment.align import TokenAlignment, align
from decone.repair.comparison import compare_geometry
from decone.repair.definitions.fit import Reconstructor, doubtful, row_ranks, scale_rows, score_predictions
from decone.repair.definitions.recipe import DefinitionRecipe
from decone.repair.delta import RowDelta, repair_targets, write_delta
from decone.training.machine import provenance
from decone.training.tasks.glue import TASKS, parse, similarity_correlation

SETS = {"MEN": "EN-MEN-TR-3k.txt", "WS-353": "EN-WS-353-ALL.txt", "RW": "EN-RW-STANFORD.txt"}
SHARE = 0.2
GLOSS = "gloss"  # nothing learned: the mean row of the words of the definitions
WAYS: dict[str, dict[str, Any]] = {
    GLOSS: {"rounds": 1},
    # What a map from the frozen encoder's state at one masked slot can do, the first sense alone.
    "slot": {"read": "slot", "senses": "first", "mention": "keep", "rounds": 1},
    "ridge": {},
    "ridge-once": {"rounds": 1},
    "ridge-mean": {"senses": "mean"},
    "gradient": {"solver": "gradient"},
    "gradient-slot": {"solver": "gradient", "read": "slot", "senses": "mean", "noise": (0.5, 0.25, 0.25), "most": 4},
}


class Judge:
    """Word similarity and STS-B of a table."""

    def __init__(self, folder: str, data: Path, words: dict[str, int]) -> None:
        self.model = AutoModel.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        file = data / "glue" / "STS-B" / "dev.tsv"
        self.sentences = parse(
            next(task for task in TASKS if task.name == "STS-B"), file.read_text(encoding="utf-8"), file
        )
        self.pairs: dict[str, tuple[list[int], list[int], np.ndarray]] = {}
        for name, file in SETS.items():
            found = [
                (pair.first.lower(), pair.second.lower(), pair.score_predictions)
                for pair in read_word_pairs(data / "word-sim" / file)
            ]
            found = [pair for pair in found if pair[0] in words and pair[1] in words]
            first, second = ([words[pair[side]] for pair in found] for side in (0, 1))
            self.pairs[name] = (first, second, np.array([pair[2] for pair in found]))

    def __call__(self, table: Tensor) -> dict[str, list[float]]:
        """Correlation, its interval's ends where there is one, and the number of pairs."""
        found: dict[str, list[float]] = {}
        for name, (first, second, scores) in self.pairs.items():
            cosine = torch.cosine_similarity(table[first].double(), table[second].double()).numpy()
            ends = spearman_interval(cosine, scores)
            found[name] = [spearman(cosine, scores) or 0.0, *(ends or ()), len(scores)]
        self.model.get_input_embeddings().weight.data.copy_(table)
        found["STS-B"] = [similarity_correlation(self.model, self.tokenizer, self.sentences, 128), len(self.sentences)]
        return found


def recovered(found: dict[str, list[float]], damaged: dict[str, list[float]], original: dict[str, list[float]]) -> Any:
    return {name: (found[name][0] - damaged[name][0]) / (original[name][0] - damaged[name][0]) for name in found}


def damage(folder: str, ids: Tensor, place: Path, seed: int) -> tuple[ModelTables, str]:
    """A copy of a model in which some rows are shuffled."""
    model_tables = find_tables(folder)
    (target,) = repair_targets(model_tables)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))
    rows = target.table.read()[ids][order]
    write_delta(
        place / "loss.safetensors", model_tables, "loss", {}, [RowDelta(target, ids, MemoryTable("loss", rows))]
    )
    checkpoint.apply_delta(folder, place / "loss.safetensors", place / "damaged")
    return find_tables(str(place / "damaged")), str(place / "damaged")


def whole_words(folder: str, lexicon: Path) -> TokenAlignment:
    model_tables = find_tables(folder)
    assert model_tables.tokenizer is not None
    found = align(model_tables.tokenizer, Lexicon.open(lexicon), model_tables.embedding.shape[0], model_tables.special)
    found.entries = {id: entry for id, entry in found.entries.items() if entry.surface.text.isalpha()}
    return found


def run(
    model: Annotated[str, typer.Argument()],
    lexicon: Annotated[Path, typer.Argument()],
    data: Annotated[Path, typer.Argument()],
    ways: str = "slot,ridge,ridge-mean,gradient",
    precision: str = "bfloat16",
    seed: int = 0,
    out: Path = Path("results/benchmarks/definitions.json"),
) -> None:
    """Plants the loss, mends it in several ways, and writes what was measured after each."""
    console = Console(stderr=True)
    alignment = whole_words(model, lexicon)
    defined = torch.tensor(alignment.defined_ids())
    lost = defined[len(defined) - int(SHARE * len(defined)) :]
    words = {alignment.surfaces[id].text: id for id in reversed(defined.tolist())}
    table = find_tables(model).embedding.read().float()
    judge = Judge(model, data, words)
    mean = table[defined[: -len(lost)]].mean(0)
    with tempfile.TemporaryDirectory() as place:
        model_tables, folder = damage(model, lost, Path(place), seed)
        broken = find_tables(folder).embedding.read().float()

        def put(rows: Tensor) -> Tensor:
            new = broken.clone()
            new[lost] = rows
            return new

        original, damaged = judge(table), judge(broken)
        content: dict[str, Any] = {
            "schema": "decone.definitions-benchmark/1",
            "defined": len(defined),
            "lost": len(lost),
        }
        content |= {"seed": seed, "threads": torch.get_num_threads(), "precision": precision, **provenance()}
        before = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
        same = all(before.get(key) == content[key] for key in ("defined", "lost", "seed", "precision"))
        content |= {"original": original, "damaged": damaged, "ways": before["ways"] if same else {}}
        content |= {key: before[key] for key in ("doubtful", "threads", "date", "commit") if same and key in before}
        flat = judge(put(mean.expand(len(lost), -1)))
        content["mean"] = {"judged": flat, "recovered": recovered(flat, damaged, original)}
        console.print(content)
        for way in ways.split(","):
            begun = time.perf_counter()
            recipe = DefinitionRecipe(**{"precision": precision, "seed": seed, **WAYS[way]})
            reconstructor = Reconstructor(model_tables, model_tables.embedding, alignment, recipe, "cpu")
            chosen = torch.isin(reconstructor.ids, lost)
            if way == "ridge":  # whether the loss is seen at all
                everything = torch.ones(len(chosen), dtype=torch.bool)
                predicted, _ = reconstructor.crossfit(everything)
                wrong = doubtful(reconstructor.ranks(predicted, torch.arange(len(chosen))), len(table))
                content["doubtful"] = {
                    "lost": float(wrong[chosen].double().mean()),
                    "kept": float(wrong[~chosen].double().mean()),
                }
            made = provenance()
            result: dict[str, Any] = {
                "recipe": recipe.model_dump(mode="json"),
                "date": made["date"],
                "commit": made["commit"],
            }
            result["threads"] = torch.get_num_threads()
            result["read"] = 1 + reconstructor.refine_features(~chosen, chosen)
            fit = None
            if way == GLOSS:
                rebuilt = reconstructor.features[chosen][:, -table.shape[1] :]
            else:
                fit = reconstructor.fit(~chosen)
                rebuilt = reconstructor.predict(fit, chosen.nonzero().squeeze(1))
            seconds = time.perf_counter() - begun
            usable = torch.ones(len(table), dtype=torch.bool)
            found = row_ranks(rebuilt, table[lost], MemoryTable("original", table), usable)
            result["seconds"] = seconds
            result["lost"] = score_predictions(rebuilt, table[lost], mean, found, len(table)).to_dict()
            if fit is not None:
                result["held_out"] = fit.scores.to_dict()
                result["errors"] = None if fit.trained is None else fit.trained.errors
            kept = broken[reconstructor.ids[~chosen]]
            for scale in ("none", "row", "table", "spread"):
                new = put(scale_rows(rebuilt, broken[lost], kept, scale)[0].float())
                judged = judge(new)
                geometry = compare_geometry(broken, new)
                result[scale] = {"judged": judged, "recovered": recovered(judged, damaged, original)}
                result[scale]["geometry"] = geometry.model_dump(mode="json")
            content["ways"][way] = result
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            console.print(way, {key: result.get(key) for key in ("seconds", "lost", "held_out")})
            console.print({scale: result[scale]["recovered"] for scale in ("none", "row", "table", "spread")})
        shutil.rmtree(Path(place) / "damaged")


if __name__ == "__main__":
    typer.run(run)
