"""What families with experts share: how many there are, what of them is not ported, and where their tensors lie."""

from __future__ import annotations

from functools import partial

from adaspec_jax.errors import UserError
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import llama
from adaspec_jax.models.families.hf_config import flag, positive_int
from adaspec_jax.models.files.weights import Weight, transposed

COUNT = ("num_experts", "num_local_experts")  # a file may have either: transformers reads one under the other's name
NEW_BLOCK, NEW_NAMES = "mlp", {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}  # as transformers 5 has them


def experts_of(hf: dict, *, count: int, per_token: int) -> tuple[int, int]:
    """How many experts a layer has and a token gets, with what is taken where config.json is silent."""
    named = [key for key in COUNT if key in hf]
    sizes = {key: positive_int(hf, key) for key in named}
    if len(set(sizes.values())) > 1:
        both = " and ".join(f'"{key}" {size}' for key, size in sizes.items())
        raise UserError(f"config.json: {both} are to be one number")
    experts = sizes[named[0]] if named else count
    chosen = positive_int(hf, "num_experts_per_tok", default=per_token)
    if chosen > experts:
        raise UserError(f'config.json: "num_experts_per_tok" {chosen} is more than the {experts} experts there are')
    return experts, chosen


def said_of(hf: dict) -> list[str]:
    """What transformers would do with the experts in training and is not done here, a line each; UserError if neither.

    What the model computes from text is the same.
    """
    lines = []
    if flag(hf, "output_router_logits", default=False):
        lines.append('"output_router_logits" is true: no loss that balances experts is added in training here')
    jitter = hf.get("router_jitter_noise", 0.0)
    if type(jitter) not in (int, float) or not 0 <= jitter < 1:
        raise UserError(f'config.json: "router_jitter_noise" is {jitter!r}; a number from 0 to 1 is needed')
    if jitter:
        lines.append(f'"router_jitter_noise" is {jitter}: routers read no noise in training here')
    return lines


def table(config: DecoderConfig, *, block: str, names: dict[str, str]) -> list[Weight]:
    """Llama's rows, in which each layer's MLP is a router and a tensor for each matrix of each expert."""
    return llama.table(config, partial(_mixture, block=block, names=names))


def _mixture(theirs: str, ours: str, config: DecoderConfig, *, block: str, names: dict[str, str]) -> list[Weight]:
    router = f"{theirs}.{NEW_BLOCK}.gate.weight"
    weights = [Weight(f"{theirs}.{block}.gate.weight", (f"{ours}/mlp/router/kernel",), transposed, also=(router,))]
    for part in ("gate", "up", "down"):  # a fused stack holds the first two
        for i in range(config.experts):
            new = f"{theirs}.{NEW_BLOCK}.experts.{i}.{NEW_NAMES[part]}.weight"
            name = f"{theirs}.{block}.experts.{i}.{names[part]}.weight"
            weights.append(Weight(name, (f"{ours}/mlp/experts/{part}",), transposed, also=(new,), entry=i))
    return weights
