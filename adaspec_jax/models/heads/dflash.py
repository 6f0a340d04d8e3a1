"""DFlash: a block of tokens guessed at masks in one pass, on several of the target's hidden states.

Chen et al. 2026 (arXiv 2602.06036). Qwen3's layers, bidirectional inside the block; hidden states of several of the
target's layers, fused and normed once, give keys and values to all layers and are never queries. Slot 0 is the last
committed token, the others are mask tokens; embeddings and output matrix are the target's and stay frozen. A block sees
hidden states strictly before its first token, whose own is not known when decoding.

Training is that of SpecForge and of the speculators library: blocks begin at random tokens, the cross entropy of slot
j weighs exp(-(j - 1) / decay), or what D-PACE (2605.18810) gives it, over the number of labels. Sizes of block, decay
and smoothing are the library's defaults; it takes the target's likeliest token for a label, SpecForge the text's own,
as here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.errors import UserError
from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.files.weights import Weight, norm
from adaspec_jax.models.files.weights import linear as linear_rows
from adaspec_jax.models.heads.parts import blocks, layer, layouts
from adaspec_jax.models.heads.parts.blocks import InBlocks
from adaspec_jax.models.heads.parts.checked import check_knobs, check_taps
from adaspec_jax.models.heads.parts.head import Head, Term
from adaspec_jax.models.heads.parts.recurrent import linear
from adaspec_jax.models.heads.parts.stored import Stored
from adaspec_jax.models.heads.parts.texts import Places, begins
from adaspec_jax.models.kv_cache import KVCache

_WEIGHTS = ("decay", "dpace")
_RELEASED = 128  # features of the released drafts' attention heads


@dataclass(frozen=True, kw_only=True)
class Dflash(InBlocks):
    """`block` tokens, of which the first is known; `depth` layers; blocks at `anchors` places of a row in training.

    `weights`: "decay", or "dpace": the tokens that stay, as far as the head's own probabilities `smoothing` tell.
    `taps`: layers whose outputs it reads, ascending; (): as many as it has, evenly from layer 1 to L - 3, as in the
    released code; from first to last where those are fewer [ours]. `mask`: the mask token; -1: the last row.
    """

    name = "dflash"
    paper = "arXiv 2602.06036"
    together = True

    block: int = 8
    depth: int = 5
    taps: tuple[int, ...] = ()
    anchors: int = 512
    hard: bool = True
    weights_by: str = "decay"
    decay: float = 4.0
    smoothing: float = 0.5
    mask: int = -1

    def __post_init__(self) -> None:
        check_knobs(self, counts=("block", "depth"), shares=("smoothing",))
        check_taps(self.taps, self.sizes.num_layers)
        if self.block < 2:
            raise ValueError(f"block is {self.block}; it must be at least 2, of which the first token is known")
        if self.anchors < 1:
            raise ValueError(f"anchors is {self.anchors}; it must be at least 1")
        if self.weights_by not in _WEIGHTS:
            raise ValueError(f'weights_by is "{self.weights_by}"; it must be one of {", ".join(_WEIGHTS)}')
        if self.weights_by == "dpace" and not self.hard:
            raise ValueError('weights_by is "dpace", which is for the text\'s own tokens: leave hard=false out')
        if not 0 < self.decay < math.inf:
            raise ValueError(f"decay is {self.decay}; it must be above 0")
        if not -1 <= self.mask < self.sizes.vocab_size:
            raise ValueError(f"mask is {self.mask}; the target has {self.sizes.vocab_size} vocabulary rows")
        self.layer  # noqa: B018 - which refuses sizes that it cannot have

    @property
    def layer(self) -> DecoderConfig:
        return replace(layer.layer_config(self), model_type="qwen3", qk_norm=True)

    @property
    def layers(self) -> tuple[int, ...]:
        return self.taps or _usual_taps(self.sizes.num_layers, self.depth)

    @property
    def num_layers(self) -> int:
        return self.depth

    @property
    def guesses(self) -> int:
        return self.block - 1

    @property
    def by_own_laws(self) -> bool:
        return self.weights_by == "dpace"

    @property
    def mask_token(self) -> int:
        return self.mask if self.mask >= 0 else self.sizes.vocab_size - 1

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray):
        del target, counts_V
        keys, size = jax.random.split(key, self.depth + 1), self.sizes.hidden_size
        params = {f"layer_{i}": layer.init_layer(self.layer, keys[i], size) for i in range(self.depth)}
        # Normed queries and keys give a score of sqrt(K) at most, by which a mask of narrow heads hardly tells one slot
        # from a text. Scores begin as wide as at heads of 128 [ours].
        wide_K = jnp.full(self.head_dim, (_RELEASED / self.head_dim) ** 0.25)
        for part in params.values():
            part["attention_norm"] = layer.unit_norm(size)
            part["attention"] |= {name: {"scale": wide_K} for name in ("q_norm", "k_norm")}
        fused = linear(keys[-1], len(self.layers) * size, size, self.sizes.initializer_range)
        return {"fc": fused, "hidden_norm": layer.unit_norm(size), "final_norm": layer.unit_norm(size), **params}, None

    # In training.

    @property
    def terms(self) -> tuple[Term, ...]:
        return tuple(Term(j, math.exp(-(j - 1) / self.decay)) for j in range(1, self.block))

    def places(self, labels_BT: Array, segments_BT: Array | None, key: Array) -> Places:
        """Where decoding may begin a block: before tokens whose successor is a label."""
        return Places.drawn(key, begins(labels_BT, segments_BT, 1), self.anchors)

    def labels_of(self, count: int) -> float:
        return super().labels_of(min(count, self.anchors))

    def weights(self, labels_BIN: Array, given_BIN: Array | None) -> Array:
        if given_BIN is None:
            return super().weights(labels_BIN, given_BIN)
        stays_BIN = jnp.where(labels_BIN, (1 - self.smoothing) * given_BIN + self.smoothing, 1.0)
        reached_BIN = jnp.cumprod(stays_BIN, axis=1) * labels_BIN
        return jnp.flip(jnp.cumsum(jnp.flip(reached_BIN, 1), axis=1), 1)

    def guessed_at(
        self, head: Head, target: CausalLM, tokens_BT: Array, features_BTF: Array, segments_BT, places: Places
    ) -> tuple[Array, ...]:
        params, where_BT = head.params, blocks.positions_of(tokens_BT, segments_BT)
        context_BTD = self._context(params, features_BTF)
        sees_BNT = blocks.visible(places, tokens_BT.shape[1], segments_BT)
        hidden_BNSD = self._embedded(target, places.take(tokens_BT, 1), context_BTD.dtype)
        first_BN = places.take(where_BT) + 1

        def text(number: int):
            return blocks.projected(self.layer, params[f"layer_{number}"]["attention"], context_BTD, where_BT)[1]

        made_BNSD = self._run(params, hidden_BNSD, first_BN, lambda number: (text(number), sees_BNT))
        return tuple(made_BNSD[:, :, j] for j in range(1, self.block))

    def _context(self, params: Any, features_BTF: Array) -> Array:
        """[B, T, D]: what gives keys and values to every layer."""
        return layer.normed(self.layer, params["hidden_norm"], features_BTF @ params["fc"]["kernel"])

    def _embedded(self, target: CausalLM, tokens_BN: Array, dtype: Any) -> Array:
        """[B, N, block, D]: what enters the first layer, of blocks that begin with these tokens."""
        ids_BNS = jnp.full((*tokens_BN.shape, self.block), self.mask_token, jnp.int32)
        ids_BNS = ids_BNS.at[:, :, 0].set(tokens_BN)
        return jax.lax.stop_gradient(target.embedded(ids_BNS)).astype(dtype)

    def _run(self, params: Any, hidden_BNSD: Array, first_BN: Array, text: Any) -> Array:
        """What the output matrix reads; `text(number)`: ((keys, values), bool [B, N, T]: what of them a block sees)."""
        batch, chains, width, _ = hidden_BNSD.shape
        positions_BX = (first_BN[:, :, None] + jnp.arange(width)[None, None]).reshape(batch, -1)
        among_SS = np.ones((width, width), bool)

        def through(number: int, params: Any, hidden_BNSD: Array, pair: Any, sees_BNT: Array) -> Array:
            inputs = layer.normed(self.layer, params["attention_norm"], hidden_BNSD).reshape(batch, chains * width, -1)
            query, own = blocks.projected(self.layer, params["attention"], inputs, positions_BX)
            query, *own = (x.reshape(batch, chains, width, *x.shape[2:]) for x in (query, *own))
            mixed = blocks.attend(query, pair, tuple(own), sees_BNT, among_SS, self.attention_block)
            return blocks.added(self.layer, params, hidden_BNSD, mixed)

        for number in range(self.depth):
            run = partial(through, number)
            run = jax.checkpoint(run) if self.rematerialise else run
            hidden_BNSD = run(params[f"layer_{number}"], hidden_BNSD, *text(number))
        return layer.normed(self.layer, params["final_norm"], hidden_BNSD)

    def outward(self, params: Any, term: int) -> dict:
        return {}

    def logits(self, head: Head, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        del head, term
        return target.unembed(hidden)

    # In decoding.

    def cached(self, params: Any, target: CausalLM, features_BTF: Array, tokens_BT: Array, cache: KVCache):
        context_BTD = self._context(params, features_BTF)
        where_BT = jnp.asarray(cache.lengths_B)[:, None] + jnp.arange(tokens_BT.shape[1])[None]
        parts = (params[f"layer_{i}"]["attention"] for i in range(self.depth))
        pairs = [blocks.projected(self.layer, part, context_BTD, where_BT)[1] for part in parts]
        return context_BTD, blocks.lengthened(cache, pairs)

    def at_slots(self, head: Head, target: CausalLM, read_BF: Array, tokens_B: Array, cache: KVCache) -> Array:
        hidden_B1SD = self._embedded(target, tokens_B[:, None], read_BF.dtype)
        first_B1 = jnp.asarray(cache.lengths_B)[:, None]
        text = partial(blocks.in_cache, cache, dtype=read_BF.dtype)
        return self.logits(head, target, self._run(head.params, hidden_B1SD, first_B1, text)[:, 0, 1:])

    # On disk: as vLLM and SGLang read it.

    def hf_config(self) -> dict[str, Any]:
        """`target_layer_ids` i is what leaves layer i, for every server; in EAGLE-3's it is what enters it."""
        said = {"architectures": ["DFlashDraftModel"], "model_type": "qwen3", "num_hidden_layers": self.depth}
        own = {"mask_token_id": self.mask_token, "target_layer_ids": list(self.layers)}
        return layouts.llama_config(self.sizes) | said | {"block_size": self.block, "dflash_config": own}

    def table(self, shapes: Any) -> list[Weight]:
        rows = linear_rows("fc", "fc", bias=False) + norm("hidden_norm", "hidden_norm", bias=False)
        rows += norm("norm", "final_norm", bias=False)
        for i in range(self.depth):
            theirs, ours = f"layers.{i}", f"layer_{i}"
            rows += layouts.layer_rows(theirs, ours)
            rows += norm(f"{theirs}.input_layernorm", f"{ours}/attention_norm", bias=False)
            for part in ("q_norm", "k_norm"):
                rows += norm(f"{theirs}.self_attn.{part}", f"{ours}/attention/{part}", bias=False)
        return rows

    def beside(self, head: Head) -> dict[str, np.ndarray]:
        return {}

    def tables_of(self, stored: Stored) -> None:
        layouts.drop_copy(stored, layouts.EMBEDDING)
        layouts.drop_copy(stored, layouts.MATRIX)

    @classmethod
    def published(cls, stored: Stored) -> Dflash:
        """As the released drafts are; UserError for what is not computed here."""
        if "speculators_model_type" in stored.config:
            raise UserError("config.json: DFlash's drafts in the format of the speculators library are not read here")
        own = stored._replace(config=stored.object("dflash_config"))
        own.refuse("causal", "use_swa", "attention_sink_bias", "attention_value_scale")
        stored.refuse("is_causal", "markov_rank", "sample_from_anchor")
        if not (own.flag("use_aux_hidden_state", default=True) and stored.flag("is_neox_style", default=True)):
            raise UserError("config.json: drafts here read the target's layers, and turn features as Qwen3 does")
        if any(kind != "full_attention" for kind in stored.config.get("layer_types") or ()):
            raise UserError('config.json: "layer_types" has windows; drafts here attend to all')
        config = {"head_dim": 128} | dict(stored.config)
        sizes = layouts.llama_sizes(config, stored.target, model_type="qwen3", layers=None)
        if stored.count("draft_vocab_size", default=sizes.vocab_size) != sizes.vocab_size or "d2t" in stored.tensors:
            raise UserError("config.json: drafts here guess among all of the target's tokens")
        taps = own.config.get("target_layer_ids")
        if not isinstance(taps, list) or any(type(each) is not int for each in taps):
            raise UserError(f'config.json: "target_layer_ids" is {taps!r}; a list of layers is needed')
        depth = stored.count("num_hidden_layers")
        block, mask = stored.count("block_size", default=16), own.count("mask_token_id")
        return cls(sizes=sizes, depth=depth, block=block, mask=mask, taps=tuple(sorted(set(taps))))


def _usual_taps(count: int, depth: int) -> tuple[int, ...]:
    if depth == 1:
        return (count // 2,)
    first, last = (1, count - 3) if count - 3 >= depth else (0, count - 1)
    return tuple(sorted({round(first + i * (last - first) / (depth - 1)) for i in range(depth)}))


KIND = Dflash
