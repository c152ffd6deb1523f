"""A Hugging Face causal language model, read safely: safetensors only, no remote code."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from decone.models.generation import Decoding, extend
from decone.models.load import Loader

CONTEXT = 1024  # longest window that is scored, also where a model could take more
PIECE = 1 << 20  # characters tokenized at once, to the next line end; a whole book at once takes gigabytes
ENTRIES = 1 << 26  # logits made at once where only the last are wanted: 256 MiB

_LOADER = Loader(
    needs="Hugging Face models need",
    refusal="cannot load {name} as a causal model from safetensors: {reason}",
    incomplete="{name} lacks weights of a causal model, e.g. {weight}; name a complete checkpoint",
)


class HuggingFaceModel:
    """A causal model of `transformers` with its tokenizer, ready to be measured.

    Args:
        name: folder or hub name.
        device: where it runs.

    Raises:
        ValueError: transformers is missing, or there is no such model, or it is not a causal model in safetensors.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        _LOADER.library()
        folder = Path(name)
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise ValueError(f"{name} holds neither a decone run (config.toml) nor a Hugging Face model (config.json)")
        if folder.is_file():
            raise ValueError(f"{name} is a file; name the folder of a model")
        config = _LOADER.config(name)
        with _LOADER.refusing(name):
            if not _is_causal(config):
                raise ValueError(
                    f"a {config.model_type} does not continue text from left to right; name a causal model"
                )
        self.tokenizer: Any = _LOADER.tokenizer(name)
        self.model: Any = _LOADER.model("AutoModelForCausalLM", name)[0]
        self.model.to(device).eval()

    @property
    def context(self) -> int:
        """Longest window scored, in tokens."""
        return min(int(getattr(self.model.config, "max_position_embeddings", None) or CONTEXT), CONTEXT)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        device: torch.device = self.model.device
        return device

    @property
    def vocabulary(self) -> int:
        """Columns of the logits."""
        return self.head.size(0)

    @property
    def head(self) -> Tensor:
        """The output table, [V, H]."""
        head: Tensor = self.model.get_output_embeddings().weight.detach()
        return head

    @property
    def beginning(self) -> int | None:
        """The id that the tokenizer puts before every text, None where it puts none."""
        plain = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        marked = self.tokenizer("a")["input_ids"]
        first: int | None = self.tokenizer.bos_token_id
        return first if first is not None and marked[: 1 + len(plain)] == [first, *plain] else None

    @property
    def ends(self) -> list[int]:
        """Ids that end a text, rising."""
        sources = (self.model.generation_config, self.model.config, self.tokenizer)
        entries = (getattr(source, "eos_token_id", None) for source in sources)
        flat = [index for entry in entries for index in (entry if isinstance(entry, list) else [entry])]
        return sorted({index for index in flat if index is not None and 0 <= index < self.vocabulary})

    def encode(self, text: str) -> Int[Tensor, " N"]:
        """Ids of a text, without special tokens."""
        return torch.tensor(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    @torch.no_grad()
    def logits(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Scores of the next token at every position, float32."""
        scores: Tensor = self.model(input_ids=ids).logits
        return scores.float()

    def spans(self, text: str, limit: int | None = None) -> tuple[Int64[Tensor, " N"], Int64[Tensor, "N 2"]]:
        """Ids of a text without special tokens, and their spans: first character and one past the last.

        A long text is read in pieces that end at line ends, none after `limit` tokens. Tokens that share a character
        all span it.

        Raises:
            ValueError: the tokenizer has no offsets.
        """
        if not self.tokenizer.is_fast:
            raise ValueError(f"{type(self.tokenizer).__name__} cannot tell where tokens stand; save a tokenizer.json")
        ids: list[Tensor] = []
        spans: list[Tensor] = []
        start = 0
        while start < len(text) and (limit is None or sum(map(len, ids)) < limit):
            line_end = text.find("\n", start + PIECE) + 1
            piece = text[start : line_end or len(text)]
            encoded = self.tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids.append(torch.tensor(encoded["input_ids"], dtype=torch.long))
            spans.append(torch.tensor(encoded["offset_mapping"], dtype=torch.long).view(-1, 2) + start)
            start += len(piece)
        return torch.cat(ids)[:limit], torch.cat(spans)[:limit]

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens included."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    @torch.no_grad()
    def extend(
        self, prompts: Int64[Tensor, "B T"], length: int, decoding: Decoding, seed: int = 0
    ) -> Int64[Tensor, "B L"]:
        """Continues prompts of one length, after the token that begins a text where the tokenizer puts one.

        The end of the text is never chosen, so that all continuations are equally long. The checkpoint's own settings
        of generation (temperature, penalties) are set aside: the rule alone counts.

        Args:
            prompts: ids, [B, T].
            length: tokens to add, at least 1.
            decoding: the rule.
            seed: of the draws; the global state of torch stays as it is.

        Returns:
            The added ids, [B, length].
        """
        prompts = prompts.to(self.device)
        first = [] if self.beginning is None else [self.beginning]
        begun = torch.cat((prompts.new_tensor(first).expand(len(prompts), len(first)), prompts), 1)
        if begun.size(1) + length > self.context:  # not all of it fits: a window moves along
            window = self.context - len(first)

            def scores(ids: Tensor) -> Tensor:
                ids = torch.cat((begun[:1, : len(first)].expand(len(ids), -1), ids), 1)
                rows = max(1, ENTRIES // (ids.size(1) * self.vocabulary))
                return torch.cat([self.logits(chunk)[:, -1] for chunk in torch.split(ids, rows)])

            return extend(scores, prompts, length, window, decoding, seed, self.ends)
        from transformers import GenerationConfig

        settings: Any = GenerationConfig
        sampling = {"top_k": decoding.k or 0, "top_p": decoding.p or 1.0, "temperature": decoding.temperature or 1.0}
        options = settings(
            max_new_tokens=length,
            min_new_tokens=length,
            do_sample=decoding.stochastic,
            # Explicit where they count, for the default of k is 50; where nothing is drawn they would be warned of.
            **(sampling if decoding.stochastic else {}),
            num_beams=decoding.beams,
            eos_token_id=self.ends or None,
            pad_token_id=0,  # nothing is padded, but without one it warns
        )
        stored, self.model.generation_config = self.model.generation_config, settings()
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices):
                torch.manual_seed(seed)
                extended: Tensor = self.model.generate(
                    begun, attention_mask=torch.ones_like(begun), generation_config=options
                )
        finally:
            self.model.generation_config = stored
        return extended[:, begun.size(1) :]


def _is_causal(config: Any) -> bool:
    """True for a checkpoint of a causal model; transformers would also make one of a masked model's weights."""
    import transformers

    family, names = type(config), ("MODEL_FOR_MASKED_LM_MAPPING", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING")
    mappings: Any = [getattr(transformers, name) for name in names]
    rivals = [mapping[family].__name__ for mapping in mappings if family in mapping]
    if not rivals:
        return True  # whether there is a causal one at all turns out when it is loaded
    saved = set(config.architectures or []) - set(rivals)
    causal: Any = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    return family in causal and causal[family].__name__ in saved and bool(getattr(config, "is_decoder", False))
