"""Which tensor is which, from names and shapes."""

import pytest

from decone.models.families import FAMILIES
from decone.models.placing import named, place


def test_a_name_may_have_any_prefix_but_no_other_beginning() -> None:
    shapes = {"transformer.wte.weight": (9, 2), "xwte.weight": (9, 2), "wte.weight.scale": (9,)}
    assert named(["wte.weight"], shapes) == "transformer.wte.weight"
    assert named(["lm_head.weight"], shapes) is None


def test_the_least_nested_is_taken() -> None:
    """Some decoders repeat their tables in a layer that predicts several tokens ahead."""
    shapes = {"model.layers.61.embed_tokens.weight": (9, 2), "model.embed_tokens.weight": (9, 2)}
    assert named(["embed_tokens.weight"], shapes) == "model.embed_tokens.weight"


def test_the_number_of_rows_tells_namesakes_apart() -> None:
    shapes = {"talker.embed_tokens.weight": (5, 2), "thinker.embed_tokens.weight": (9, 2)}
    assert named(["embed_tokens.weight"], shapes, rows=9) == "thinker.embed_tokens.weight"
    with pytest.raises(ValueError, match=r"candidates: talker.*, thinker.*; pass --embedding NAME, --head NAME"):
        named(["embed_tokens.weight"], shapes)


def test_an_earlier_name_wins() -> None:
    shapes = {"encoder.embed_tokens.weight": (9, 2), "shared.weight": (9, 2)}
    assert place(shapes, FAMILIES["t5"], 9) == ("shared.weight", None)


@pytest.mark.parametrize(
    ("shapes", "rows", "found"),
    [
        ({"x.table": (90, 4), "x.up": (16, 4)}, None, ("x.table", None)),
        ({"x.table": (20, 4), "x.up": (64, 4)}, 20, ("x.table", None)),
        ({"x.emb": (90, 4), "x.out": (90, 4)}, None, ("x.emb", "x.out")),
        ({"a.wte.weight": (90, 4), "lm_head.weight": (90, 4), "b": (80, 4)}, None, ("a.wte.weight", "lm_head.weight")),
        ({"x.emb": (90, 4), "y": (90, 4), "lm_head.weight": (90, 4)}, None, ("x.emb", "lm_head.weight")),
        (
            {"model.embed_tokens.weight": (98, 4), "lm_head.weight": (96, 4)},
            96,
            ("model.embed_tokens.weight", "lm_head.weight"),
        ),
        ({"x.table": (90, 4), "x.bias": (90,), "conv": (90, 4, 3)}, None, ("x.table", None)),
    ],
)
def test_shapes_tell_tables_of_an_unknown_family(
    shapes: dict[str, tuple[int, ...]], rows: int | None, found: tuple[str, str | None]
) -> None:
    assert place(shapes, None, rows) == found


@pytest.mark.parametrize(
    "shapes",
    [
        {"a": (90, 4), "b": (80, 4)},  # neither is by far the longest
        {"a": (90, 4), "b": (4, 80)},
        {"a": (90, 90)},
        {"a": (900, 4), "b": (900, 4)},  # which is which?
        {"emb": (900, 4), "token": (900, 4)},
        {"emb": (900, 4), "b": (900, 4), "c": (900, 4)},
        {"a": (9,)},
        {},
    ],
)
def test_what_cannot_be_told_is_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="pass --embedding NAME, --head NAME"):
        place(shapes, None, None)


def test_what_the_user_names_is_taken() -> None:
    shapes = {"a": (90, 4), "b": (80, 4), "lm_head.weight": (90, 4)}
    assert place(shapes, None, None, embedding="a") == ("a", "lm_head.weight")
    assert place(shapes, None, None, embedding="b") == ("b", None)
    assert place(shapes, None, None, embedding="a", head="b") == ("a", "b")
    assert place(shapes, FAMILIES["llama"], None, embedding="a", head="a") == ("a", None)
    with pytest.raises(ValueError, match=r"no tensor 'lm_head' for --embedding; near to it: lm_head\.weight"):
        place(shapes, None, None, embedding="lm_head")
