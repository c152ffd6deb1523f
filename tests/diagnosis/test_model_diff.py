"""Two models side by side, against loops over all rows; half precision, zero rows, other widths, other vocabularies."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor

from decone.diagnosis import model_diff as module
from decone.diagnosis.model_diff import diff_models, require_same_vocabulary
from decone.diagnosis.result import ModelDiff, TableFacts
from decone.metrics.neighbours import neighbours
from decone.models import tables
from decone.models.tables import MemoryTable, ModelTables

V, H = 60, 6
GROUPS = {
    "frequent": torch.arange(0, 18),
    "medium": torch.arange(18, 45),
    "rare": torch.arange(45, 55),
    "special": torch.arange(55, 57),
}  # rows 57 to 59 are padding
TOKENS = [f"t{row}" for row in range(V)]
Facts = Callable[..., TableFacts]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK", 7 * H)


def model(weight: Tensor, name: str = "m", **more: Any) -> ModelTables:
    return ModelTables(name, "gpt2", "causal", MemoryTable("wte", weight), tied=True, **more)


def random(seed: int, width: int = H, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(V, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def compared(after: Tensor, before: Tensor, table: Facts) -> ModelDiff:
    facts = {"embedding": table()}
    return diff_models(model(after), model(before, "old"), GROUPS, TOKENS, facts, facts)


def cosine(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_against_loops(dtype: torch.dtype, table: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHANGED", 20)
    before, after = random(0, dtype=dtype), random(1, dtype=dtype)
    after[10:40] = before[10:40]
    found = compared(after, before, table)
    assert found.reference == "old"
    assert found.same_width
    old, new = before.double().tolist(), after.double().tolist()
    own = [cosine(a, b) for a, b in zip(old, new, strict=True)]
    for name, ids in GROUPS.items():
        assert found.cosine[name] == pytest.approx(math.fsum(own[i] for i in ids) / len(ids), abs=1e-9)
    assert found.cosine["all"] == pytest.approx(math.fsum(own[:57]) / 57, abs=1e-9)
    moved = sorted((i for i in range(V) if not 10 <= i < 40), key=lambda i: own[i])[:20]
    assert [row.id for row in found.changed] == moved
    for row in found.changed:
        group = next((name for name, ids in GROUPS.items() if row.id in ids), "padded")
        assert (row.token, row.group) == (f"t{row.id}", group)
        assert row.cosine == pytest.approx(own[row.id], abs=1e-9)
        assert (row.norm_before, row.norm_after) == pytest.approx((math.hypot(*old[row.id]), math.hypot(*new[row.id])))


@pytest.mark.parametrize(("width", "dtype"), [(H, torch.float32), (H, torch.bfloat16), (9, torch.float32)])
def test_neighbours_against_sets(width: int, dtype: torch.dtype, table: Facts) -> None:
    before, after = random(0, dtype=dtype), random(1, width, dtype)
    after[:, :H] += 2 * before
    found = compared(after, before, table)
    near = [neighbours(weight[:57], torch.arange(57), 10) for weight in (before, after)]
    both = [len({i for i, _ in a} & {i for i, _ in b}) / 10 for a, b in zip(*near, strict=True)]
    for name, ids in GROUPS.items():
        assert found.neighbours[name] == pytest.approx(sum(both[i] for i in ids) / len(ids))
    assert found.neighbours["all"] == pytest.approx(sum(both) / 57)
    assert 0.2 < (found.neighbours["all"] or 0) < 0.95


def test_another_width_leaves_rows_alone(table: Facts) -> None:
    found = compared(random(1, 9), random(0), table)
    assert not found.same_width
    assert found.changed == []
    assert set(found.cosine) == {"all", *GROUPS}
    assert not any(found.cosine.values())
    assert found.neighbours["all"] is not None


def test_a_model_beside_itself(table: Facts) -> None:
    weight = random(0)
    weight[3] = 0
    found = compared(weight.clone(), weight, table)
    assert found.changed == []
    assert set(found.cosine.values()) == set(found.neighbours.values()) == {1.0}


def test_a_rotation_keeps_the_company(table: Facts) -> None:
    weight = random(0, dtype=torch.float64)
    turned = weight @ torch.linalg.qr(random(1, dtype=torch.float64)[:H]).Q
    found = compared(turned, weight, table)
    assert found.neighbours["all"] == 1.0
    assert (found.cosine["all"] or 0) < 0.6


def test_zero_scaled_and_broken_rows(table: Facts) -> None:
    before, after = random(0), random(0)
    before[1], after[1] = 0, 0
    after[2] = 0
    after[3], after[4] = 4 * before[3], 2 * before[4]
    after[5, 0], before[6, 1] = math.inf, math.nan
    found = compared(after, before, table)
    changed = [(row.id, row.cosine) for row in found.changed]
    assert changed == [(2, 0.0), (3, 1.0), (4, 1.0)]
    assert found.cosine["medium"] == 1.0
    assert found.cosine["frequent"] == pytest.approx(15 / 16)  # without the two that are broken, one is zero
    assert found.changed[0].norm_after == 0.0
    assert found.changed[0].norm_before > 0
    # json has no NaN: what is written can be read
    assert ModelDiff.model_validate_json(found.model_dump_json()) == found


def test_at_most_so_many_rows_ask_for_neighbours(table: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = module.nearest_rows

    def listening(ids: Tensor, *rest: Any) -> Tensor:
        asked.append(ids.tolist())
        return real(ids, *rest)

    monkeypatch.setattr(module, "COMPARED", 11)
    monkeypatch.setattr(module, "nearest_rows", listening)
    weight = random(0)
    weight[:9] = 0
    first, second = (compared(random(1), weight, table) for _ in range(2))
    assert first == second
    assert len(asked[0]) == 11
    assert asked[0] == asked[1] == asked[2]
    assert min(asked[0]) >= 9
    assert max(asked[0]) < 57


def test_tables_of_zeros_have_no_neighbours(table: Facts) -> None:
    found = compared(random(0), torch.zeros(V, H), table)
    assert set(found.neighbours.values()) == {None}
    assert found.cosine["all"] == 0.0


def test_metrics_are_those_of_the_output_tables(table: Facts) -> None:
    before = {"embedding": table(cosine=0.5), "head": table(cosine=0.25, effective_rank=7.0)}
    after = {"embedding": table(cosine=0.125, isoscore=0.5)}
    found = diff_models(model(random(0)), model(random(1)), GROUPS, TOKENS, after, before)
    assert found.metrics == {
        "isotropy, raw": (0.9, 0.9),
        "isotropy, plus and minus": (0.8, 0.8),
        "mean cosine": (0.25, 0.125),
        "effective rank": (7.0, 60.0),
        "isoscore": (0.9, 0.5),
        "mean direction": (0.1, 0.1),
        "median norm": (1.0, 1.0),
    }


def test_the_output_tables_are_compared(table: Facts) -> None:
    weight, facts = random(0), {"embedding": table()}
    untied = ModelTables("u", "llama", "causal", MemoryTable("wte", random(1)), MemoryTable("head", weight.clone()))
    assert diff_models(untied, model(weight), GROUPS, TOKENS, facts, facts).changed == []


def test_other_sizes_are_refused(table: Facts) -> None:
    with pytest.raises(ValueError, match=r"m has 60 rows and old has 61; .*same vocabulary"):
        compared(random(0), torch.zeros(61, H), table)


def test_other_tokens_are_refused() -> None:
    def words(*known: str) -> Tokenizer:
        return Tokenizer(models.WordLevel({word: id for id, word in enumerate(known)}, unk_token="a"))

    mine = model(random(0), tokenizer=words("a", "b", "\x1b[31m"))
    require_same_vocabulary(mine, model(random(1), tokenizer=words("a", "b", "\x1b[31m")))
    require_same_vocabulary(mine, model(random(1)))
    for other in (words("b", "a", "\x1b[31m"), words("a", "b"), words("a", "b", "\x1b[31m", "d")):
        with pytest.raises(ValueError, match=r"the tokenizers of m and old disagree on \d tokens, e\.g\. ") as error:
            require_same_vocabulary(mine, model(random(1), "old", tokenizer=other))
        assert "\x1b" not in str(error.value)
    with pytest.raises(ValueError, match="disagree"):
        require_same_vocabulary(mine, model(random(1), tokenizer=words("a", "b", "\x1b[31m"), copies=2))
