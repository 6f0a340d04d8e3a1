"""A stop head: from a draft model's last hidden state after a guess, how likely that guess is to stay (SpecDec++)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.errors import UserError
from adaspec_jax.files import read_json, write_json
from adaspec_jax.models.files.safetensors import SINGLE, open_tensors, write_tensors

FOLDER, SAID = "stop_head", "stop_head.json"  # of it in a draft's directory
_NAMES = ("block.weight", "block.bias", "out.weight", "out.bias")


@partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["depth"])
@dataclass(frozen=True)
class StopHead:
    """`depth` residual blocks x + SiLU(W x + b), the same one each time as in the paper's code, and two logits.

    SpecDec++ (arXiv 2405.19715). The second logit is that of a guess which stays. A callable for `Survival`.
    """

    params: Any  # {"block": {"kernel", "bias"}, "out": {"kernel", "bias"}}
    depth: int = 3

    looks_back: ClassVar[bool] = True  # it reads what the draft made of a guess, and speaks of that guess

    @classmethod
    def new(cls, key: Array, size: int, *, depth: int = 3) -> StopHead:
        """Untrained, for hidden states of this size."""
        keys, scale = jax.random.split(key), size**-0.5

        def linear(key: Array, out: int) -> dict[str, Array]:
            return {"kernel": scale * jax.random.normal(key, (size, out)), "bias": jnp.zeros((out,))}

        return cls({"block": linear(keys[0], size), "out": linear(keys[1], 2)}, depth)

    def logits(self, hidden: Array) -> Array:
        """Float32 [..., 2]: that a guess goes, and that it stays."""
        hidden, block, out = hidden.astype(jnp.float32), self.params["block"], self.params["out"]

        def of(linear: Any, x: Array) -> Array:
            bias = linear["bias"].astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
            return x @ linear["kernel"].astype(x.dtype) + bias

        for _ in range(self.depth):
            hidden = hidden + jax.nn.silu(of(block, hidden))
        return of(out, hidden)

    def __call__(self, probs_BV: Array, hidden_BD: Array) -> Array:
        """a_B, as `stopping.Survival` asks for it."""
        del probs_BV
        return jax.nn.softmax(self.logits(hidden_BD))[:, 1]

    # A stage treats it as it treats any model.

    @property
    def dtype(self) -> Any:
        return self.params["out"]["kernel"].dtype

    @property
    def num_params(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    def astype(self, dtype: Any) -> StopHead:
        return replace(self, params=jax.tree.map(lambda x: x.astype(dtype), self.params))

    def with_rematerialisation(self, rematerialise: bool) -> StopHead:
        del rematerialise
        return self

    def stacked(self) -> StopHead:
        return self


def save_stop_head(head: StopHead, directory: str | Path, *, draft: str) -> None:
    """A directory; `draft`: SHA-256 of the weights of the draft model that it was trained on."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    block, out = head.params["block"], head.params["out"]
    tensors = [block["kernel"].T, block["bias"], out["kernel"].T, out["bias"]]
    arrays = {name: np.ascontiguousarray(x) for name, x in zip(_NAMES, tensors, strict=True)}
    write_tensors(directory / SINGLE, arrays)
    write_json(directory / SAID, {"kind": "specdec_pp", "depth": head.depth, "draft": draft})


def load_stop_head(directory: str | Path, size: int) -> StopHead | None:
    """The stop head in a directory, for a draft model of this hidden size; None where there is none.

    UserError where it is of another size, or none at all.
    """
    directory = Path(directory)
    if not (directory / SAID).is_file():
        return None
    said = read_json(directory / SAID)
    depth = said.get("depth")
    if said.get("kind") != "specdec_pp" or type(depth) is not int or not 0 <= depth <= 64:
        raise UserError(f"{directory / SAID} describes no stop head; copy it again")
    stored = open_tensors(directory)
    shapes = dict(zip(_NAMES, [(size, size), (size,), (2, size), (2,)], strict=True))
    read = {name: stored[name].read() for name in shapes if name in stored}
    for name, shape in shapes.items():
        if name not in read or read[name].shape != shape:
            found = f"is {read[name].shape}" if name in read else "is missing"
            raise UserError(f"{directory / SINGLE}: {name} {found}, and for this draft it must be {shape}")
    block, bias, out, last = (jnp.asarray(read[name], jnp.float32) for name in _NAMES)
    return StopHead({"block": {"kernel": block.T, "bias": bias}, "out": {"kernel": out.T, "bias": last}}, depth)
