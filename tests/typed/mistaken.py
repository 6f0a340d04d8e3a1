"""A program with a mistake in every line that says so, each of which a type checker finds at the public names."""

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax import models
from adaspec_jax.config import Draft
from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Proposal, Sampling, generate, pytree
from adaspec_jax.methods import Method
from adaspec_jax.training import objectives


@pytree()
class Silent:
    """A drafter that says nothing of how much it guesses, and returns no state."""

    def init(self, prompt: Context, slots: int) -> tuple[()]:
        return ()

    def propose(self, key: Array, state: tuple[()], context: Context) -> Proposal:
        return Proposal(jnp.zeros((1, 1), jnp.int32))


def silent(given: object) -> Silent:
    return Silent()


def decode(target: models.CausalLM, prompt: Context, key: Array) -> None:
    generate(target, Silent(), prompt, key, max_new_tokens=8, sampling=Sampling())  # mistake: arg-type
    generate(target, NoDraft(), prompt, key, sampling=Sampling())  # mistake: call-arg
    generate(target, NoDraft(), prompt, key, max_new_tokens="8", sampling=Sampling())  # mistake: arg-type
    generate(target, NoDraft(), prompt, key, max_new_tokens=8, sampling=Sampling(temprature=0.0))  # mistake: call-arg
    out = generate(target, NoDraft(), prompt, key, max_new_tokens=8, sampling=Sampling())
    out.accepted_B.sum()  # mistake: attr-defined
    out.rounds_B = jnp.zeros(1)  # mistake: misc
    ChainDrafter("a directory", 5)  # mistake: arg-type
    models.load(7)  # mistake: arg-type
    print(target.config.hidden)  # mistake: attr-defined
    objectives.selective_distill(normalize="papers")  # mistake: arg-type
    Method(name="silent", drafter=silent)  # mistake: arg-type
    Draft(fraction="0.4")  # mistake: arg-type


decode(models.load("somewhere"), Context(jnp.zeros((1, 4), jnp.int32)), jax.random.key(0))  # mistake: call-arg
