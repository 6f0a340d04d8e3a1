"""Checkpoints of an interrupted stage: parameters, optimiser, key and data position, written atomically by orbax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from adaspec_jax.devices import processes
from adaspec_jax.errors import UserError


class Checkpoints:
    """The last few training states of one stage below `directory`."""

    def __init__(self, directory: str | Path, *, keep: int = 2):
        from orbax.checkpoint import v1 as ocp

        self._directory = Path(directory)
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
        self._checkpointer.save_checkpointables_async(step, {"state": state, "position": position}, force=True)

    def restore(self, like: Any) -> tuple[int, Any, dict] | None:
        """The newest (step, state, data position), laid out on devices as `like`; None where there is none.

        UserError where what lies there is no such state.
        """
        if (step := self.newest) is None:
            return None
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        try:
            loaded = self._checkpointer.load_checkpointables(step, {"state": abstract, "position": None})
        except (ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{self._directory}: the checkpoint there is not one of this model and optimiser ({reason}); use the "
                "config it was made with, or delete that directory to start the stage again"
            ) from error
        return step, loaded["state"], loaded["position"]

    def close(self) -> None:
        """Waits for the write under way."""
        self._checkpointer.close()
