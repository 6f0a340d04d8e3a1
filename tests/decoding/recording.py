"""What a drafter proposed, round by round, beside a model that plain Python can ask."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adaspec_jax import models
from adaspec_jax.decoding import Context, Sampling, engine, rejection_sample
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.rounds import Rounds
from adaspec_jax.decoding.types import asks_of, depth_of

ROUNDS = 64
LLAMA = {"model_type": "llama", "vocab_size": 23, "hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.35}
LLAMA |= {"num_hidden_layers": 4, "num_attention_heads": 2, "max_position_embeddings": 256}


def tiny_llama(seed: int = 0, **keys):
    return models.build(LLAMA | keys, jax.random.key(seed))


class _Log(NamedTuple):
    inner: Any
    n_B: jax.Array
    tokens_BRN: jax.Array  # -1: not a guess
    parents_BRN: jax.Array
    length_BR: jax.Array


@pytree("num_nodes", "depth", "asks")
class _Recording:
    drafter: Any
    num_nodes: int
    depth: int
    asks: Any

    def init(self, prompt, slots):
        batch = len(prompt.lengths_B)
        zeros_BRN = jnp.zeros((batch, ROUNDS, self.num_nodes), jnp.int32)
        zeros_BR = zeros_BRN[..., 0] if self.num_nodes else jnp.zeros((batch, ROUNDS), jnp.int32)
        return _Log(self.drafter.init(prompt, slots), zeros_BR[:, 0], zeros_BRN, zeros_BRN, zeros_BR)

    def propose(self, key, log, context):
        proposal, inner = self.drafter.propose(key, log.inner, context)
        valid_BN = True if proposal.valid_BN is None else proposal.valid_BN
        parents = jnp.arange(-1, self.num_nodes - 1) if proposal.parents_BN is None else proposal.parents_BN
        parents_BN = jnp.broadcast_to(jnp.asarray(parents), proposal.tokens_BN.shape)
        row_B = jnp.arange(len(log.n_B))
        return proposal, _Log(
            inner,
            log.n_B + 1,
            log.tokens_BRN.at[row_B, log.n_B].set(jnp.where(valid_BN, proposal.tokens_BN, -1)),
            log.parents_BRN.at[row_B, log.n_B].set(parents_BN),
            log.length_BR.at[row_B, log.n_B].set(context.lengths_B),
        )


@dataclasses.dataclass(frozen=True)
class Played:
    """A row's text, and for each of its rounds (the committed tokens before it, the guesses as paths from the root)."""

    text: tuple[int, ...]
    rounds: list[tuple[int, list[tuple[int, ...]]]]
    state: Any  # the drafter's, of all rows


def play(target, drafter, prompt: Context, *, max_new_tokens: int, eos_id=-1, temperature=0.0) -> list[Played]:
    """What each row got, and what it was offered."""
    recording = _Recording(drafter, drafter.num_nodes, depth_of(drafter), asks_of(drafter))
    arguments, slots = engine.program_arguments(target, recording, prompt, jax.random.key(0), max_new_tokens, eos_id)

    @jax.jit
    def run(target, drafter, tokens_BS, lengths_B, key, max_new_tokens, eos_E, noise_B):
        how = (max_new_tokens, eos_E, slots, Sampling(temperature), rejection_sample)
        rounds = Rounds(target, drafter, *how)
        loop = rounds.to_the_end(rounds.start(key, tokens_BS, lengths_B, noise_B))
        return rounds.finished(loop), loop.draft_state

    made, log = jax.device_get(run(*arguments))
    played = []
    for row in range(len(made.lengths_B)):
        rounds = []
        for n in range(made.rounds_B[row]):
            paths, guesses = [()], []
            for token, parent in zip(log.tokens_BRN[row, n].tolist(), log.parents_BRN[row, n].tolist(), strict=True):
                paths.append((*paths[parent + 1], token))
                if token >= 0:
                    guesses.append(paths[-1])
            rounds.append((int(log.length_BR[row, n]), guesses))
        text = made.tokens_BS[row, : made.lengths_B[row]].tolist()
        played.append(Played(tuple(text), rounds, log.inner))
    return played


class Asked:
    """A model for plain Python: what it makes of a text, remembered."""

    def __init__(self, model, longest: int = 96) -> None:
        self._known: dict[tuple[int, ...], np.ndarray] = {}
        self._longest = longest
        self._run = jax.jit(lambda tokens_BT: model(tokens_BT)[0])

    def logits(self, text) -> np.ndarray:
        """After the text's last token."""
        text = tuple(text)
        if text not in self._known:
            padded = np.zeros((1, self._longest), np.int32)
            padded[0, : len(text)] = text
            logits_TV = np.asarray(self._run(padded)[0])
            for end in range(1, len(text) + 1):
                self._known.setdefault(text[:end], logits_TV[end - 1])
        return self._known[text]

    def choice(self, text) -> int:
        return int(np.argmax(self.logits(text)))

    def likeliest(self, text, count: int) -> list[int]:
        return np.argsort(-self.logits(text), kind="stable")[:count].tolist()


def prompts(batch: int, vocab: int = 23, longest: int = 9, seed: int = 3) -> Context:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, longest + 1, size=batch)
    lengths[-1] = longest
    return Context(rng.integers(0, vocab, size=(batch, longest)), lengths)
