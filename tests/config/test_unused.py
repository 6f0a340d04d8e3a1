"""Settings that nothing looks at are named, and no config of ours has any."""

import dataclasses

import pytest

from adaspec_jax.command_line import load_config
from adaspec_jax.config import Data, Experiment
from adaspec_jax.config.unused import without_effect
from adaspec_jax.data import TASKS
from tests.running import CHECKOUT

GENERATED = {name for name, task in TASKS.items() if task.generate is not None}
FILE = {"train": "mine.jsonl", "held_out": 100}


def unused(overrides=(), **data):
    config = dataclasses.replace(Experiment(), data=dataclasses.replace(Data(), **data))
    return [said.partition(" ")[0] for said in without_effect(config, generated=GENERATED, overrides=overrides)]


@pytest.mark.parametrize("name", sorted(path.stem for path in (CHECKOUT / "configs").glob("*.py")))
def test_no_config_of_ours_sets_what_nothing_looks_at(name):
    assert without_effect(load_config(f"{CHECKOUT}/configs/{name}.py"), generated=GENERATED) == []


def test_the_number_of_rows_is_of_generated_tasks():
    assert unused(num_train=300, num_evaluation=9, seed=3) == []
    assert unused(num_train=300, num_evaluation=9, seed=3, task="gsm8k") == [
        "data.num_train=300",
        "data.num_evaluation=9",
        "data.seed=3",
    ]
    assert unused(**FILE, num_train=300, num_evaluation=9, seed=3) == ["data.num_train=300", "data.num_evaluation=9"]
    assert unused(train="mine.jsonl", num_train=300, num_evaluation=9, seed=3) == ["data.num_train=300"]
    assert unused(num_train=300, num_evaluation=9, mixture=("word_problems", "mine.jsonl")) == []


def test_what_stands_on_the_command_line_is_named_even_as_its_default():
    override = ["quickstart", "--config.data.num_train=4000", "--config.answers.share=0.5"]
    assert unused(override) == ["answers.share=0.5"]
    assert unused(override, **FILE) == ["data.num_train=4000", "answers.share=0.5"]


def test_each_key_is_one_of_a_config_and_counts_where_it_is_looked_at():
    config = Experiment()
    config.target.epochs, config.qualifier.epochs, config.tokenizer.init = 0.0, 0.0, "target"
    config.target.lr, config.tokenizer.vocab_size, config.draft.shards, config.target.lora_lr = 1.0, 9, 4, 1.0
    said = without_effect(config, generated=GENERATED)
    assert said == [
        "tokenizer.vocab_size=9 (of a tokenizer that is trained here)",
        'draft.shards=4 (of draft.scope "shard")',
        "target.lr=1.0 (target.epochs is 0)",
        "target.lora_lr=1.0 (target.lora_rank is 0)",
    ]
    config.target.epochs, config.tokenizer.init, config.draft.scope, config.target.lora_rank = 1.0, "train", "shard", 8
    assert without_effect(config, generated=GENERATED) == []
