"""Everything a fine-tuning depends on; recorded with its result."""

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from decone.training.config import Section, sentence


class FinetuneConfig(Section):
    """Settings of one fine-tuning: AdamW, linear warm-up, then a straight line to 0; the last epoch counts."""

    model: str = Field(description="preset, folder or hub name of the pretrained model")
    task: str = Field(description="what it is trained on")
    row: str = Field(default="original", description="which repair its table went through")
    seed: int = Field(default=1337, ge=0, lt=2**31, description="of the new head, the order of examples, dropout")
    epochs: int = Field(default=3, ge=1, description="passes over the training examples")
    lr: float = Field(default=5e-5, gt=0, description="highest learning rate")
    warmup: float = Field(default=0.1, ge=0, le=1, description="share of the steps that warm up")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="decay of the second moment")
    weight_decay: float = Field(default=0.01, ge=0, description="decay of every matrix; biases and gains have none")
    clip: float = Field(default=1.0, ge=0, description="largest global gradient norm; 0 switches clipping off")
    batch: int = Field(default=32, ge=1, description="examples of one optimiser step")
    accumulate: int = Field(default=1, ge=1, description="parts of such a batch that are computed one by one")
    length: int = Field(default=128, ge=8, description="tokens of an example; what is longer is cut")
    examples: int = Field(default=0, ge=0, description="first training examples that are used; 0 is all")
    precision: Literal["float32", "bfloat16"] = Field(default="float32", description="of the products, by autocast")

    @classmethod
    def build(cls, values: dict[str, Any]) -> Self:
        """Validates settings; ValueError in one sentence that names the key and the nearest known one."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(sentence(cls, error)) from None

    def identity(self) -> str:
        """Digest of everything that decides the result."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:16]
