"""The rows of the table of families, against the configurations of transformers."""

import math
from typing import Any

import pytest

from decone.models.families import FAMILIES, Family, by_width, divisor, factor, family_of, positive

# Some cannot be made without arguments; that many can.
COMPARED = 100


def test_defaults_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    compared, wrong = 0, []
    for name, family in FAMILIES.items():
        try:
            config = transformers.CONFIG_MAPPING[name]()
        except Exception:  # no such family, or it has no defaults
            continue
        values = config.to_dict()
        sizes = {key: values[key] for key in ("d_model", "hidden_size") if key in values}
        tied = values.get("tie_word_embeddings")
        if isinstance(tied, bool) and family.kind != "encoder":
            compared += 1
            wrong += [name] if tied != family.tied else []
        if family.softcap is not None and family.kind != "seq2seq":
            wrong += [f"{name} softcap"] if values[family.softcap[0]] != family.softcap[1] else []
        scales = (family.state_scale, family.logit_scale)
        wrong += [f"{name} scale"] if not all(math.isclose(scale(values), scale(sizes)) for scale in scales) else []
    assert not wrong
    assert compared >= COMPARED


def test_every_row_names_tensors() -> None:
    for name, family in FAMILIES.items():
        assert family.embedding
        assert all(pattern.endswith(".weight") for pattern in (*family.embedding, *family.head))
        assert all(pattern.endswith("bias") for pattern in family.bias), name
        assert family.head or family.kind == "encoder"


@pytest.mark.parametrize("value", [0, -1.0, True, "3", [1], math.nan, math.inf, -math.inf])
def test_a_number_must_be_above_zero(value: Any) -> None:
    with pytest.raises(ValueError, match=r"config\.json: k must be a number above 0, not .*; correct it"):
        positive({"k": value}, "k", 1.0)


def test_an_absent_number_has_its_default() -> None:
    assert positive({}, "k", 2.0) == positive({"k": None}, "k", 2.0) == 2.0
    assert positive({"k": 3}, "k", 2.0) == 3.0


def test_scales() -> None:
    assert factor("k", 0.5)({}) == 0.5
    assert factor("k")({"k": 4}) == 4.0
    assert divisor("k")({"k": 4}) == 0.25
    assert by_width({"d_model": 16}) == by_width({"d_model": 16, "tie_word_embeddings": True}) == 0.25
    assert by_width({"d_model": 16, "tie_word_embeddings": False}) == 1.0
    assert by_width({"d_model": 16, "tie_word_embeddings": True, "scale_decoder_outputs": False}) == 1.0


def test_a_softcap_may_be_switched_off() -> None:
    family = Family("causal", ("a.weight",), ("b.weight",), softcap=("cap", 30.0))
    assert (family.cap({}), family.cap({"cap": None}), family.cap({"cap": 5})) == (30.0, None, 5.0)
    assert Family("causal", (), ()).cap({"cap": 5}) is None


def test_what_ids_mean_is_known_without_a_row_of_tables() -> None:
    assert [name for name in ("fsmt", "marian", "new") if family_of(name).two_vocabularies] == ["fsmt"]
    assert [name for name in ("whisper", "moonshine", "new") if family_of(name).timestamp_ids] == ["whisper"]
    padded = ["roberta", "mpnet", "xglm", "m2m_100", "esm"]
    assert [name for name in (*padded, "gte", "bert", "pegasus_x", "new") if family_of(name).padded_positions] == padded
    highest = ["clip", "clip_text_model", "clipseg"]
    assert [name for name in (*highest, "siglip", "new") if family_of(name).reads_highest_id] == highest


def test_positions_count_from_the_padding_in_these_families() -> None:
    names = """
    roberta xlm-roberta camembert xlm-roberta-xl xmod roberta-prelayernorm data2vec-text ibert longformer luke mluke
    mpnet esm layoutlmv3 lilt markuplm m2m_100 nllb-moe xglm fsmt prophetnet speech_to_text jina_embeddings_v3
    """
    assert all(family_of(name).padded_positions for name in names.split())
    assert {name for name, family in FAMILIES.items() if family.padded_positions} <= set(names.split())
