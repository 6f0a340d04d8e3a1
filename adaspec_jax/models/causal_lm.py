"""A language model as one callable value: parameters (a pytree) and a static config."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.errors import UserError
from adaspec_jax.models.attention import block_of
from adaspec_jax.models.decoder import STACKED, Decoder
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.decoding_layout import WEIGHT, laid_out
from adaspec_jax.models.families import config_from_hf
from adaspec_jax.models.grouped_products import form_of
from adaspec_jax.models.key_attention import attention_to_keys
from adaspec_jax.models.kv_cache import KVCache
from adaspec_jax.models.layer_set import check_keep
from adaspec_jax.models.ring import AHEAD
from adaspec_jax.models.vocabulary_rows import with_rows


class Ran(NamedTuple):
    """What a run through layers gives."""

    hidden: Array
    cache: KVCache | None
    taps: tuple[Array, ...]


@partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["config"])
@dataclass(frozen=True)
class CausalLM:
    """Parameters and the function they belong to; a pytree, so `jax.jit` and `jax.grad` take it as an argument.

    In a call, `positions_BT` defaults to cache length + arange(T). `mask_BTS` is bool, True = may attend, and replaces
    causal; S is the number of cache slots, or T without a cache. A cache takes the T new tokens at each row's length
    and comes back T longer; tokens past its slots are dropped, so allocate enough. Token ids must be < vocab_size.

    `segments_BT`, int32, is for packed rows, without a cache: tokens attend causally to those of their own segment, a
    run of equal numbers, and positions begin anew in each. Hidden states are those of the segments in rows of their
    own, up to rounding.
    """

    params: Any
    config: DecoderConfig

    def __call__(
        self,
        tokens_BT: Array | np.ndarray,
        cache: KVCache | None = None,
        *,
        positions_BT: Array | None = None,
        mask_BTS: Array | None = None,
    ) -> tuple[Array, KVCache | None]:
        """Float32 logits_BTV, and the extended cache (None without one)."""
        hidden_BTD, cache = self.features(tokens_BT, cache, positions_BT=positions_BT, mask_BTS=mask_BTS)
        return self.unembed(hidden_BTD), cache

    def features(
        self,
        tokens_BT: Array | np.ndarray,
        cache: KVCache | None = None,
        *,
        positions_BT: Array | None = None,
        mask_BTS: Array | None = None,
        segments_BT: Array | None = None,
    ) -> tuple[Array, KVCache | None]:
        """hidden_BTD after the final norm, and the extended cache (None without one)."""
        ran = self.run(tokens_BT, cache, positions_BT=positions_BT, mask_BTS=mask_BTS, segments_BT=segments_BT)
        return ran.hidden, ran.cache

    def run(
        self,
        tokens_BT: Array | np.ndarray,
        cache: KVCache | None = None,
        *,
        positions_BT: Array | None = None,
        mask_BTS: Array | None = None,
        segments_BT: Array | None = None,
        first: int = 0,
        last: int | None = None,
        hidden_BTD: Array | None = None,
        keep: tuple[bool, ...] | Array | None = None,
        taps: tuple[float, ...] = (),
    ) -> Ran:
        """Layers `first` to `last` (exclusive; None: all that follow, and the final norm), and what was tapped.

        Args:
          hidden_BTD: what enters layer `first`, in place of the embedded tokens; needed where `first` is above 0.
          keep: [2L], whether each sublayer runs: attention of layer i at 2 i, its MLP at 2 i + 1. A tuple is static; a
            traced bool array is decided on the device. An attention that does not run leaves the cache as it was.
          taps: layers whose hidden states come back: i is the residual stream after layer i, counted from 0; i + 0.5
            is what entered layer i and what its attention adds to that; -1 is what follows the final norm.

        Returns:
          `Ran(hidden, cache, taps)`: the residual stream after layer `last - 1`, or after the final norm; the cache, T
          tokens longer in every row, with keys and values of the layers that ran; a tuple of [B, T, D].

        Raises:
          ValueError: layers out of range, a tap that does not run, `first` without hidden states, `keep` of another
            length, segments beside a cache or a mask.
        """
        if segments_BT is not None and (cache is not None or mask_BTS is not None):
            raise ValueError("segments_BT says who attends to whom in whole rows: give neither a cache nor mask_BTS")
        end = self._checked(first, last, hidden_BTD, keep, taps)
        positions_BT, mask_BTS, hidden_BTD, segments_BT = (
            None if x is None else jnp.asarray(x) for x in (positions_BT, mask_BTS, hidden_BTD, segments_BT)
        )
        arrays = (positions_BT, mask_BTS, hidden_BTD, keep, segments_BT)
        span = {"first": first, "last": None if last is None else end, "taps": tuple(taps)}
        return Ran(*self._apply(jnp.asarray(tokens_BT), cache, *arrays, method="run", **span))

    def attention_to_keys(self, layer: int, hidden_BTD: Array, cache: KVCache, position_BT: Array) -> Array:
        """[B, Hkv, S]: how much attention these tokens, as they enter a layer, give to each cached key; see there."""
        if any(self.config.windows):
            raise UserError(
                "the most attended keys cannot be chosen where layers attend to windows, and hold no others"
            )
        params, kind = self.unstacked().params[f"layers_{layer}"], self.config.rotation(layer)
        return attention_to_keys(self.config, kind, params, hidden_BTD, cache.keys[layer], position_BT)

    def embedded(self, tokens: Array) -> Array:
        """[..., D] of token ids [...]: what the first layer reads, without learned positions."""
        return self._apply(tokens, method="embedded")

    def unembed(self, hidden_BTD: Array) -> Array:
        """Float32 logits [..., V] of hidden states [..., D]; columns past `config.num_tokens` are near -1e9."""
        return self._apply(hidden_BTD, method="unembed")

    def unembedding(self) -> CausalLM:
        """The same model with only the parameters that `unembed` reads."""
        name = "head" if "head" in self.params else "embed"
        return replace(self, params={name: self.params[name]})

    def output_matrix(self) -> Array:
        """[D, V]: what `unembed` multiplies hidden states by; a bias, where there is one, is left out."""
        if "head" not in self.params:
            return self.params["embed"]["embedding"].T
        head = self.params["head"]
        return head[WEIGHT].T if WEIGHT in head else head["kernel"]

    def ends(self) -> CausalLM:
        """The same model with only the parameters that `embedded` and `unembed` read: all that heads need of it."""
        return replace(self, params={name: self.params[name] for name in ("embed", "head") if name in self.params})

    def init_cache(self, batch_size: int, slots: int, *, ahead: int = AHEAD) -> KVCache:
        """An empty cache in the parameters' dtype; of layers with windows `ahead` tokens can be taken back."""
        c = self.config
        sizes: dict[str, Any] = {
            "layers": c.num_layers,
            "kv_heads": c.num_kv_heads,
            "head_dim": c.head_dim,
            "windows": c.windows,
        }
        return KVCache.zeros(batch_size, slots, dtype=self.dtype, ahead=ahead, **sizes)

    def with_vocabulary(self, num_tokens: int) -> CausalLM:
        """The same model with the columns from `num_tokens` on ruled out; UserError if the vocabulary is smaller."""
        if num_tokens > self.config.vocab_size:
            raise UserError(
                f"a vocabulary of {num_tokens} tokens does not fit a model with vocab_size {self.config.vocab_size}: "
                "is this the model's own tokenizer?"
            )
        return replace(self, config=replace(self.config, num_tokens=num_tokens))

    def with_vocabulary_size(self, vocab_size: int) -> CausalLM:
        """The same model with `vocab_size` rows in embedding and output matrix; UserError below `num_tokens`.

        Each row that no token owns becomes the mean of the tokens' rows, for engines that do not mask it. Its logit is
        then the mean of the tokens' logits: never above the largest, so that greedy decoding does not take it, and
        sampling, at any temperature, gives it at most the probability of an average token (Jensen), all P such rows
        beside V tokens at most P / (P + V); under a soft cap only the first holds. Where the head has a bias, that of
        such a row is -1e4, and its probability 0. The tokens' rows stay as they are, and here the others are masked.
        So does what is read at a mask token, which tied matrices are untied for.
        """
        return with_rows(self, vocab_size)

    def check_context(self, tokens: int, name: str, remedy: str) -> None:
        """UserError where `tokens` of text are more than the model was made for."""
        if tokens > (context := self.config.max_positions):
            raise UserError(f"{name} has a context of {context} tokens, and {tokens} are needed; {remedy}")

    def with_attention(self, kernel: Literal["xla", "cudnn"], dtype: Any, *, backend: str | None = None) -> CausalLM:
        """The same model with this attention kernel, "xla" or "cudnn", as it suits a backend (default: the one here).

        UserError where the kernel cannot run there.
        """
        c = self.config
        if kernel == "cudnn" and (any(c.windows) or c.attention_softcap):
            raise UserError(
                f'attention "cudnn" takes neither windows nor soft caps, and {c.model_type} has them: "xla"'
            )
        block = block_of(kernel, head_dim=c.head_dim, dtype=dtype, backend=backend)
        products = form_of(backend) if c.experts else ""
        return replace(self, config=replace(c, attention=kernel, attention_block=block, expert_products=products))

    def with_rematerialisation(self, rematerialise: bool) -> CausalLM:
        """The same model, whose backward pass keeps only the layers' inputs, or all that it needs."""
        return replace(self, config=replace(self.config, rematerialise=rematerialise))

    def stacked(self) -> CausalLM:
        """The same model with its layers' parameters stacked, [L, ...]: one layer is compiled instead of L."""
        if "layers_0" not in self.params:
            return self
        layers = [self.params[f"layers_{i}"] for i in range(self.config.num_layers)]
        rest = {name: value for name, value in self.params.items() if not name.startswith("layers_")}
        return replace(self, params=rest | {STACKED: jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)})

    def unstacked(self) -> CausalLM:
        """The same model with parameters layer by layer, as decoding reads them fastest."""
        if STACKED not in self.params:
            return self
        rest = {name: value for name, value in self.params.items() if name != STACKED}
        layers = (jax.tree.map(itemgetter(i), self.params[STACKED]) for i in range(self.config.num_layers))
        return replace(self, params=rest | {f"layers_{i}": layer for i, layer in enumerate(layers)})

    def for_decoding(self, products: str | None = None, *, backend: str | None = None) -> CausalLM:
        """The same model as decoding reads it fastest on a backend (default: the one here); not to be saved or fitted.

        On CPUs linear layers that read the same input are one, and bfloat16 ones lie [out, in]; elsewhere the compiler
        sees to layouts. `products` "bfloat16": inputs and kernels of all linear layers are rounded to it, and summed
        in float32; None: they stay as they are. Taken twice, nothing more changes.
        """
        unstacked = self.unstacked()
        if (backend or jax.default_backend()) != "cpu" and products is None:
            return unstacked
        dtype = None if products is None else jnp.dtype(products)
        return replace(unstacked, params=laid_out(unstacked.params, tied=self.config.tie_embeddings, dtype=dtype))

    def astype(self, dtype: Any) -> CausalLM:
        """The same model with every parameter in `dtype`."""
        return replace(self, params=jax.tree.map(lambda x: x.astype(dtype), self.params))

    @property
    def dtype(self) -> Any:
        return self.params["embed"]["embedding"].dtype

    @property
    def num_params(self) -> int:
        """Parameters in all, embeddings included, tied ones once."""
        tied = {"head"} if self.config.tie_embeddings else set()
        return sum(leaf.size for leaf in jax.tree.leaves({k: v for k, v in self.params.items() if k not in tied}))

    def _checked(self, first: int, last: int | None, hidden_BTD: Any, keep: Any, taps: tuple[float, ...]) -> int:
        layers = self.config.num_layers
        end = layers if last is None else last
        if not 0 <= first <= end <= layers:
            raise ValueError(f"layers {first} to {last} are not among the model's {layers}")
        if first and hidden_BTD is None:
            raise ValueError(f"layer {first} is not the first: hidden_BTD must say what enters it")
        check_keep(keep, layers)
        if absent := [tap for tap in taps if not (first <= tap < end or (tap == -1 and last is None))]:
            raise ValueError(f"layers {absent} do not run, and cannot be tapped; layers {first} to {end} do")
        return end

    def _apply(self, *args: Any, method: str, **static: Any) -> Any:
        return Decoder(self.config).apply({"params": self.params}, *args, method=method, **static)


@partial(jax.jit, static_argnames=("config", "dtype"))
def _initial_params(key: Array, *, config: DecoderConfig, dtype: Any) -> Any:
    params = Decoder(config).init(key, jnp.zeros((1, 1), jnp.int32))["params"]
    return jax.tree.map(lambda x: x.astype(dtype), params)


def build(hf_config: dict, key: Array, *, dtype: Any = jnp.float32) -> CausalLM:
    """A randomly initialised model of a config.json: normal(initializer_range) kernels, zero biases, unit norms."""
    config = config_from_hf(hf_config)
    return CausalLM(_initial_params(key, config=config, dtype=jnp.dtype(dtype)), config)


def parameter_shapes(config: DecoderConfig) -> Any:
    """The parameter pytree as float32 `jax.ShapeDtypeStruct`s; nothing is allocated."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(partial(_initial_params, config=config, dtype=jnp.dtype(jnp.float32)), key)
