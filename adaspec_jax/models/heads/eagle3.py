"""EAGLE-3: a layer on three of the target's hidden states, trained on its own outputs, over a vocabulary of its own.

Li et al. 2025 (arXiv 2503.01840), as the released code has it: the fused hidden states are the residual, embeddings and
hidden states are normed apart and lie side by side, norm and output matrix at the end are the head's own, and the next
step reads its output before that norm. EAGLE-3.1's two switches are `norm_fused` and `norm_output`; heads of the
speculators library have the normed hidden states as the residual, `norm_residual`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.drafter_file import LAYOUT
from adaspec_jax.errors import UserError
from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.files.weights import StoredTensor, Weight, norm
from adaspec_jax.models.files.weights import linear as linear_rows
from adaspec_jax.models.heads.parts import layouts
from adaspec_jax.models.heads.parts.checked import check_taps
from adaspec_jax.models.heads.parts.head import Head
from adaspec_jax.models.heads.parts.layer import init_layer, normed, unit_norm
from adaspec_jax.models.heads.parts.recurrent import Recurrent, linear
from adaspec_jax.models.heads.parts.stored import Stored
from adaspec_jax.models.unowned_rows import RULED_OUT, rule_out


@dataclass(frozen=True, kw_only=True)
class Eagle3(Recurrent):
    """Seven steps weighted 0.8 to the power of the step, as the released code has them.

    `vocabulary`: tokens that it guesses among, the most frequent of the training text; 0: all of the target's.
    `taps`: layers whose outputs it reads, ascending; (): those of layers 1, L / 2 - 1 and L - 4 of L >= 7, else first,
    middle and last [ours].
    """

    name = "eagle3"
    paper = "arXiv 2503.01840"

    steps: int = 7
    decay: float = 0.8
    vocabulary: int = 0
    taps: tuple[int, ...] = ()
    norm_fused: bool = False
    norm_output: bool = False
    norm_residual: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_taps(self.taps, self.sizes.num_layers)
        if not 0 <= self.vocabulary <= self.sizes.num_tokens:
            raise ValueError(f"vocabulary is {self.vocabulary}; the target has {self.sizes.num_tokens} tokens")

    @property
    def layers(self) -> tuple[int, ...]:
        count = self.sizes.num_layers
        if self.taps:
            return self.taps
        return _usual_taps(count) or tuple(sorted({0, (count - 1) // 2, count - 1}))

    @property
    def own_vocabulary(self) -> bool:
        return bool(self.vocabulary) and self.vocabulary < self.sizes.vocab_size

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray):
        """It begins with the target's output matrix, and the last of its taps as the residual [ours].

        Tables are {"kept": [V'] the target's ids, ascending} where the vocabulary is its own.
        """
        keys, size, spread = jax.random.split(key, 2), self.sizes.hidden_size, self.sizes.initializer_range
        fused = linear(keys[0], len(self.layers) * size, size, spread)["kernel"]
        matrix_DV, tables = target.output_matrix().astype(jnp.float32) * target.config.logit_scale, None
        if self.own_vocabulary:
            frequent_V = np.argsort(-counts_V[: self.sizes.num_tokens], kind="stable")
            tables = {"kept": np.sort(frequent_V[: self.vocabulary]).astype(np.int32)}
            matrix_DV = matrix_DV[:, tables["kept"]]
        params = {
            "fc": {"kernel": fused.at[-size:].add(jnp.eye(size))},
            "token_norm": unit_norm(size),
            "hidden_norm": unit_norm(size),
            "layer": init_layer(self.layer, keys[1], 2 * size),
            "final_norm": unit_norm(size),
            "head": {"kernel": matrix_DV},
        }
        if self.norm_fused:
            params |= {f"fused_norm_{i}": unit_norm(size) for i in range(len(self.layers))}
        return params, tables

    def entered(self, params, features: Array) -> Array:
        if self.norm_fused:
            parts = jnp.split(features, len(self.layers), axis=-1)
            parts = [normed(self.layer, params[f"fused_norm_{i}"], part) for i, part in enumerate(parts)]
            features = jnp.concatenate(parts, axis=-1)
        return features @ params["fc"]["kernel"]

    def joined(self, params, embedded: Array, hidden: Array) -> tuple[Array, Array]:
        parts = normed(self.layer, params["token_norm"], embedded), normed(self.layer, params["hidden_norm"], hidden)
        return jnp.concatenate(parts, axis=-1), parts[1] if self.norm_residual else hidden

    def handed_on(self, params, hidden: Array) -> Array:
        return normed(self.layer, params["final_norm"], hidden) if self.norm_output else hidden

    def outward(self, params, term: int) -> dict:
        return {name: params[name] for name in ("final_norm", "head")}

    def logits(self, head: Head, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        del target, term
        hidden = normed(self.layer, head.params["final_norm"], hidden)
        kernel_DV = head.params["head"]["kernel"]
        logits = jnp.einsum("...d,dv->...v", hidden, kernel_DV, preferred_element_type=jnp.float32)
        return logits if self.own_vocabulary else rule_out(logits, self.sizes)

    def among(self, head: Head, logits: Array) -> Array:
        return jnp.take(logits, head.tables["kept"], axis=-1) if self.own_vocabulary else logits

    def spread(self, head: Head, logits: Array) -> Array:
        if not self.own_vocabulary:
            return logits
        everything = jnp.full((*logits.shape[:-1], self.sizes.vocab_size), RULED_OUT, logits.dtype)
        return everything.at[..., head.tables["kept"]].set(logits, unique_indices=True, indices_are_sorted=True)

    def hf_config(self) -> dict[str, Any]:
        """Layers are numbered as vLLM does it, by what enters them, and left out where they are every server's own."""
        said = {"use_aux_hidden_state": True}
        if self.layers != _usual_taps(self.sizes.num_layers):
            said["eagle_aux_hidden_state_layer_ids"] = [tap + 1 for tap in self.layers]
        switches = {theirs: True for theirs, ours in _SWITCHES.items() if getattr(self, ours)}
        count = {} if len(self.layers) == 3 else {"num_aux_hidden_states": len(self.layers)}
        sizes = {"draft_vocab_size": self.vocabulary or self.sizes.vocab_size, "eagle_config": said}
        named = {"architectures": ["LlamaForCausalLMEagle3"]}
        return layouts.llama_config(self.sizes) | named | sizes | switches | count

    def table(self, shapes: Any) -> list[Weight]:
        norms = norm("midlayer.input_layernorm", "token_norm", bias=False)
        norms += norm("midlayer.hidden_norm", "hidden_norm", bias=False)
        rows = linear_rows("fc", "fc", bias=False)
        rows += [layouts.renamed(row, "midlayer", "layers.0") for row in norms]
        rows += layouts.layer_rows("midlayer", "layer", also="layers.0")
        rows += norm("norm", "final_norm", bias=False) + linear_rows("lm_head", "head", bias=False)
        if self.norm_fused:
            for i in range(len(self.layers)):
                rows += norm(f"fc_norm.{i}", f"fused_norm_{i}", bias=False)
        return rows

    def beside(self, head: Head) -> dict[str, np.ndarray]:
        """`d2t`: what to add to its own ids for the target's; `t2d`: which of the target's it guesses.

        Neither where those are all: vLLM refuses a `d2t` that it has no use for.
        """
        if not self.own_vocabulary:
            return {}
        kept, guessed_V = np.asarray(head.tables["kept"]), np.zeros((self.sizes.vocab_size,), bool)
        guessed_V[kept] = True
        return {"d2t": kept.astype(np.int64) - np.arange(len(kept)), "t2d": guessed_V}

    def tables_of(self, stored: Stored) -> dict[str, Array] | None:
        layouts.drop_copy(stored, layouts.EMBEDDING)
        stored.tensors.pop("t2d", None)
        for name in [name for name in stored.tensors if name.startswith("verifier_")]:
            del stored.tensors[name]  # speculators keeps the target's own there
        count, offsets = self.vocabulary or self.sizes.vocab_size, stored.tensors.pop("d2t", None)
        if offsets is None and not self.own_vocabulary:
            return None
        if offsets is None or tuple(offsets.shape) != (count,):
            found = "is missing" if offsets is None else f"is {list(offsets.shape)}"
            raise UserError(f"d2t {found}; one offset for each of {count} tokens is needed")
        kept = offsets.read().astype(np.int64) + np.arange(count)
        if np.any(np.diff(kept) <= 0) or kept[0] < 0 or kept[-1] >= self.sizes.vocab_size:
            raise UserError("d2t must lead to tokens of the target, ascending, each once")
        return {"kept": jnp.array(kept, jnp.int32)} if self.own_vocabulary else None

    @classmethod
    def published(cls, stored: Stored) -> Eagle3:
        """In the layout of the released heads or of the speculators library; UserError for what is not computed here.

        A head without an output matrix gets a copy of the target's.
        """
        stored = _flat(stored)
        stored.refuse("parallel_drafting", "pard_token")
        return cls(**cls.said_by(stored, layers=1))

    @classmethod
    def said_by(cls, stored: Stored, *, layers: int | None) -> dict[str, Any]:
        """Sizes and knobs of a head of so many layers, or of any number."""
        speculators = "speculators_model_type" in stored.config
        nested = stored._replace(config=stored.object("eagle_config"))
        nested.refuse("norm_before_fc")
        if not nested.flag("use_aux_hidden_state", default=True):
            raise UserError(
                'config.json: "use_aux_hidden_state" is false: heads here read what it names of the target\'s layers'
            )
        stored.refuse("norm_before_fc", "num_mtp_layers")
        sizes = layouts.llama_sizes(stored.config, stored.target, layers=layers)
        if stored.config.get("target_hidden_size") is not None:
            layouts.check_size("target_hidden_size", stored.count("target_hidden_size"), sizes.hidden_size)
        vocabulary = stored.count("draft_vocab_size", default=sizes.vocab_size)
        if layouts.MATRIX not in stored.tensors:
            if vocabulary != sizes.vocab_size:
                raise UserError(f"{layouts.MATRIX} is missing, and the head has {vocabulary} tokens of its own")
            rows = layouts.target_rows(stored.target, layouts.MATRIX).astype(np.float32)
            stored.tensors[layouts.MATRIX] = StoredTensor(rows.shape, "F32", lambda: rows)
        switches = {ours: stored.flag(theirs) for theirs, ours in _SWITCHES.items()}
        if speculators:
            switches["norm_residual"] = stored.flag("norm_before_residual", default=True)
        vocabulary = 0 if vocabulary == sizes.vocab_size else vocabulary
        return {"sizes": sizes, "vocabulary": vocabulary, "taps": _taps(stored, sizes.num_layers), **switches}


_SWITCHES = {"fc_norm": "norm_fused", "norm_output": "norm_output", "norm_before_residual": "norm_residual"}


def _usual_taps(count: int) -> tuple[int, ...] | None:
    """What every server reads unless told otherwise; None of a target whose layers are too few for three."""
    return (1, count // 2 - 1, count - 4) if count >= 7 else None


def _flat(stored: Stored) -> Stored:
    """The layer's keys, which the speculators library keeps apart, beside the others."""
    layer = stored.object("transformer_layer_config")
    own = {name: value for name, value in stored.config.items() if name not in ("model_type", "tie_word_embeddings")}
    return stored._replace(config={**layer, **own}) if layer else stored


def _taps(stored: Stored, count: int) -> tuple[int, ...]:
    """The layers that config.json names, as it says that SGLang numbers them or else as vLLM does; those of all servers
    where it names none."""
    key = "eagle_aux_hidden_state_layer_ids"
    ids = stored.config.get(key) or stored.object("eagle_config").get(key)
    if not ids:
        if (usual := _usual_taps(count)) is None:
            raise UserError(
                f"config.json names no layers, and the target has {count}: too few for those of all servers"
            )
        return usual
    if not isinstance(ids, list) or any(type(each) is not int for each in ids):
        raise UserError(f'config.json: "{key}" is {ids!r}; a list of layers is needed')
    taps = {each if stored.config.get(LAYOUT) == "sglang" else each - 1 for each in ids}
    if -1 in taps:
        raise UserError("config.json: the head reads the embeddings (layer 0), which heads here do not")
    return tuple(sorted(taps))


KIND = Eagle3
