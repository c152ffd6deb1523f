"""Comparisons: the plan, the folder it takes, what may be added to it, what is drawn from it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from decone.studies import compare
from decone.studies.compare import Comparison, reopen, slug, split_methods
from decone.training.config import RunConfig
from decone.training.loop import Trainer
from decone.training.run import Run

Build = Callable[..., RunConfig]
OUT = Path("out")
PAIR = ["mle", "threshold:margin=0.05+row-adamw"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("mle", ["mle"]),
        (" mle , threshold ", ["mle", "threshold"]),
        ("threshold:margin=1,temperature=0.5,mle", ["threshold:margin=1,temperature=0.5", "mle"]),
        ("mle,threshold:margin=1 , temperature = 2+row-adamw", ["mle", "threshold:margin=1,temperature = 2+row-adamw"]),
        ("mle+row-adamw:decay=always,momentum=decay,mle", ["mle+row-adamw:decay=always,momentum=decay", "mle"]),
        ("mle,,threshold,", ["mle", "threshold"]),
    ],
)
def test_methods_are_split_at_the_right_commas(text: str, wanted: list[str]) -> None:
    assert split_methods(text) == wanted


@pytest.mark.parametrize(("text", "message"), [("", "is empty"), (",", "is empty"), ("mle,mle", "names 'mle' twice")])
def test_methods_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"--methods {message}"):
        split_methods(text)


def test_folders_are_named_by_the_method() -> None:
    assert slug("mle") == "mle"
    assert slug("threshold:margin=1,temperature=0.46+row-adamw") == "threshold-margin=1-temperature=0.46+row-adamw"
    assert "/" not in slug("a/../b:c=d e")


def test_jobs_are_paired_from_the_start(build: Build) -> None:
    jobs = Comparison(build(), PAIR, [7, 8], OUT).jobs()
    assert [(job.config.method, job.config.seed) for job in jobs] == [(m, s) for s in (7, 8) for m in PAIR]
    assert len({job.path for job in jobs}) == 4
    assert {
        job.config.model_dump(exclude={"method", "seed"}) == build().model_dump(exclude={"method", "seed"})
        for job in jobs
    } == {True}


def test_a_folder_is_taken_once(build: Build) -> None:
    comparison = Comparison(build(), PAIR, [1], OUT)
    comparison.claim()
    before = (OUT / "compare.json").read_text()
    comparison.claim()
    assert (OUT / "compare.json").read_text() == before
    assert [path.name for path in OUT.iterdir()] == ["compare.json"]
    Comparison(build(machine__threads=2), [*PAIR, "threshold"], [1, 2], OUT).claim()
    plan = json.loads((OUT / "compare.json").read_text())
    assert plan["methods"] == [*PAIR, "threshold"]
    assert plan["seeds"] == [1, 2]


def trace() -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in OUT.rglob("*")}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"steps": 41}, "out holds a comparison with other settings; choose another --out"),
        ({"model__width": 32}, "out holds a comparison with other settings"),
        ({"machine__device": "cuda:99"}, "device 'cuda:99' is not available here"),
    ],
)
def test_other_settings_are_refused(overrides: dict[str, object], message: str, build: Build) -> None:
    Comparison(build(), PAIR, [1], OUT).claim()
    before = trace()
    with pytest.raises(ValueError, match=message):
        Comparison(build(**overrides), PAIR, [1], OUT).claim()
    assert trace() == before


def test_another_text_under_the_same_name_is_refused(build: Build, text: Path) -> None:
    Comparison(build(), PAIR, [1], OUT).claim()
    text.write_text(text.read_text()[::-1])
    with pytest.raises(ValueError, match=r"tiny\.txt has changed since the comparison in out began; choose another"):
        Comparison(build(), PAIR, [1], OUT).claim()


@pytest.mark.parametrize(
    ("overrides", "chosen", "message"),
    [
        ({"corpus__name": "nowhere.txt"}, PAIR, "no file nowhere.txt"),
        ({"model__context": 1000}, PAIR, "the text is too short"),
        ({"tokenizer__kind": "bpe", "model__context": 200}, PAIR, "the text is too short"),
        ({"machine__engine": "fast"}, PAIR, "unknown engine 'fast'"),
        ({}, ["mle", "tresh"], "unknown method 'tresh'; did you mean 'threshold'"),
    ],
)
def test_what_cannot_be_run_leaves_nothing(
    overrides: dict[str, object], chosen: list[str], message: str, build: Build
) -> None:
    with pytest.raises(ValueError, match=message):
        Comparison(build(**overrides), chosen, [1], OUT).claim()
    assert not OUT.exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"config": {}, "methods": [], "seeds": [1]}',
        '{"config": {}, "methods": ["mle"], "seeds": []}',
        '{"config": {}, "methods": ["mle"], "seeds": ["one"]}',
        '{"config": {}, "methods": 3, "seeds": [1]}',
        '{"config": {"stps": 3}, "methods": ["mle"], "seeds": [1]}',
    ],
)
def test_a_damaged_plan_is_refused(content: str, build: Build) -> None:
    OUT.mkdir()
    (OUT / "compare.json").write_text(content)
    for use in (Comparison(build(), PAIR, [1], OUT).claim, lambda: reopen(OUT)):
        with pytest.raises(
            ValueError, match=r"out/compare\.json is damaged \(.+\); compare again in a new folder"
        ) as error:
            use()
        assert "\n" not in str(error.value)


@pytest.mark.usefixtures("workers")
def test_a_comparison_is_carried_out_added_to_and_opened_again(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    config = build(steps=10, evaluation__every=5)
    comparison = Comparison(config, PAIR, [1, 2], OUT)
    comparison.claim()
    with pytest.raises(ValueError, match="no run of out is finished; go on with decone compare --out out"):
        reopen(OUT)
    results = comparison.run()
    assert [(method, list(found)) for method, found in results.items()] == [(method, [1, 2]) for method in PAIR]
    for method in PAIR:
        for seed in (1, 2):
            path = OUT / "results" / f"{slug(method)}-seed-{seed}.json"
            assert json.loads(path.read_text()) == results[method][seed]
            assert results[method][seed]["seed"] == seed
            assert results[method][seed]["method"] == method
    table = comparison.table(results)
    assert table.title == "2 methods, 2 seeds, 10 steps on tiny.txt"
    assert [(row.label, row.language) for row in table.rows] == [(m, name) for m in PAIR for name in ("HR", "LR")]
    assert list(table.rows[0].cells["accuracy"].seeds) == [1, 2]

    more = Comparison(config, [*PAIR, "threshold"], [1, 2], OUT)
    more.claim()
    made: list[str] = []
    real = compare.run_all

    def counting(jobs, *others):  # type: ignore[no-untyped-def]
        made.extend(job.name for job in jobs if not (job.path / "result.json").exists())
        return real(jobs, *others)

    monkeypatch.setattr(compare, "run_all", counting)
    again = more.run()
    assert made == ["threshold seed 1", "threshold seed 2"]
    assert {method: again[method] for method in PAIR} == results

    (more.folder("threshold", 2) / "result.json").unlink()
    opened, found = reopen(OUT)
    assert opened.methods == [*PAIR, "threshold"]
    assert list(found["threshold"]) == [1]
    assert found["mle"] == results["mle"]
    shown = opened.exhibits()
    assert [(exhibit.label, exhibit.seed) for exhibit in shown] == [(method, 1) for method in opened.methods]


def test_exhibits_show_the_models_own_text(build: Build, text: Path) -> None:
    comparison = Comparison(build(steps=2), ["mle"], [5], OUT)
    job = comparison.jobs()[0]
    trainer = Trainer(job.config, Run.create(job.path, job.config))
    trainer.train()
    (shown,) = comparison.exhibits()
    characters = sorted(set(text.read_text()))
    assert shown.tokens == characters
    assert shown.counts == [text.read_text()[:2700].count(character) for character in characters]
    assert shown.weight.equal(Run.open(job.path).model().head)
    assert {name: len(sample) for name, sample in shown.samples.items()} == {"HR": 240, "LR": 240}
    assert set("".join(shown.samples.values())) <= set(characters)
    assert shown.samples == comparison.exhibits()[0].samples, "the same seed writes the same text"


def test_the_title_does_not_show_the_users_folders(build: Build, text: Path) -> None:
    config = build(corpus__name=str(text))
    assert Comparison(config, PAIR, [1], OUT).table({"mle": {}}).title.endswith("40 steps on tiny.txt")
