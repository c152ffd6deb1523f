"""A small decoder-only transformer for the studies: one file, read top to bottom.

The shape of the "Stop Jostling" experiments (Table 4): pre-norm, GELU, learned positions, no biases anywhere,
output table tied to the input table unless asked otherwise. `forward` returns hidden states, not logits: the
loss over the vocabulary belongs to an objective and its engine.
"""

import math
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn


class NanoConfig(BaseModel):
    """Shape of a `Nano` decoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(default=0, ge=0, description="rows of the tables; 0 = taken from the tokenizer")
    context: int = Field(default=64, ge=1, description="longest input in tokens")
    layers: int = Field(default=4, ge=1, description="transformer blocks")
    heads: int = Field(default=4, ge=1, description="attention heads per block")
    width: int = Field(default=128, ge=1, description="hidden width")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="dropout probability everywhere")
    tied: bool = Field(default=True, description="one table for input and output")

    @property
    def parameters(self) -> int:
        """Numbers that the weights of such a model hold."""
        V, T, H = self.vocabulary, self.context, self.width
        return H * (V * (1 if self.tied else 2) + T + self.layers * (12 * H + 2) + 1)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}; choose one that is")
        return self


class Norm(nn.Module):
    """LayerNorm with a gain and no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        B, T, H = x.shape
        q, k, v = (x.view(B, T, self.heads, -1).transpose(1, 2) for x in self.qkv(x).split(H, dim=2))
        drop = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=drop)
        return F.dropout(self.out(y.transpose(1, 2).reshape(B, T, H)), self.dropout, self.training)


class Block(nn.Module):
    """Attention and a four times wider GELU layer, each behind its norm, each added to the stream."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.norm_1, self.attention = Norm(config.width), Attention(config)
        self.norm_2 = Norm(config.width)
        self.up = nn.Linear(config.width, 4 * config.width, bias=False)
        self.down = nn.Linear(4 * config.width, config.width, bias=False)
        self.dropout = config.dropout

    def forward(self, x: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        x = x + self.attention(self.norm_1(x))
        return x + F.dropout(self.down(F.gelu(self.up(self.norm_2(x)))), self.dropout, self.training)


class Nano(nn.Module):
    """Decoder whose `forward` gives the hidden states that the output table multiplies.

    Example:
        >>> model = Nano(NanoConfig(vocabulary=10, context=8, layers=1, heads=2, width=16))
        >>> model(torch.zeros(2, 8, dtype=torch.long)).shape
        torch.Size([2, 8, 16])
        >>> model.head is model.embedding.weight
        True
    """

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        if config.vocabulary < 1:
            raise ValueError("a Nano model needs vocabulary >= 1; set it to the tokenizer's size")
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = Norm(config.width)
        self.untied = None if config.tied else nn.Linear(config.width, config.vocabulary, bias=False)
        residual = 0.02 / math.sqrt(2 * config.layers)  # two additions to the stream per block
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=residual if name.endswith(("out.weight", "down.weight")) else 0.02)

    @property
    def head(self) -> Tensor:
        """The output table, [V, H]; the input table itself when tied."""
        return self.embedding.weight if self.untied is None else self.untied.weight

    @property
    def context(self) -> int:
        """Longest input in tokens."""
        return self.config.context

    @property
    def vocabulary(self) -> int:
        """Rows of the output table."""
        return self.head.size(0)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.head.device

    @torch.no_grad()
    def logits(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Scores of the next token at every position, float32, without dropout; for evaluation and sampling."""
        was = self.training
        self.eval()
        scores = F.linear(self(ids), self.head).float()
        self.train(was)
        return scores

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T H"]:
        length = ids.size(1)
        if length > self.context:
            raise ValueError(f"input of {length} tokens is longer than the context of {self.context}; cut it")
        x = self.embedding(ids) + self.position.weight[:length]
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        hidden: Tensor = self.norm(x)
        return hidden
