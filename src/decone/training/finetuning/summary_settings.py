"""Settings of a fine-tuning on summaries: those of every fine-tuning, and how a summary is written."""

from typing import Self

from pydantic import Field, model_validator

from decone.training.finetuning.settings import FinetuneConfig


class SummaryConfig(FinetuneConfig):
    """Teacher forcing in training, beam search to be measured; the search ends with as many summaries as beams."""

    length: int = Field(default=512, ge=8, description="tokens of a document; what is longer is cut")
    target: int = Field(default=256, ge=2, description="tokens of a summary in training; what is longer is cut")
    prefix: str = Field(default="", description="words before every document, for models that want a command")
    smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the target that goes to all tokens alike")
    beams: int = Field(default=4, ge=1, description="of the search; 1 is greedy")
    shortest: int = Field(default=0, ge=0, description="tokens that are written at least")
    longest: int = Field(default=128, ge=1, description="tokens that are written at most")
    length_penalty: float = Field(default=1.0, description="power of the length that log probabilities are divided by")
    no_repeat: int = Field(default=0, ge=0, description="so many tokens in a row are written once only; 0 is any")

    @model_validator(mode="after")
    def _longest_is_not_below_shortest(self) -> Self:
        if self.longest < self.shortest:
            raise ValueError(
                f"longest = {self.longest} is below shortest = {self.shortest}; raise it, or lower shortest"
            )
        return self
