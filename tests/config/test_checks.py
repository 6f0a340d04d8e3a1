"""What a config's fields may hold, said beside them; and what several must have in common."""

import dataclasses
import math
import typing
from dataclasses import dataclass, field

import pytest

from adaspec_jax.config import Answers, Data, Draft, Evaluation, Experiment, Mesh, Reference, Target, validate
from adaspec_jax.config.architectures import FAMILIES, ROPES
from adaspec_jax.config.bounds import complaint_of, positive
from adaspec_jax.errors import UserError


def test_the_defaults_pass():
    validate(Experiment())


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (Experiment(dtype="float16"), 'dtype is "float16"; it must be one of float32, bfloat16'),
        (Experiment(dtype=None), 'dtype is "None"; it must be one of'),
        (Experiment(loss_chunk=-1), "loss_chunk is -1; it must not be negative"),
        (Experiment(target=Target(lr=0.0)), "target.lr is 0.0; it must be positive"),
        (Experiment(target=Target(epochs=-1)), "target.epochs is -1; it must not be negative"),
        (Experiment(reference=Reference(moments="half")), 'reference.moments is "half"; it must be one of float32, '),
        (Experiment(data=Data(train="")), "data.train is empty; give a value, or leave it out"),
        (Experiment(target=Target(lr=math.inf)), "target.lr is inf; it must be at most 1,000"),
        (Experiment(target=Target(lr=math.nan)), "target.lr is nan; it must be positive"),
        (Experiment(draft=Draft(beta1=1.5)), "draft.beta1 is 1.5; at 1 and above nothing is learnt"),
        (Experiment(draft=Draft(fraction=0.0)), "draft.fraction is 0.0; it must be positive"),
        (
            Experiment(draft=Draft(final_fraction=1.5)),
            "draft.final_fraction is 1.5; it must be at most 1, which is",
        ),
        (Experiment(draft=Draft(average_decay=-0.1)), "draft.average_decay is -0.1; it must not be negative"),
        (Experiment(draft=Draft(average_decay=1.0)), "draft.average_decay is 1.0; at 1 and above the average never"),
        (Experiment(draft=Draft(reference="none")), 'draft.reference is "none"; it must be one of trained, moving_'),
        (Experiment(draft=Draft(scope="shard", shards=7)), "batch of 40 does not divide into draft.shards 7"),
        (Experiment(answers=Answers(source="mine")), 'answers.source is "mine"; it must be one of dataset, target, '),
        (Experiment(evaluation=Evaluation(temperature=-1.0)), "evaluation.temperature is -1.0; it must not be"),
        (Experiment(mesh=Mesh(data=-2)), "mesh.data is -2; give a number of devices, or -1 for as many as fit"),
        (Experiment(mesh=Mesh(draft="half")), 'mesh.draft is "half"; it must be one of sharded, replicated'),
        (Experiment(data=Data), r"data is the class Data itself; write Data\(\)"),
        (Experiment(data=Data(buckets=())), r"data.buckets is \(\); it must be lengths in increasing order"),
        (
            Experiment(data=Data(buckets=(64, 32))),
            r"data.buckets is \(64, 32\); it must be lengths in increasing order",
        ),
        (Experiment(data=Data(buckets=(64,))), "the last of data.buckets is below data.max_length 512; raise it"),
        (Experiment(data=Data(prompt_column="q")), "data.prompt_column needs a data.answer_column beside it; pr"),
        (Experiment(data=Data(answer_column="a")), "data.answer_column needs a data.prompt_column"),
    ],
)
def test_the_first_key_that_cannot_work_is_named(config, complaint):
    with pytest.raises(UserError, match=complaint):
        validate(config)


def test_a_field_that_is_new_brings_its_bound_along():
    """No list of names elsewhere has to learn of it, and a group inside a group is looked into."""

    @dataclass
    class Inner:
        depth: int = positive(3)

    @dataclass
    class Longer(Draft):
        inner: Inner = field(default_factory=Inner)

    validate(Experiment(draft=Longer()))
    with pytest.raises(UserError, match="draft.inner.depth is 0; it must be positive"):
        validate(Experiment(draft=Longer(inner=Inner(0))))


def numbers(group, prefix=""):
    """(key, field) of all numbers of a config."""
    for item in dataclasses.fields(group):
        value, kinds = getattr(group, item.name), typing.get_args(item.type) or (item.type,)
        if dataclasses.is_dataclass(value):
            yield from numbers(value, f"{prefix}{item.name}.")
        elif {int, float} & set(kinds):
            yield f"{prefix}{item.name}", item


ARCHITECTURES = [*FAMILIES.values(), *ROPES.values()]


@pytest.mark.parametrize("group", [Experiment, *ARCHITECTURES], ids=lambda group: group.__name__)
@pytest.mark.parametrize("value", [-3, math.inf, -math.inf, math.nan, 10**13])
def test_every_number_has_a_range(group, value):
    """Not finite, below nothing and absurdly large: refused wherever it stands, before anything is computed with it."""
    found = {
        key: (item, (value,) if typing.get_origin(item.type) is tuple else value) for key, item in numbers(group())
    }
    assert found and [key for key, given in found.items() if not complaint_of(*given)] == []
