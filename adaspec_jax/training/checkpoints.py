"""Checkpoints of an interrupted stage: parameters, optimiser, key and data position, written atomically by orbax."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax import files
from adaspec_jax.devices import processes
from adaspec_jax.errors import UserError, refused_by_the_system

_SUMS, _DATA = "checksums", "data"  # keys of what lies beside a state
_SETTLED = ".settled"  # file: the newest step that is known to be on the disk


class Checkpoints:
    """The last few training states of one stage below `directory`.

    Beside each lies a checksum of every array and of the position, so that a state that changed on the disk is not gone
    on with: an older one is. orbax does not ask for what it writes to be on the disk: that is done, and noted, when the
    next one is saved, before which nothing older goes away. What a power cut tore is not noted.
    """

    def __init__(self, directory: str | Path, *, keep: int = 2) -> None:
        from orbax.checkpoint import v1 as ocp

        self._directory = Path(directory)
        self._saving: tuple[int, Any] | None = None
        self._checkpointer = ocp.training.Checkpointer(
            Path(directory).absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    @property
    def newest(self) -> int | None:
        """The step of the newest, None where there is none: as the first process finds it, and so the same in all."""
        return processes.once(lambda: getattr(self._checkpointer.latest, "step", None))

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self.newest is not None

    def save(self, step: int, state: Any, position: dict) -> None:
        """Writes in the background; a process killed meanwhile leaves the previous checkpoint intact."""
        self._settle()
        beside = {_DATA: position, _SUMS: np.append(checksums(state), np.uint32(_checksum(position)))}
        kept = {"state": state, "position": beside}
        self._saving = step, self._checkpointer.save_checkpointables_async(step, kept, force=True)

    def _settle(self) -> None:
        """What the last `save` wrote is on the disk, and noted to be, when this returns."""
        if self._saving is None:
            return
        (step, saving), self._saving = self._saving, None
        saving.result()
        files.settle_below(self._directory / str(step))
        for folder in (self._directory, self._directory.parent):  # its name, and theirs
            files.settle(folder)
        processes.together(f"checkpoint {step}")
        processes.once(lambda: files.write_text(self._directory / _SETTLED, str(step)))

    def restore(self, like: Any) -> tuple[int, Any, dict] | None:
        """The newest intact (step, state, data position), laid out on devices as `like`; None where there is none.

        Damaged newer ones are deleted, and said. UserError where what lies there is no such state.
        """
        step: int | None = self.newest
        reasons: dict[int, Exception] = {}
        while step is not None:
            try:
                state, position = self._read(step, like)
            except Exception as error:  # orbax, tensorstore and JSON each have their own
                if refused_by_the_system(error):
                    raise  # memory or a disk that fails now says nothing of what was written
                reasons[step], step = error, self._before(step)
                continue
            for damaged in reasons:
                processes.say(f"{self._directory}: the checkpoint of step {damaged} is damaged; step {step} is taken")
                self._checkpointer.delete(damaged)
            return step, state, position
        if reasons and not processes.once(lambda: (self._directory / _SETTLED).exists()):
            processes.say(f"{self._directory}: the only checkpoint was not written to its end; the stage begins again")
            for torn in reasons:
                self._checkpointer.delete(torn)
            return None
        for found in reasons.values():  # the newest's
            reason = " ".join(str(found).split())[:300]
            raise UserError(
                f"{self._directory}: the checkpoint there is not one of this model and optimiser ({reason}); use the "
                "config it was made with, or delete that directory to start the stage again"
            ) from found
        return None

    def _before(self, step: int) -> int | None:
        """The newest before a step, as the first process finds it."""
        there = self._checkpointer.checkpoints
        return processes.once(lambda: max((each.step for each in there if each.step < step), default=None))

    def _read(self, step: int, like: Any) -> tuple[Any, dict]:
        """The state and the position of a step; ValueError where they are not what was written."""
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        loaded = self._checkpointer.load_checkpointables(step, {"state": abstract, "position": None})
        state, beside = loaded["state"], loaded["position"]
        if _SUMS not in beside:  # written before there were any
            return state, beside
        if not np.array_equal(beside[_SUMS], np.append(checksums(state), np.uint32(_checksum(beside[_DATA])))):
            raise ValueError("its checksums are not those of what was written")
        return state, beside[_DATA]

    def close(self) -> None:
        """Waits for the write under way, until it is on the disk."""
        self._settle()
        self._checkpointer.close()


def checksums(tree: Any) -> np.ndarray:
    """Of each array of a tree, uint32, whatever its layout on devices; any one bit that changes changes it."""
    return np.asarray(_sums(jax.tree.leaves(tree)))


@jax.jit
def _sums(leaves: list[Array]) -> Array:
    return jnp.stack([_sum(leaf) for leaf in leaves])


def _sum(leaf: Array) -> Array:
    """sum_i bits_i (2 i + 1) modulo 2^32: integers add up alike in any order, and odd factors lose no bit.

    The place i, modulo 2^32 too, is made axis by axis, so that each device makes that of its own part alone.
    """
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    leaf = jnp.asarray(leaf)
    leaf = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
    bits = jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}").astype(jnp.uint32)
    place = jnp.zeros((1,) * bits.ndim, jnp.uint32)
    for axis in range(bits.ndim):
        stride = np.uint32(math.prod(bits.shape[axis + 1 :]) % 2**32)
        place += stride * jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)


def _checksum(position: Any) -> int:
    return zlib.crc32(json.dumps(position, sort_keys=True).encode())
