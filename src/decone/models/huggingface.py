"""A Hugging Face causal language model, read safely: safetensors only, no remote code."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CONTEXT = 1024  # longest window that is scored, also where a model could take more


class HuggingFaceModel:
    """A causal model of `transformers` with its tokenizer, ready to be measured.

    Args:
        name: folder or hub name.
        device: where it runs.

    Raises:
        ValueError: transformers is missing, or there is no such model, or it is not a causal model in safetensors.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        try:
            import transformers
        except ImportError:
            raise ValueError('Hugging Face models need transformers: pip install "decone[hf]"') from None
        folder = Path(name)
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise ValueError(f"{name} holds neither a decone run (config.toml) nor a Hugging Face model (config.json)")
        if folder.is_file():
            raise ValueError(f"{name} is a file; name the folder of a model")
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            load: Any = transformers.AutoModelForCausalLM.from_pretrained
            safe = {"trust_remote_code": False, "use_safetensors": True}
            self.model: Any
            self.model, report = load(name, **safe, output_loading_info=True)
        except Exception as error:  # the libraries behind it raise their own, tokenizers a bare Exception
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"cannot load {name} as a causal model from safetensors: {reason}") from None
        absent = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
        if absent:  # transformers would fill them with random numbers
            raise ValueError(f"{name} lacks weights of a causal model, e.g. {absent[0]}; name a complete checkpoint")
        self.model.to(device).eval()

    @property
    def context(self) -> int:
        """Longest window scored, in tokens."""
        return min(int(getattr(self.model.config, "max_position_embeddings", None) or CONTEXT), CONTEXT)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
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

    def encode(self, text: str) -> Int[Tensor, " N"]:
        """Ids of a text, without special tokens."""
        return torch.tensor(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    @torch.no_grad()
    def logits(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Scores of the next token at every position, float32."""
        scores: Tensor = self.model(input_ids=ids).logits
        return scores.float()
