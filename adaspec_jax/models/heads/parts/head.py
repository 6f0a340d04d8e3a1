"""A head: a small network that guesses from its target's own hidden states, as one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.errors import UserError
from adaspec_jax.models.attention import block_of
from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.files.weights import Weight, by_path
from adaspec_jax.models.heads.parts.sizes import Sizes
from adaspec_jax.models.heads.parts.stored import Stored
from adaspec_jax.models.heads.parts.texts import Places


class Term(NamedTuple):
    """One of a head's guesses at every position of a text: at t, of the token at t + 1 + `shift`.

    Position t is where the target reads token t and predicts t + 1; `shift` further on, it predicts what is guessed.
    """

    shift: int
    weight: float = 1.0  # in the loss


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a head is beside its parameters: a kind's knobs, and the sizes of its target. Hashable, and static.

    A kind is a subclass in a file of `models/heads/`, named there `KIND`. Training asks `layers`, `init`, `terms`,
    `guessed` and `logits`, and `places`, `guessed_at` and `weights` of one that guesses at some places alone; decoding
    asks what its drafter needs (see the shapes beside this file). Every field but those here is a knob, with its
    default. A knob that cannot work is a ValueError when the kind is made.
    """

    name: ClassVar[str]
    paper: ClassVar[str]

    # How it is trained; a kind that lets one set such a number makes it a field.
    laws: ClassVar[float] = 1.0  # weight of the divergence from the target's law, or of the cross entropy
    hard: ClassVar[bool] = False  # cross entropy of the text's own tokens, in place of the divergence
    features: ClassVar[float] = 0.0  # weight of the smooth L1 distance to the target's last hidden states
    alignment: ClassVar[float] = 0.0  # weight of the CTC loss of its guesses at places in a row; see `heads/ctc.py`
    runs_target: ClassVar[bool] = False  # the whole target runs where it guesses, in training as in decoding
    noise: ClassVar[float] = 0.0  # width of the uniform noise on the hidden states it reads, at 512 tokens
    together: ClassVar[bool] = False  # the loss is one mean over the labels of all terms, not one for each of them
    by_own_laws: ClassVar[bool] = False  # `weights` asks what the head itself gives the tokens of the labels

    sizes: Sizes
    # How its layer is computed, as in a `DecoderConfig`; no knobs.
    rematerialise: bool = dataclasses.field(default=False, repr=False)
    attention: Literal["xla", "cudnn"] = dataclasses.field(default="xla", repr=False)
    attention_block: int = dataclasses.field(default=0, repr=False)

    @classmethod
    def knobs(cls) -> Mapping[str, Any]:
        """{name: default} of all that may be set."""
        others = {each.name for each in dataclasses.fields(Kind)}
        own = [each for each in dataclasses.fields(cls) if each.name not in others]
        return MappingProxyType({each.name: each.default for each in own})

    # What a plan asks of any model's config.

    @property
    def vocab_size(self) -> int:
        return self.sizes.vocab_size

    @property
    def hidden_size(self) -> int:
        return self.sizes.hidden_size

    @property
    def intermediate_size(self) -> int:
        return self.sizes.intermediate_size

    @property
    def num_layers(self) -> int:
        """Of its own."""
        return 1

    @property
    def num_kv_heads(self) -> int:
        return self.sizes.num_kv_heads

    @property
    def head_dim(self) -> int:
        return self.sizes.head_dim

    @property
    def layers(self) -> tuple[int, ...]:
        """The target's layers whose hidden states the head reads, as `CausalLM.run` counts taps; -1 only at the end."""
        return (-1,)

    @property
    def guesses(self) -> int:
        """Tokens that it can guess in a row; 0: as many as one likes."""
        return 0

    @property
    def taught_layers(self) -> tuple[int, ...]:
        """`layers`, and the last one, of which its lesson is made."""
        return self.layers if self.layers[-1] == -1 else (*self.layers, -1)

    @property
    def first_layers(self) -> int:
        """How many of the target's own layers, the first ones, are run at each of its guesses."""
        return 0

    @property
    def one_output(self) -> bool:
        """Whether `logits` and `outward` are the same for every term."""
        return True

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray) -> tuple[Any, Any]:
        """(parameters, tables) before training; tables are arrays that are not trained, or None.

        `target`: all of it, layers too, where a head may begin as one of them.
        `counts_V`: how often each token is a label of the training text.
        """
        raise NotImplementedError

    @property
    def terms(self) -> tuple[Term, ...]:
        """Its guesses in training, the nearest first."""
        raise NotImplementedError

    def guessed(
        self, head: Head, target: CausalLM, tokens_BT: Array, features_BTF: Array, segments_BT: Array | None
    ) -> tuple[Array, ...]:
        """A hidden state [B, T, D] for each of `terms`, of which `logits` makes laws, along texts."""
        raise NotImplementedError

    def nearest(self, head: Head) -> Head:
        """A head that makes the nearest guess alone, as this one does, where that takes less; else the same."""
        return head

    def places(self, labels_BT: Array, segments_BT: Array | None, key: Array) -> Places | None:
        """Where its guesses begin in a step of training, drawn by `key`; None: at every position.

        `labels_BT`: bool, whether the token after a position is a label.
        """
        return None

    def guessed_at(
        self, head: Head, target: CausalLM, tokens_BT: Array, features_BTF: Array, segments_BT, places: Places
    ) -> tuple[Array, ...]:
        """As `guessed`, [B, N, D] each, of a kind whose guesses begin at `places`."""
        raise NotImplementedError

    def labels_of(self, count: int) -> float:
        """Labels of all terms that a step of training has of a row where guesses may begin at so many positions."""
        return float(count * len(self.terms))

    def weights(self, labels_BIN: Array, given_BIN: Array | None) -> Array:
        """[B, I, N] of the labels of all terms, `together`; `given_BIN`: what the head itself gives their tokens."""
        return jnp.broadcast_to(jnp.asarray([each.weight for each in self.terms])[None, :, None], labels_BIN.shape)

    def guessed_among(self, head: Head, target: CausalLM, *given: Any) -> tuple[Array, ...]:
        """`guessed`, of which the places of a last argument, bool [B, T], alone are asked about; None: all."""
        return self.guessed(head, target, *given[:-1])

    def outward(self, params: Any, term: int) -> Any:
        """The parameters that `logits` reads for a term."""
        raise NotImplementedError

    def logits(self, head: Head, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        """Float32 [..., V'] of hidden states [..., D] of a term, over the tokens that it guesses among."""
        raise NotImplementedError

    def among(self, head: Head, logits: Array) -> Array:
        """The columns [..., V'] of the target's logits [..., V] that the head guesses among: all."""
        del head
        return logits

    def spread(self, head: Head, logits: Array) -> Array:
        """Logits [..., V'] as logits [..., V], minus infinity (nearly) for tokens that it does not guess: all are."""
        del head
        return logits

    # In decoding.

    def on_target(self, head: Head, target: CausalLM) -> Any:
        """The head with what it shares with its target: what its drafters hold, which its type says."""
        raise NotImplementedError

    # On disk: a kind that servers read says their layout; see `files` beside this file.

    def hf_config(self) -> dict[str, Any]:
        """The config.json beside its weights."""
        own = {name: getattr(self, name) for name in ("hidden_size", "vocab_size")}
        own |= {name: getattr(self, name) for name in self.knobs()}
        return {"model_type": f"adaspec_{self.name}", "architectures": [f"Adaspec{type(self).__name__}"]} | own

    def table(self, shapes: Any) -> list[Weight]:
        """The weight table of parameters of these `shapes`."""
        return by_path(shapes)

    def beside(self, head: Head) -> dict[str, np.ndarray]:
        """Tensors that are written beside the parameters."""
        return {f"tables.{name}": np.asarray(table) for name, table in (head.tables or {}).items()}

    def tables_of(self, stored: Stored) -> Any:
        """The tables, of tensors that are thereby taken out: all that `table` does not read. UserError for others."""
        names = [name for name in stored.tensors if name.startswith("tables.")]
        taken = {name.removeprefix("tables."): jnp.array(stored.tensors.pop(name).read()) for name in names}
        return taken or None

    @classmethod
    def published(cls, stored: Stored) -> Kind:
        """The kind that a directory without our drafter.json holds; UserError for what is not computed here."""
        raise UserError(f"a head of the kind {cls.name} is read from a directory with a drafter.json alone")


@partial(jax.tree_util.register_dataclass, data_fields=["params", "tables"], meta_fields=["config"])
@dataclass(frozen=True)
class Head:
    """Parameters and the kind they belong to; a pytree, which stages and checkpoints treat as they treat a `CausalLM`.

    The target is not part of it: it is an argument wherever it is read, so that a head costs its own bytes alone.
    """

    params: Any
    config: Kind
    tables: Any = None  # arrays that are not trained

    def guessed(self, target: CausalLM, tokens_BT: Array, features_BTF: Array, segments_BT=None) -> tuple[Array, ...]:
        return self.config.guessed(self, target, tokens_BT, features_BTF, segments_BT)

    def logits(self, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        return self.config.logits(self, target, hidden, term)

    @property
    def dtype(self):
        return jax.tree.leaves(self.params)[0].dtype

    @property
    def num_params(self) -> int:
        """Of its own; what it shares with the target is not counted."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    def astype(self, dtype) -> Head:
        return replace(self, params=jax.tree.map(lambda x: x.astype(dtype), self.params))

    def with_other_rows_ruled_out(self) -> Head:
        """The same head for engines that do not mask vocabulary rows which no token owns, of output matrices its own.

        Each such row becomes the mean of the tokens' rows, as in `CausalLM.with_vocabulary_size`.
        """
        sizes = self.config.sizes

        def ruled_out(path, leaf):
            names = [each.key for each in path[-2:]]
            if names != ["head", "kernel"] or leaf.shape[-1] != sizes.vocab_size:
                return leaf
            mean_D1 = jnp.mean(leaf[:, : sizes.num_tokens], axis=1, keepdims=True, dtype=jnp.float32)
            return leaf.at[:, sizes.num_tokens :].set(mean_D1.astype(leaf.dtype))

        return replace(self, params=jax.tree_util.tree_map_with_path(ruled_out, self.params))

    def with_rematerialisation(self, rematerialise: bool) -> Head:
        return replace(self, config=replace(self.config, rematerialise=rematerialise))

    def with_attention(self, kernel: str, dtype, *, backend: str | None = None) -> Head:
        """The same head with this attention kernel, as `CausalLM.with_attention`."""
        block = block_of(kernel, head_dim=self.config.head_dim, dtype=dtype, backend=backend)
        return replace(self, config=replace(self.config, attention=kernel, attention_block=block))

    # A head has few layers: it is laid out as it is.

    def stacked(self) -> Head:
        return self

    def unstacked(self) -> Head:
        return self

    def for_decoding(self, products: str | None = None, *, backend: str | None = None) -> Head:
        """The same head; on CPUs in float32, because XLA has no such products of bfloat16 there (jax 0.10.2)."""
        del products
        narrow = (backend or jax.default_backend()) == "cpu" and self.dtype == jnp.bfloat16
        return self.astype(jnp.float32) if narrow else self
