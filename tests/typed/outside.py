"""A program of somebody else's that uses the public names as they are meant: a type checker finds nothing in it."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax import data, models
from adaspec_jax.decoding import (
    Accept,
    ChainDrafter,
    Confident,
    Context,
    Drafter,
    Generation,
    NoDraft,
    Proposal,
    Sampling,
    TreeDrafter,
    Verdict,
    generate,
    pytree,
    rejection_sample,
    stream,
)
from adaspec_jax.methods import A_DRAFT, Given, Method, find
from adaspec_jax.training import Batch, Frozen, divergences, objectives, selection


@pytree("num_nodes")
class Repeats:
    """The last token again and again."""

    num_nodes: int = 3

    def init(self, prompt: Context, slots: int) -> tuple[()]:
        return ()

    def propose(self, key: Array, state: tuple[()], context: Context) -> tuple[Proposal, tuple[()]]:
        last_B1 = jnp.take_along_axis(context.tokens_BS, context.lengths_B[:, None] - 1, axis=1)
        hopeless_B = context.accepted_B < context.judged_B
        valid_BN = jnp.broadcast_to(~hopeless_B[:, None], (len(last_B1), self.num_nodes))
        return Proposal(jnp.repeat(last_B1, self.num_nodes, axis=1), valid_BN=valid_BN), state


@dataclass(frozen=True)
class Never:
    """Accepts nothing."""

    lossless: bool = True
    opinion: bool = False

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling) -> Verdict:
        none_BN = jnp.zeros(proposal.tokens_BN.shape, bool)
        return Verdict(none_BN, none_BN, sampling.draw(key, sampling.probs(logits_BMV[:, 0])))


def repeating(given: Given, *, length: int) -> Repeats:
    return Repeats(length)


REPEATING = Method(name="repeating", drafter=repeating, accept=Never(), knobs={"length": 3}, needs=(A_DRAFT,))


def decode(target: models.CausalLM, draft: models.CausalLM, tokens_BS: np.ndarray) -> list[Generation]:
    prompt = Context(tokens_BS, np.full(len(tokens_BS), tokens_BS.shape[1]))
    drafters: list[Drafter] = [NoDraft(), ChainDrafter(draft, length=5, stop=Confident(0.4)), Repeats()]
    drafters += [
        TreeDrafter(draft, (2, 2)),
        REPEATING.make(Given(target=target)),
        find("vanilla").make(Given(target=target)),
    ]
    rules: list[Accept] = [rejection_sample, Never()]
    sampling = Sampling(temperature=0.8, top_p=0.95)
    made = [
        generate(target, drafter, prompt, jax.random.key(0), max_new_tokens=8, sampling=sampling, eos_id=0, accept=rule)
        for drafter in drafters
        for rule in rules
    ]
    return made + list(stream(target, drafters[0], prompt, jax.random.key(0), max_new_tokens=8, sampling=sampling))


def loss_of(draft: models.CausalLM, target: models.CausalLM, batch: Batch) -> Array:
    kept_BT = selection.select_top_fraction(jnp.zeros((2, 3)), jnp.ones((2, 3), bool), 0.4)
    objective = objectives.selective_distill(divergences.reverse_kl, fraction=0.4)
    loss, metrics = objective(draft, Frozen(target=target, reference=draft), batch)
    return loss + metrics["gap"] + jnp.sum(kept_BT)


def main(directory: Path) -> None:
    target, draft = models.load(directory / "target"), models.load(str(directory / "draft"), dtype=jnp.bfloat16)
    tokenizer = data.load_tokenizer(str(directory / "target"))
    examples = data.load_examples("gsm8k", "test", num=4)
    ids = [tokenizer(example.content[0])["input_ids"] for example in examples]
    out = decode(target, draft, np.asarray(ids))
    print(out[0].accepted_BN.sum() / out[0].judged_BN.sum())
    models.save(draft, directory / "again", tokenizer=tokenizer)
