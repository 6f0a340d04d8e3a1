"""How long the selective stage goes on, and what plain distillation on as much data is."""

import dataclasses

from adaspec_jax.config.experiment import Draft, Reference


def draft_schedule(draft: Draft) -> tuple[float, int]:
    """(epochs, batch size) of the selective stage.

    The released code's "3 epochs at batch 16" are 3/k epochs at batch 16/k: the baseline's number of steps and of
    back-propagated labels, on 1/k times its data. That is budget "official"; "equal_compute" takes both as written.
    Where k changes, its mean counts.
    """
    if draft.budget == "equal_compute":
        return draft.epochs, draft.batch_size
    kept = (draft.fraction + (draft.final_fraction or draft.fraction)) / 2
    return draft.epochs / kept, max(round(draft.batch_size / kept), 1)


def on_the_data_of(draft: Draft, reference: Reference) -> Reference:
    """Plain distillation on as many batches of the same size as this draft's."""
    epochs, batch_size = draft_schedule(draft)
    return dataclasses.replace(reference, epochs=epochs, batch_size=batch_size, equal_data=False)
