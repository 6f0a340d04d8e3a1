"""What differs between families, as data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import jax

from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.models.rotary import Scaling

OWNED = "adaspec_num_tokens"  # in the config.json of what was trained here: vocabulary rows that tokens own
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_fast": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "relu": jax.nn.relu,
}


@dataclass(frozen=True)
class DecoderConfig:
    """A family and its sizes; equal configs compute the same function of equal parameters."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-5
    parallel_residual: bool = False  # attention and MLP both read the layer's input
    shared_norm: bool = False  # and read it through one norm
    norms: Literal["before", "after", "both"] = "before"  # of what a sublayer reads, of what it adds, or of both
    norm_offset: bool = False  # a norm multiplies by 1 + scale
    mlp: Literal["plain", "gated"] = "plain"
    experts: int = 0  # gated MLPs of a layer, to a few of which a router gives each token; 0: one MLP for all tokens
    experts_per_token: int = 0
    expert_size: int = 0  # features inside each expert, as intermediate_size of an MLP
    normalise_experts: bool = False  # the chosen experts' shares sum to 1
    activation: str = "gelu"
    learned_positions: bool = False  # a vector per position, added to the token's
    rotary_dim: int = 0  # of head_dim; the rest passes through
    rotary_interleaved: bool = False  # pairs (0, 1), (2, 3), ... instead of the two halves
    rope_theta: float = 10_000.0
    rope_scaling: Scaling | None = None
    local_rope_theta: float = 10_000.0  # and of the layers whose rotation is 1
    local_rope_scaling: Scaling | None = None
    rotations: tuple[int, ...] = ()  # per layer: 0, 1, or -1 for none; (): 0 in all
    windows: tuple[int, ...] = ()  # per layer: to how many tokens, itself included, one attends; 0, and (): to all
    attention_scale: float | None = None  # of scores; None: 1 / sqrt(head_dim)
    attention_softcap: float = 0.0  # scores become cap * tanh(scores / cap); 0: they stay
    qk_norm: bool = False  # queries and keys normalised before they are rotated
    qk_norm_whole: bool = False  # all heads together, not each by itself
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    head_bias: bool = False
    tie_embeddings: bool = False
    embed_scale: float = 1.0  # what the embedded tokens are multiplied by
    residual_scale: float = 1.0  # what sublayers add is multiplied by
    logit_scale: float = 1.0  # what logits are multiplied by
    logit_softcap: float = 0.0  # and then logits become cap * tanh(logits / cap); 0: they stay
    max_positions: int = 2048
    initializer_range: float = 0.02
    eos_token_id: int = -1  # -1: the config names none
    num_tokens: int = None  # type: ignore[assignment]  # entries the tokenizer has; None becomes vocab_size
    mask_token: int = -1  # stands for tokens that are to be guessed in one pass; -1: this model knows none
    mask_block: int = 0  # guesses of one pass whose masks see each other; 0: any number, and each sees those before it
    attention: Literal["xla", "cudnn"] = "xla"  # kernel of calls without a cache
    attention_block: int = 0  # queries at once in "xla"; 0: as suits the backend
    expert_products: Literal["", "blocks", "ragged"] = ""  # how they are computed; "": as suits the backend
    rematerialise: bool = False  # the backward pass computes a layer's inside again instead of keeping it
    source: str = field(default="{}", compare=False, repr=False)  # config.json, so that unknown keys survive a save
    generation: str = field(default="null", compare=False, repr=False)  # generation_config.json; "null": there is none

    def __post_init__(self) -> None:
        if self.num_tokens is None:
            object.__setattr__(self, "num_tokens", self.vocab_size)
        if not 1 <= self.num_tokens <= self.vocab_size:
            raise UserError(f"num_tokens {self.num_tokens} must be between 1 and vocab_size {self.vocab_size}")
        if self.activation not in ACTIVATIONS:
            raise UserError(f'unknown activation "{self.activation}"{did_you_mean(str(self.activation), ACTIVATIONS)}')
        if self.num_heads % self.num_kv_heads:
            raise UserError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.rotary_dim % 2 or not 0 <= self.rotary_dim <= self.head_dim:
            raise UserError(f"rotary size {self.rotary_dim} must be even and at most the head size {self.head_dim}")
        if self.shared_norm and not self.parallel_residual:
            raise UserError("a shared norm needs a parallel residual")
        if self.head_bias and self.tie_embeddings:
            raise UserError("a tied head has no bias")
        if self.norms != "before" and self.parallel_residual:
            raise UserError("norms of what sublayers add need sublayers in a row")
        for name, kinds in (("windows", self.windows), ("rotations", self.rotations)):
            if kinds and len(kinds) != self.num_layers:
                raise UserError(f"{name} says something of {len(kinds)} layers, and there are {self.num_layers}")
        if self.experts and not (1 <= self.experts_per_token <= self.experts and self.expert_size > 0):
            raise UserError(f"a token goes to {self.experts_per_token} of {self.experts} experts of {self.expert_size}")
        if self.experts and (self.mlp != "gated" or self.mlp_bias):
            raise UserError("experts are gated MLPs without biases")

    def window(self, layer: int) -> int:
        """How many tokens, itself included, one attends to in this layer; 0: all."""
        return self.windows[layer] if self.windows else 0

    def rotation(self, layer: int) -> int:
        """Which rotation a layer's queries and keys take, 0 or 1; -1: none."""
        return self.rotations[layer] if self.rotations else 0

    @property
    def alike(self) -> bool:
        """Whether all layers compute the same function of their parameters."""
        return len(set(self.windows)) < 2 and len(set(self.rotations)) < 2

    @property
    def inside(self) -> int:
        """Features inside the MLPs that one token passes."""
        return self.experts_per_token * self.expert_size if self.experts else self.intermediate_size

    def hf_config(self) -> dict:
        """The config.json this config was read from, every key kept, and rows that tokens own where not all are."""
        return json.loads(self.source) | ({OWNED: self.num_tokens} if self.num_tokens < self.vocab_size else {})

    def owned(self) -> int:
        """Rows of the vocabulary that tokens own, as far as config.json says."""
        said = json.loads(self.source).get(OWNED)
        return said if isinstance(said, int) and 0 < said < self.vocab_size else self.vocab_size
