"""MTP: DeepSeek-V3's module for a token more, run over its own outputs as FastMTP trains it.

DeepSeek-V3 (arXiv 2412.19437): the normed embedding of the next token and the normed hidden state, side by side, go
through one linear map into a decoder layer; embeddings and output matrix are the target's and stay frozen. FastMTP
(2509.18362) trains one module for three steps on the text's own tokens, with losses weighted 0.6 to the power of the
step, summing to one. As vLLM computes the released modules, the first step reads the hidden state after the target's
final norm, later ones the layer's output before the module's own, and the embedding comes first in the map.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.heads.parts.head import Head, Term
from adaspec_jax.models.heads.parts.layer import init_layer, normed, unit_norm
from adaspec_jax.models.heads.parts.recurrent import Recurrent, linear


@dataclass(frozen=True, kw_only=True)
class Mtp(Recurrent):
    """Three steps and the cross entropy of the text's tokens are FastMTP's; `hard=false` learns the target's laws.

    The layer is Llama's, also where a released module has experts: directories of released modules are not read here.
    """

    name = "mtp"
    paper = "arXiv 2509.18362"

    steps: int = 3
    decay: float = 0.6
    hard: bool = True

    @property
    def terms(self) -> tuple[Term, ...]:
        """Weights that sum to one, whatever the number of steps."""
        terms = super().terms
        whole = sum(term.weight for term in terms)
        return tuple(term._replace(weight=term.weight / whole) for term in terms)

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray):
        """The map begins with the hidden state itself, beside small random numbers [ours]."""
        del target, counts_V
        keys, size = jax.random.split(key, 2), self.sizes.hidden_size
        kernel = linear(keys[0], 2 * size, size, self.sizes.initializer_range)["kernel"]
        norms = {name: unit_norm(size) for name in ("token_norm", "hidden_norm", "input_norm", "final_norm")}
        joint = {"kernel": kernel.at[size:].add(jnp.eye(size))}
        return {"fc": joint, "layer": init_layer(self.layer, keys[1], size), **norms}, None

    def joined(self, params, embedded: Array, hidden: Array) -> tuple[Array, Array]:
        parts = normed(self.layer, params["token_norm"], embedded), normed(self.layer, params["hidden_norm"], hidden)
        joint = jnp.concatenate(parts, axis=-1) @ params["fc"]["kernel"]
        return normed(self.layer, params["input_norm"], joint), joint

    def outward(self, params, term: int) -> dict:
        return {"final_norm": params["final_norm"]}

    def logits(self, head: Head, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        del term
        return target.unembed(normed(self.layer, head.params["final_norm"], hidden))


KIND = Mtp
