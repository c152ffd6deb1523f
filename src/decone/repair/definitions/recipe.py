"""Settings of rows rebuilt from definitions: every choice by name, with its default and that of the released code."""

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from decone.files.foreign import plain, quoted

Solver = Literal["ridge", "gradient"]
Read = Literal["slot", "states", "words"]
Join = Literal["joined", "mean", "first"]
Mention = Literal["mask", "keep", "drop"]
TrainOn = Literal["kept", "others", "all"]
Start = Literal["ridge", "random"]
Scale = Literal["none", "row", "table", "spread"]
Collision = Literal["warn", "keep-old"]
Precision = Literal["auto", "float32", "bfloat16"]


class DefinitionRecipe(BaseModel):
    """Settings of a reconstruction; unknown keys are refused.

    Example:
        >>> DefinitionRecipe(solver="ridge").read, DefinitionRecipe.paper().senses
        ('words', 'first')
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    solver: Solver = Field(
        default="ridge", description="frozen model and a linear map in closed form, or the model trained"
    )
    read: Read = Field(
        default="words",
        description="features of the map: the state at the slot; also the mean of all states; also the mean input row "
        "of the definition's own words",
    )
    senses: Join = Field(
        default="joined", description="all senses in one prompt, one prompt each and their mean, or the first"
    )
    most: int = Field(default=8, ge=1, description="senses of a token that are read")
    gloss_tokens: int = Field(default=40, ge=1, description="tokens of a definition that are read")
    prompt_tokens: int = Field(default=128, ge=8, description="tokens of a prompt")
    rounds: int = Field(
        default=2,
        ge=1,
        description="readings; where rows were lost, each after the first reads with those that the last rebuilt",
    )
    mention: Mention = Field(
        default="mask", description="where a definition names its token: mask it, keep it, or drop it"
    )
    train_on: TrainOn = Field(
        default="kept", description="tokens not replaced; each row from all others (ridge); or all, itself too"
    )
    scale: Scale = Field(
        default="spread",
        description="length of new rows: as rebuilt; of the old row; of the mean row; or their spread around the mean",
    )
    blend: float = Field(
        default=1.0, ge=0, le=1, description="share of the rebuilt row in the new one, the rest is the old"
    )
    collision: Collision = Field(
        default="warn", description="tokens with the same definitions: same row, or the first one only"
    )
    ridge: float | None = Field(
        default=None, gt=0, description="penalty of the map; without it the best of seven, held out"
    )
    folds: int = Field(default=5, ge=2, description="groups of tokens, each predicted from the others")
    # Of the gradient solver.
    noise: tuple[float, float, float] = Field(
        default=(1.0, 0.0, 0.0), description="slots masked, a random token, the token itself"
    )
    start: Start = Field(default="ridge", description="of the linear map; random is the released code's")
    epochs: int = Field(default=4, ge=1)
    batch: int = Field(default=64, ge=1, description="prompts per step")
    rate: float = Field(default=1e-4, gt=0, description="peak learning rate of the model")
    map_rate: float = Field(default=3e-4, gt=0, description="peak learning rate of the map")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps")
    decay: float = Field(default=0.01, ge=0, description="weight decay")
    clip: float = Field(default=1.0, gt=0, description="norm of the gradient")
    train_table: bool = Field(default=False, description="train the model's own input table too, in its copy")
    holdout: float = Field(
        default=0.05, gt=0, lt=0.5, description="share of the tokens: half say when to stop, half are scored"
    )
    patience: int = Field(default=2, ge=1, description="epochs without a better one before training ends")
    precision: Precision = "auto"
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sound(self) -> "DefinitionRecipe":
        if min(self.noise) < 0 or not math.isclose(sum(self.noise), 1, abs_tol=1e-6):
            raise ValueError(f"noise {self.noise} is not three shares that add up to 1, e.g. 0.5,0.25,0.25")
        return self

    @classmethod
    def paper(cls, **changes: Any) -> "DefinitionRecipe":
        """The method as released for RoBERTa-base, with its bugs mended: one prompt, every row fitted to itself."""
        settings: dict[str, Any] = {
            "solver": "gradient",
            "read": "slot",
            "senses": "first",
            "rounds": 1,
            "train_on": "all",
            "mention": "keep",
            "scale": "none",
            "noise": (0.5, 0.25, 0.25),
            "start": "random",
            "map_rate": 1e-4,
            "clip": 0.1,
            "train_table": True,
        }
        return cls(**{**settings, **changes})

    @classmethod
    def build(cls, preset: str, pairs: dict[str, str]) -> "DefinitionRecipe":
        """Builds settings from text, over those of a preset, "decone" or "paper".

        Raises:
            ValueError: a key is no setting, or its value cannot be.
        """
        values: dict[str, Any] = {
            key: tuple(text.split(",")) if key == "noise" else text for key, text in pairs.items()
        }
        if preset not in ("decone", "paper"):
            raise ValueError(f"there is no preset {quoted(preset)}; choose decone or paper")
        try:
            return cls.paper(**values) if preset == "paper" else cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            key = plain(first["loc"][0], 40) if first["loc"] else "noise"
            if first["type"] == "extra_forbidden":
                raise ValueError(
                    f"definitions have no setting {quoted(key)}; choose one of {', '.join(cls.model_fields)}"
                ) from None
            raise ValueError(f"{key}: {plain(first['msg'].removeprefix('Value error, '), 160)}") from None
