"""The paper in order: fine-tune the target, distil the reference, distil the draft selectively, measure all drafts."""

from adaspec_jax.pipeline.whole_run import run

__all__ = ["run"]
