"""The model that reads definitions, and features from its states."""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decone.files.settings import Progress
from decone.models.load import Loader
from decone.models.tables import ModelTables
from decone.repair.definitions.prompts import Prompt, PromptBatch, collate, length_batches
from decone.repair.definitions.recipe import Precision, Read
from decone.repair.delta import model_path
from decone.training.machine import autocast

POSITIONS = 512  # of a model that counts none, such as T5
READ_AT_ONCE = 128  # prompts
_LOADER = Loader(
    needs="definitions are read with",
    refusal="cannot load {name} from safetensors to read definitions: {reason}",
    incomplete="{name} lacks weights, e.g. {weight}; name a complete checkpoint",
    may_lack=("pooler",),  # it is never read
)


class DefinitionEncoder(nn.Module):
    """A model of `transformers` without its heads, read at the slots of prompts.

    Args:
        model: an encoder, or an encoder with a decoder.
        read: the features: "slot" is the mean state at the slots (the decoder's where there is one), [H]; "states"
            also the mean state of the encoder, [2H]; "words" also the mean input row of the definition, [2H + D].

    Attributes:
        blocks: number of features of each kind in the latest reading.
    """

    def __init__(self, model: Any, read: Read) -> None:
        super().__init__()
        self.model, self.read = model, read
        config = model.config
        # That of T5Gemma has two sections; its decoder begins with its own first mark.
        inner = getattr(config, "decoder", None)
        self.pad = _token_id(config, "pad_token_id") or _token_id(inner, "pad_token_id") or 0
        self.decoder_start: int | None = None
        if bool(getattr(config, "is_encoder_decoder", False)):
            start = _token_id(config, "decoder_start_token_id")
            self.decoder_start = _token_id(inner, "bos_token_id") if start is None else start
            if self.decoder_start is None:
                raise ValueError(f"the {config.model_type}'s configuration has no decoder_start_token_id; add it")
        self.blocks: list[int] = []

    @property
    def rows(self) -> Float[Tensor, "V D"]:
        """Its input table."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    @property
    def tables(self) -> list[Tensor]:
        """All its input tables: T5Gemma's encoder and decoder have one each."""
        modules: list[Any] = [self.model, getattr(self.model, "encoder", None), getattr(self.model, "decoder", None)]
        return [module.get_input_embeddings().weight for module in modules if hasattr(module, "get_input_embeddings")]

    @property
    def limit(self) -> int:
        """Tokens that fit."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        # RoBERTa and its kin (CamemBERT, MPNet) begin to count behind the padding, and keep a row for that.
        reserved = [
            module.padding_idx + 1
            for name, module in self.model.named_modules()
            if name.endswith("position_embeddings")
            and isinstance(module, nn.Embedding)
            and module.padding_idx is not None
        ]
        return int(positions) - max(reserved, default=0) if positions else POSITIONS

    def forward(self, batch: PromptBatch) -> Float[Tensor, "B F"]:
        """Features of each prompt, float32."""
        inputs = {"input_ids": batch.ids, "attention_mask": batch.attention}
        if batch.decoder is None:
            states = self.model(**inputs).last_hidden_state.float()
            at_slots = states
        else:
            output = self.model(**inputs, decoder_input_ids=batch.decoder, use_cache=False)
            states, at_slots = output.encoder_last_hidden_state.float(), output.last_hidden_state.float()
        features = [_mean(at_slots, batch.slots)]
        if self.read != "slot":
            features.append(_mean(states, batch.attention.bool()))
        if self.read == "words":
            with torch.no_grad():  # as they are: training does not reach the rows through here
                features.append(_mean(self.rows[batch.ids].float(), batch.gloss))
        self.blocks = [feature.shape[1] for feature in features]
        return torch.cat(features, 1)

    @torch.no_grad()
    def features(self, prompts: Sequence[Prompt], progress: Progress | None = None) -> Float[Tensor, "N F"]:
        """Reads prompts as they are, in eval mode; the modes are restored."""
        modes = {module: module.training for module in self.modules()}
        self.eval()
        features: Tensor | None = None
        done = 0
        for indices in length_batches(prompts, READ_AT_ONCE):
            batch = collate([prompts[index] for index in indices], self.pad, self.decoder_start)
            block = self(batch.to(self.rows.device)).cpu()
            features = torch.zeros(len(prompts), block.shape[1]) if features is None else features
            features[indices] = block
            done += len(indices)
            if progress is not None:
                progress("reading definitions", done, len(prompts))
        for module, mode in modes.items():
            module.training = mode
        assert features is not None  # callers have prompts
        return features

    def trainable_copy(self) -> "DefinitionEncoder":
        """A deep copy to be trained; this one stays as it is."""
        return DefinitionEncoder(copy.deepcopy(self.model), self.read)

    @torch.no_grad()
    def is_bidirectional(self) -> bool:
        """True where later tokens change the state of an earlier one: a causal model reads a definition too late."""
        if self.decoder_start is not None:
            return True
        device, V = self.rows.device, self.rows.shape[0]
        ids = (torch.tensor([[3, 4, 5, 6], [3, 4, 5, 7]]) % V).to(device)
        states = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0].float()
        # Written so that states which are no numbers pass: the error about them names their definitions.
        return not bool((states[0] - states[1]).abs().max() <= 1e-6 * states.abs().max())


def reading_precision(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Context in which a model reads in a precision; "auto" is bfloat16 on CUDA. Features stay float32."""
    # Not by an Accelerator: a process has one precision of these for all it does.
    low = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
    return autocast(device, "bfloat16" if low else "float32")


def load_encoder(model_tables: ModelTables, read: Read, device: torch.device) -> DefinitionEncoder:
    """Loads the model of a folder for reading: safetensors only, none of its code.

    Raises:
        ValueError: transformers is missing, the model reads from left to right only, is quantised, or lacks weights.
    """
    _LOADER.library()
    if model_tables.kind in ("causal", "run", "tables"):
        raise ValueError(
            f"{model_tables.name} is no model that reads a definition in both directions (it is {model_tables.kind}); "
            "repair an encoder, or an encoder with a decoder"
        )
    name, folder = model_tables.name, model_path(model_tables)
    config = _LOADER.config(name, folder)
    with _LOADER.refusing(name):
        if getattr(config, "quantization_config", None) is not None:
            raise ValueError("it is quantised; repair the original and quantise it again")
    model, _ = _LOADER.model("AutoModel", name, folder, config=config, dtype=torch.float32)
    encoder = DefinitionEncoder(model.to(device).eval(), read)
    if not encoder.is_bidirectional():
        raise ValueError(
            f"{model_tables.name} reads from left to right, so a definition comes too late for its token; repair an "
            "encoder, or an encoder with a decoder"
        )
    return encoder


def _token_id(config: Any, key: str) -> int | None:
    id = getattr(config, key, None)
    return id if isinstance(id, int) else None


def _mean(states: Float[Tensor, "B T H"], mask: Tensor) -> Float[Tensor, "B H"]:
    # Not a product of matrices: under autocast that would round what is float32 to bfloat16.
    weight = mask.to(states.dtype)[..., None]
    return (states * weight).sum(1) / weight.sum(1).clamp_min(1)
