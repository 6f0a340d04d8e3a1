"""Drafts of another vocabulary, made of a target: some tokens are common under other ids, the rest are spelled."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from adaspec_jax.decoding.drafters.models.foreign import Foreign, Spelling
from tests.decoding.bag_model import BagModel
from tests.decoding.recording import tiny_llama


@dataclasses.dataclass(frozen=True)
class Words:
    """What plain Python knows of the two vocabularies."""

    spellings: tuple[tuple[int, ...], ...]  # of each target token in draft tokens
    meanings: tuple[tuple[int, ...], ...]  # of each draft token in target tokens; (-1,): nothing says it
    beginning: tuple[int, ...] = ()

    @property
    def common(self) -> dict[int, int]:
        """{target token: draft token} of those that are one."""
        pairs = ((v, row[0]) for v, row in enumerate(self.spellings) if len(row) == 1)
        return {v: w for v, w in pairs if self.meanings[w] == (v,)}

    def spelled(self, text) -> list[int]:
        return [*self.beginning, *(w for v in text for w in self.spellings[v])]

    def foreign(self, model, **sizes) -> Foreign:
        draft_of_V = np.array([self.common.get(v, -1) for v in range(len(self.spellings))], np.int32)
        tables = table([*self.spellings, self.beginning]), table(self.meanings)
        return Foreign(model, jnp.asarray(draft_of_V), *tables, **sizes)


def table(rows) -> Spelling:
    longest = max(map(len, rows))
    tokens_VK = np.array([[*row, *[-1] * (longest - len(row))] for row in rows], np.int32)
    return Spelling(jnp.asarray(tokens_VK), jnp.array([len(row) for row in rows], jnp.int32))


def renamed(vocab: int, seed: int = 0) -> Words:
    """Every token is common, under another id."""
    ids = np.random.default_rng(seed).permutation(vocab).tolist()
    return Words(tuple((w,) for w in ids), tuple((ids.index(w),) for w in range(vocab)))


def mixed(vocab: int, common: int, more: int, seed: int = 0, *, longest: int = 3, beginning=()) -> Words:
    """`common` tokens are in both, `more` only the draft's; other target tokens are spelled with up to `longest`."""
    rng = np.random.default_rng(seed)
    width = common + more
    v_ids, w_ids = rng.permutation(vocab).tolist(), rng.permutation(width).tolist()
    pairs = dict(zip(v_ids[:common], w_ids, strict=False))
    spell = lambda ids, most: tuple(rng.choice(ids, rng.integers(1, most + 1)).tolist())  # noqa: E731
    # What is not common is spelled with at least one token that is not: else two tokens might be one by chance.
    spellings = [(pairs[v],) if v in pairs else (*spell(width, longest - 1), w_ids[-1]) for v in range(vocab)]
    v_of = {w: v for v, w in pairs.items()}
    meanings = [(v_of[w],) if w in v_of else (*spell(vocab, 2), v_ids[-1]) for w in range(width)]
    meanings[w_ids[-2]] = (-1,)
    return Words(tuple(spellings), tuple(meanings), beginning)


def bag_of(target: BagModel, words: Words, seed: int = 0, scale: float = 0.5) -> BagModel:
    """A draft that agrees with the target about common tokens, but for noise."""
    width, common = len(words.meanings), words.common
    table_WW = np.random.default_rng(seed).normal(size=(width, width)).astype(np.float32) * scale
    v, w = np.array([*common]), np.array([*common.values()])
    table_WW[np.ix_(w, w)] += np.asarray(target.table_VV)[np.ix_(v, v)]
    return BagModel(jnp.asarray(table_WW))


def llama_of(target, words: Words, seed: int = 1, noise: float = 0.05):
    """The same of a tiny Llama: its layers, and its rows of common tokens."""
    sizes = {"vocab_size": len(words.meanings), "num_hidden_layers": target.config.num_layers}
    drawn = tiny_llama(seed, **sizes)
    v, w = np.array([*words.common]), np.array([*words.common.values()])
    params = dict(jax.tree.map(lambda a: noise * a, drawn.params))
    for name in target.params:
        if name not in ("embed", "head"):
            params[name] = jax.tree.map(lambda a, b: a + b, target.params[name], params[name])
    rows, columns = target.params["embed"]["embedding"], target.params["head"]["kernel"]
    params["embed"] = {"embedding": drawn.params["embed"]["embedding"].at[w].set(rows[v])}
    params["head"] = {"kernel": drawn.params["head"]["kernel"].at[:, w].set(columns[:, v])}
    return dataclasses.replace(drawn, params=params)
