"""What is taken from the states of a model, on five families, against loops over single prompts."""

from pathlib import Path

import pytest
import torch
from tests.repair.definitions.worlds import FAMILIES, aligned, model, saved, tokenizer
from torch import Tensor

from decone.models.find_tables import find_tables
from decone.repair.definitions.encoder import POSITIONS, DefinitionEncoder, load_encoder
from decone.repair.definitions.prompts import Prompt, PromptWriter, collate
from decone.repair.definitions.recipe import DefinitionRecipe

transformers = pytest.importorskip("transformers")
CPU = torch.device("cpu")


def read(family: str, tmp_path: Path, way: str = "words") -> tuple[DefinitionEncoder, list[Prompt]]:
    model_tables = find_tables(str(saved(family, tmp_path / family)))
    body = load_encoder(model_tables, way, CPU)  # type: ignore[arg-type]
    assert model_tables.tokenizer is not None
    prompts = PromptWriter(model_tables.tokenizer, DefinitionRecipe(), body.limit).write(
        aligned(model_tables).entries.values()
    )
    return body, prompts


@torch.no_grad()
def by_hand(body: DefinitionEncoder, prompt: Prompt) -> Tensor:
    """One prompt alone, its states summed in loops, in float64."""
    ids = torch.tensor([prompt.ids])
    if body.decoder_start is None:
        states = asked = body.model(input_ids=ids).last_hidden_state[0].double()
        places = [prompt.masks[slot] for slot in prompt.slots]
    else:
        given = torch.tensor([[body.decoder_start, *prompt.pieces][:-1]])
        found = body.model(input_ids=ids, decoder_input_ids=given)
        states, asked = found.encoder_last_hidden_state[0].double(), found.last_hidden_state[0].double()
        places = list(prompt.slots)
    table = body.model.get_input_embeddings().weight.double()
    slot, every, words = torch.zeros_like(asked[0]), torch.zeros_like(states[0]), torch.zeros_like(table[0])
    for place in places:
        slot += asked[place] / len(places)
    for state in states:
        every += state / len(states)
    for id in prompt.ids[slice(*prompt.gloss)]:
        words += table[id] / (prompt.gloss[1] - prompt.gloss[0])
    return torch.cat([slot, every, words])


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_means_and_padding_changes_nothing(family: str, tmp_path: Path) -> None:
    body, prompts = read(family, tmp_path)
    pair = prompts[0].ids.index(body_mask(prompts[0])), prompts[0].pieces[0]
    # A word of three pieces, of which the first and the last are the token.
    wide = Prompt(
        pair[1],
        (*prompts[0].ids[: pair[0]], *[body_mask(prompts[0])] * 3, *prompts[0].ids[pair[0] + 1 :]),
        tuple(range(pair[0], pair[0] + 3)),
        (prompts[0].gloss[0] + 2, prompts[0].gloss[1] + 2),
        (pair[1], prompts[1].id, pair[1]),
        (0, 2),
    )
    # Far longer than the others, so that they are padded by 30 places.
    long = prompts[2]._replace(
        ids=(*prompts[2].ids[: prompts[2].gloss[1]], *[prompts[2].ids[prompts[2].gloss[0]]] * 36, prompts[2].ids[-1])
    )
    asked = [*prompts[:9], wide, long]
    together = body.features(asked)
    assert max(len(prompt.ids) for prompt in asked) - min(len(prompt.ids) for prompt in asked) >= 30
    for prompt, found in zip(asked, together, strict=True):
        alone = body.features([prompt])[0]
        assert float((alone - found).abs().max()) < 1e-4
        assert float((by_hand(body, prompt) - found.double()).abs().max()) < 1e-4
    states = 16
    assert body.blocks == [states, states, 8 if family == "albert" else 16]
    assert together.shape[1] == sum(body.blocks)


def body_mask(prompt: Prompt) -> int:
    return prompt.ids[prompt.masks[0]]


def test_the_attention_mask_counts(tmp_path: Path) -> None:
    """The test above can fail: without the mask, padding changes states by far more than rounding does."""
    body, prompts = read("bert", tmp_path, "slot")
    batch = collate([prompts[0]], 0)
    longer = torch.cat([batch.ids, torch.zeros(1, 30, dtype=torch.long)], 1)
    with torch.no_grad():
        states = [
            body.model(input_ids=longer, attention_mask=mask).last_hidden_state[0, 1]
            for mask in (torch.ones_like(longer), (torch.arange(longer.shape[1]) < batch.ids.shape[1]).long()[None])
        ]
    assert float((states[0] - states[1]).abs().max()) > 0.05
    assert float((states[1] - body.features([prompts[0]])[0]).abs().max()) < 1e-5


@pytest.mark.parametrize(("way", "parts"), [("slot", 1), ("states", 2), ("words", 3)])
def test_what_is_read(way: str, parts: int, tmp_path: Path) -> None:
    body, prompts = read("t5", tmp_path, way)
    whole, _ = read("t5", tmp_path)
    found = body.features(prompts[:5])
    assert found.shape == (5, 16 * parts)
    assert torch.equal(found, whole.features(prompts[:5])[:, : 16 * parts])


def test_the_order_of_prompts_and_the_modes_of_modules(tmp_path: Path) -> None:
    body, prompts = read("bert", tmp_path)
    body.model.train()
    body.model.encoder.eval()
    modes = {module: module.training for module in body.modules()}
    seen = list[tuple[str, int, int]]()
    found = body.features(prompts[:7], lambda *fit: seen.append(fit))
    assert {module: module.training for module in body.modules()} == modes
    assert body.model.training
    body.eval()
    assert torch.equal(found, body.features(prompts[:7]))  # without dropout
    back = body.features(prompts[:7][::-1]).flip(0)
    assert torch.allclose(found, back, atol=1e-6)
    assert seen == [("reading definitions", 7, 7)]
    assert not found.requires_grad


def test_words_keep_their_digits_at_low_precision(tmp_path: Path) -> None:
    """The states are bfloat16 then; means, and rows that are stored in float32, need not be."""
    body, prompts = read("bert", tmp_path)
    with torch.autocast("cpu", torch.bfloat16):
        found = body.features(prompts[:6])
    assert found.dtype == torch.float32
    for prompt, row in zip(prompts, found, strict=False):
        assert float((by_hand(body, prompt)[32:] - row[32:].double()).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("family", "positions"), [("bert", 64), ("albert", 64), ("roberta", 62), ("bart", 64), ("t5", POSITIONS)]
)
def test_as_many_tokens_fit_as_are_said_to(family: str, positions: int, tmp_path: Path) -> None:
    body, prompts = read(family, tmp_path, "slot")
    assert body.limit == positions
    for extra in (0, 1):
        ids = (*prompts[0].ids[:-1], *[prompts[0].ids[-2]] * (positions + extra - len(prompts[0].ids)), 2)
        if extra and family != "t5":  # which has no end
            with pytest.raises((IndexError, RuntimeError)):
                body.features([prompts[0]._replace(ids=ids)])
        else:
            assert body.features([prompts[0]._replace(ids=ids)]).shape == (1, 16)


@pytest.mark.parametrize("kind", ["Camembert", "MPNet", "XLMRoberta"])
def test_kin_of_roberta_count_behind_the_padding(kind: str) -> None:
    """Not all of them have its name."""
    sizes = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    sizes |= {"intermediate_size": 8, "max_position_embeddings": 20, "pad_token_id": 1}
    body = DefinitionEncoder(
        getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes)), "slot"
    )
    assert body.limit == 18
    fitting = Prompt(5, tuple([7] * 18), (1,), (2, 17), (5,), (0,))
    assert body.features([fitting]).shape == (1, 8)
    with pytest.raises((IndexError, RuntimeError)):
        body.features([fitting._replace(ids=tuple([7] * 19))])


def test_a_student_is_a_copy(tmp_path: Path) -> None:
    for family in ("bert", "t5"):
        body, prompts = read(family, tmp_path)
        student = body.trainable_copy()
        before = body.features(prompts[:3])
        with torch.no_grad():
            for part in student.parameters():
                part.add_(1.0)
        assert torch.equal(before, body.features(prompts[:3]))
        assert not torch.allclose(before, student.features(prompts[:3]), atol=0.1)
        assert len(list(student.parameters())) == len(list(body.parameters()))  # what was tied still is


def test_t5_gemma_is_read_with_either_table() -> None:
    """Its configuration is of two parts, and its encoder and decoder may differ in width."""
    part = {"vocab_size": 50, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    part |= {"num_key_value_heads": 1, "head_dim": 8, "query_pre_attn_scalar": 8, "pad_token_id": 0, "bos_token_id": 2}
    config = transformers.T5GemmaConfig(
        encoder={**part, "hidden_size": 16},
        decoder={**part, "hidden_size": 24, "cross_attention_hidden_size": 16},
        is_encoder_decoder=True,
    )
    body = DefinitionEncoder(transformers.T5GemmaModel(config).eval(), "words")
    assert (body.pad, body.decoder_start, body.limit) == (0, 2, POSITIONS)
    prompts = [Prompt(9, (4, 5, 6, 7, 1), (0,), (2, 4), (9,), (0,)), Prompt(8, (4, 5, 6, 1), (0,), (2, 3), (8,), (0,))]
    assert body.features(prompts).shape == (2, 24 + 16 + 16)
    assert body.blocks == [24, 16, 16]
    assert sorted(tuple(table.shape) for table in body.tables) == [(50, 16), (50, 16), (50, 24)]


def test_models_that_read_from_left_to_right(tmp_path: Path) -> None:
    """By what they are called where that is fit, else by what they do: a base model without a head tells nothing."""
    inner, roles = tokenizer("bert")
    small = {"vocab_size": inner.get_vocab_size(), "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 64, "pad_token_id": 0}
    headless = transformers.LlamaModel(transformers.LlamaConfig(**small, num_key_value_heads=2))
    headless.save_pretrained(tmp_path / "llama")
    transformers.BertModel(transformers.BertConfig(**small, is_decoder=True)).save_pretrained(tmp_path / "bert")
    transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=90, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    ).save_pretrained(tmp_path / "gpt2")
    for name, said in (("llama", "left to right"), ("bert", "left to right"), ("gpt2", "it is causal")):
        transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **roles).save_pretrained(tmp_path / name)
        with pytest.raises(ValueError, match=said) as error:
            load_encoder(find_tables(str(tmp_path / name)), "slot", CPU)
        assert "repair an encoder, or an encoder with a decoder" in str(error.value)


def test_models_that_are_not_whole(tmp_path: Path) -> None:
    inner, roles = tokenizer("t5")
    whole = model("t5", inner, roles)
    transformers.T5EncoderModel(whole.config).save_pretrained(tmp_path / "half")
    with pytest.raises(ValueError, match=r"lacks weights, e.g. decoder\..*name a complete checkpoint"):
        load_encoder(find_tables(str(tmp_path / "half")), "slot", CPU)
    folder = saved("bert", tmp_path / "bert")
    with pytest.raises(ValueError, match="it is tables"):
        load_encoder(find_tables(str(folder / "model.safetensors")), "slot", CPU)
    config = folder / "config.json"
    config.write_text(config.read_text().replace("{", '{"quantization_config": {"quant_method": "gptq"},', 1))
    with pytest.raises(ValueError, match="it is quantised; repair the original and quantise it again"):
        load_encoder(find_tables(str(folder)), "slot", CPU)


def test_a_decoder_without_a_start() -> None:
    inner, roles = tokenizer("t5")
    made = model("t5", inner, roles)
    made.config.decoder_start_token_id = None
    with pytest.raises(ValueError, match="no decoder_start_token_id; add it"):
        DefinitionEncoder(made, "slot")
