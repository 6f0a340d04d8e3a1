"""The paper in order: fine-tune the target, distil the reference, distil the draft selectively, measure all drafts."""


def __getattr__(name: str):
    """`run`, imported when it is asked for: what only reads arms or a workdir need not wait for jax."""
    if name != "run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from adaspec_jax.pipeline.whole_run import run

    return run
