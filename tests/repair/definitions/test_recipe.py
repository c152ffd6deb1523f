"""Settings: what words make of them, and what is refused."""

import pytest

from decone.repair.definitions.recipe import DefinitionRecipe


def test_words_become_settings() -> None:
    found = DefinitionRecipe.build(
        "decone", {"ridge": "10", "noise": "0.5,0.25,0.25", "read": "slot", "train_table": "true"}
    )
    assert (found.ridge, found.noise, found.read, found.train_table) == (10.0, (0.5, 0.25, 0.25), "slot", True)
    assert found.solver == "ridge"
    assert found.train_on == "kept"
    assert found.scale == "spread"  # the rest is as it was
    assert DefinitionRecipe.build("decone", {}) == DefinitionRecipe()


def test_the_paper_s_settings_can_be_changed() -> None:
    """Section 2 of the released code: one gloss, kept as it is, 50/25/25, a random map, its own row fitted."""
    found = DefinitionRecipe.build("paper", {"epochs": "1"})
    assert (found.solver, found.senses, found.mention, found.train_on) == ("gradient", "first", "keep", "all")
    assert (found.noise, found.start, found.rate, found.map_rate) == ((0.5, 0.25, 0.25), "random", 1e-4, 1e-4)
    assert (found.clip, found.train_table, found.scale, found.epochs) == (0.1, True, "none", 1)
    assert DefinitionRecipe.build("paper", {"noise": "1,0,0", "train_table": "no"}).train_table is False


@pytest.mark.parametrize(
    ("preset", "words", "said"),
    [
        ("released", {}, "there is no preset 'released'; choose decone or paper"),
        ("decone", {"colour": "red"}, "definitions have no setting 'colour'; choose one of solver, read, senses"),
        ("decone", {"solver": "adam"}, "solver: Input should be 'ridge' or 'gradient'"),
        ("decone", {"train_on": "crossfit"}, "train_on: Input should be 'kept', 'others' or 'all'"),
        ("decone", {"blend": "1.5"}, "blend: Input should be less than or equal to 1"),
        ("decone", {"blend": "nan"}, "blend: "),
        ("decone", {"ridge": "0"}, "ridge: Input should be greater than 0"),
        ("decone", {"ridge": "inf"}, "ridge: Input should be a finite number"),
        ("decone", {"folds": "1"}, "folds: Input should be greater than or equal to 2"),
        ("decone", {"holdout": "0"}, "holdout: Input should be greater than 0"),
        ("decone", {"holdout": "0.5"}, "holdout: Input should be less than 0.5"),
        ("decone", {"noise": "0.5,0.5"}, "noise: "),
        ("decone", {"noise": "0.5,0.4,0.2"}, "three shares that add up to 1, e.g. 0.5,0.25,0.25"),
        ("decone", {"noise": "1.5,-0.25,-0.25"}, "three shares that add up to 1"),
        ("decone", {"noise": "nan,0.5,0.5"}, "noise: "),
        ("paper", {"epochs": "many"}, "epochs: Input should be a valid integer"),
        ("paper", {"seed": "-1"}, "seed: Input should be greater than or equal to 0"),
    ],
)
def test_words_that_are_no_settings(preset: str, words: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError) as error:
        DefinitionRecipe.build(preset, words)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "pydantic" not in str(error.value)


def test_foreign_signs_do_not_reach_a_terminal() -> None:
    for preset, words in (("\x1b[31m", {}), ("decone", {"\x1b[31m": "1"})):
        with pytest.raises(ValueError) as error:
            DefinitionRecipe.build(preset, words)
        assert "\x1b" not in str(error.value)
