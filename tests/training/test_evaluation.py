"""What a model is measured by, against naive loops in float64 over one window and one token at a time."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from decone.data.tokens import VALIDATION, Languages, random_batch
from decone.models.nano import Nano, NanoConfig
from decone.training import evaluation
from decone.training.evaluation import measure, scores, validation_loss

SIZE, CONTEXT = 7, 5


@pytest.fixture
def model() -> Nano:
    torch.manual_seed(4)
    model = Nano(NanoConfig(vocabulary=2 * SIZE, context=CONTEXT, layers=1, heads=2, width=8, dropout=0.3, tied=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    return model


IDS = torch.randint(SIZE, (64,), generator=torch.Generator().manual_seed(2))
COUNTS = torch.tensor([0, 40, 3, 3, 17, 1, 90])


def positions(model: Nano, offset: int, size: int) -> list[tuple[list[float], int]]:
    """Logits and target of every scored position, window by window."""
    found = []
    windows = (len(IDS) - 1) // CONTEXT
    model.eval()
    for index in range(windows // size * size):
        part = IDS[index * CONTEXT : (index + 1) * CONTEXT + 1] + offset
        with torch.no_grad():
            logits = F.linear(model(part[None, :-1]), model.head)[0]
        found += [(row.double().tolist(), int(target)) for row, target in zip(logits, part[1:], strict=True)]
    model.train()
    return found


def naive(model: Nano, offset: int, size: int) -> dict[str, Any]:
    found = positions(model, offset, size)

    def perplexity(part: list[tuple[list[float], int]], temperature: float = 1.0) -> float:
        total = 0.0
        for logits, target in part:
            top = max(logits)
            normaliser = sum(math.exp((value - top) / temperature) for value in logits)
            total -= (logits[target] - top) / temperature - math.log(normaliser)
        return math.exp(total / len(part))

    ranks = [1 + sum(value > logits[target] for value in logits) for logits, target in found]
    curve = {round(0.01 * step, 2): perplexity(found, 0.01 * step) for step in range(5, 201)}
    order = sorted(range(SIZE), key=lambda token: (-int(COUNTS[token]), token))
    groups = {"frequent": order[:2], "medium": order[2:6], "rare": order[6:]}
    by_group = {}
    for name, members in groups.items():
        inside = [place for place, (_, target) in enumerate(found) if target - offset in members]
        by_group[name] = {
            "tokens": len(members),
            "count": len(inside),
            "perplexity": perplexity([found[place] for place in inside]) if inside else None,
            "accuracy": sum(ranks[place] == 1 for place in inside) / len(inside) if inside else None,
        }
    best = min(curve, key=lambda temperature: curve[temperature])
    return {
        "perplexity": perplexity(found),
        "best_perplexity": curve[best],
        "best_temperature": best,
        "accuracy": sum(rank == 1 for rank in ranks) / len(ranks),
        "recall": {"5": sum(rank <= 5 for rank in ranks) / len(ranks)},
        "mrr": sum(1 / rank for rank in ranks) / len(ranks),
        "count": len(ranks),
        "groups": by_group,
    }


def naive_isotropy(rows: torch.Tensor) -> tuple[float, float]:
    _, axes = torch.linalg.eigh(rows.T @ rows)
    turned, both = [], []
    for axis in axes.T:
        sums = [sum(math.exp(float(sign * row @ axis)) for row in rows) for sign in (1, -1)]
        ahead = float(sum(row @ axis for row in rows)) >= 0
        turned.append(sums[0 if ahead else 1])
        both += sums
    return min(turned) / max(turned), min(both) / max(both)


@pytest.mark.parametrize("size", [12, 5, 1])
def test_every_number_against_loops(size: int, model: Nano) -> None:
    languages = Languages(SIZE, 0.1)
    result = measure(model, IDS, languages, size, COUNTS)
    assert model.training, "measuring leaves the model as it was"
    assert list(result["languages"]) == ["HR", "LR"]
    for name, offset in (("HR", 0), ("LR", SIZE)):
        found = dict(result["languages"][name])
        raw, plus_minus = naive_isotropy(model.head.detach().double()[offset : offset + SIZE])
        assert found.pop("isotropy") == {"raw": pytest.approx(raw), "plus_minus": pytest.approx(plus_minus)}
        curve = dict(found.pop("curve"))
        wanted = naive(model, offset, size)
        assert curve[1.0] == found["perplexity"]
        assert curve[found["best_temperature"]] == found["best_perplexity"] == min(curve.values())
        groups, naive_groups = found.pop("groups"), wanted.pop("groups")
        assert found.pop("recall") == pytest.approx(wanted.pop("recall"))
        assert found == pytest.approx(wanted, rel=1e-5)
        assert groups.keys() == naive_groups.keys()
        for group in groups:
            assert groups[group] == pytest.approx(naive_groups[group], rel=1e-5), group
    table = model.embedding.weight.detach().double()
    hits = 0
    for token in range(SIZE):
        cosines = [float(F.cosine_similarity(table[SIZE + token], table[other], dim=0)) for other in range(SIZE)]
        hits += max(cosines) == cosines[token]
    assert result["alignment"] == hits / SIZE


def test_one_language_has_no_alignment(model: Nano) -> None:
    result = measure(model, IDS, Languages(2 * SIZE, 0.0), 5, torch.arange(2 * SIZE))
    assert list(result) == ["languages"]
    assert list(result["languages"]) == ["all"]
    assert result["languages"]["all"]["perplexity"] == pytest.approx(naive(model, 0, 5)["perplexity"], rel=1e-5)


def test_logits_that_are_not_kept_give_the_same(model: Nano, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = scores(model, IDS, 0, 3, COUNTS)
    monkeypatch.setattr(evaluation, "CACHE_BYTES", 0)
    assert scores(model, IDS, 0, 3, COUNTS) == kept


def test_a_group_that_does_not_occur_has_no_number(model: Nano) -> None:
    found = scores(model, torch.ones(11, dtype=torch.long), 0, 2, COUNTS)["groups"]
    assert found["rare"] == {"tokens": 1, "count": 0, "perplexity": None, "accuracy": None}
    assert found["frequent"]["count"] == 10


def test_the_validation_loss_is_the_mean_over_its_windows(model: Nano) -> None:
    languages, total, count = Languages(SIZE, 0.5), 0.0, 0
    model.eval()
    for index in range(4):
        for window in random_batch(IDS, CONTEXT, 3, languages, (11, VALIDATION, 30 * 10_000 + index)):
            with torch.no_grad():
                logprob = F.linear(model(window[None, :-1]), model.head)[0].double().log_softmax(-1)
            total -= sum(float(row[target]) for row, target in zip(logprob, window[1:], strict=True))
            count += CONTEXT
    model.train()
    assert validation_loss(model, IDS, languages, 3, 4, (11, 30)) == pytest.approx(total / count, rel=1e-5)
    assert validation_loss(model, IDS, languages, 3, 4, (11, 31)) != pytest.approx(total / count, rel=1e-5)


def test_a_perfect_model_of_a_cycle() -> None:
    """A table set by hand: the next token is certain, so every measure is known without computing it."""
    model = Nano(NanoConfig(vocabulary=8, context=4, layers=1, heads=1, width=8, tied=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_() if parameter.dim() > 1 else None
        model.embedding.weight.copy_(torch.eye(8))
        model.untied.weight.copy_(20 * torch.eye(8).roll(1, dims=0))
    ids = torch.arange(41) % 8
    found = scores(model, ids, 0, 2, torch.ones(8, dtype=torch.long))
    assert (found["accuracy"], found["mrr"], found["recall"], found["count"]) == (1.0, 1.0, {"5": 1.0}, 40)
    assert found["perplexity"] == pytest.approx(1.0, abs=1e-6)
