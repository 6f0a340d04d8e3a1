"""Under each key that is read, a config.json holds what transformers reads there, or what one line names."""

import dataclasses
import json

import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.errors import UserError
from adaspec_jax.models import config_from_hf
from adaspec_jax.models.families import FAMILIES
from tests.models.conftest import TINY_OF
from tests.running import slow

TOKENS_BT = np.random.default_rng(0).integers(0, 61, (1, 128))
OLD_PLACES = {
    "gpt_neox": {"rotary_pct": 0.5, "rotary_emb_base": 500},
    "phi": {"partial_rotary_factor": 0.5, "rope_theta": 500.0},
    **dict.fromkeys(("llama", "qwen2", "qwen3", "gemma3_text"), {"rope_theta": 500.0}),
}
# What only some keys of Llama's are read differently in; the rest are read by the same lines.
LLAMAS = ("gemma", "gemma2", "granite", "ministral", "mistral", "olmo2", "qwen3", "smollm3")
QUICK = [slow(name) if name in LLAMAS else name for name in sorted(FAMILIES)]
STRETCH = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
STRETCH |= {"original_max_position_embeddings": 64, "rope_theta": 500.0}


class Watched(dict):
    """A dictionary that knows which of its keys were asked for."""

    def __init__(self, keys, asked=()):
        super().__init__(keys)
        self.asked = set(asked)

    def get(self, key, *default):
        self.asked.add(key)
        return super().get(key, *default)

    def __or__(self, others):
        merged = Watched({**self, **others})
        merged.asked = self.asked
        return merged

    def __ror__(self, defaults):
        merged = Watched({**defaults, **self})
        merged.asked = self.asked
        return merged


def keys_read(hf):
    watched = Watched(hf)
    config_from_hf(watched)
    return sorted(watched.asked - {"model_type"})


def logits_of_theirs(directory):
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor(TOKENS_BT)).logits.numpy()


def assert_their_logits(directory):
    ours, theirs = np.asarray(models.load(directory)(TOKENS_BT)[0]), logits_of_theirs(directory)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def assert_their_model_or_a_line_that_names(key, directory, hf):
    """Whether it was a line."""
    (directory / "config.json").write_text(json.dumps(hf))
    try:
        config_from_hf(hf)
    except UserError as error:
        line = str(error)
        assert f'"{key}"' in line.replace("rope type", '"rope_type"') and "\n" not in line
        return True
    assert_their_logits(directory)
    return False


@pytest.mark.parametrize("place", ["old", "new"])
@pytest.mark.parametrize("name", QUICK)
def test_a_key_of_the_wrong_kind_is_named_or_means_what_it_means_to_transformers(torch_checkpoint, name, place):
    heads = {} if name in ("gpt2", "codegen", "gpt_neox") else {"num_key_value_heads": 4}
    _, directory = torch_checkpoint(model_type=name, **heads, **OLD_PLACES.get(name, {}))
    hf = json.loads((directory / "config.json").read_text())
    if place == "old":
        hf.pop("rope_parameters", None)
        hf |= OLD_PLACES.get(name, {})
    keys, named = keys_read(hf), 0
    assert {"eos_token_id", "pad_token_id", "initializer_range", "vocab_size"} < set(keys)
    for key in keys:
        for value in (None, "x", [1], True):
            if value is True and (isinstance(hf.get(key), bool) or key.startswith("use_") or key.endswith("bias")):
                continue  # a right value
            named += assert_their_model_or_a_line_that_names(key, directory, hf | {key: value})
    print(f"{name}: {len(keys)} keys, {named} lines")
    assert named > 2 * len(keys)


@pytest.mark.parametrize("name", ["gpt_neox", "phi", "llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("place", ["rope_parameters", "rope_scaling"])
def test_so_does_a_key_of_the_rotary_embeddings(torch_checkpoint, name, place):
    rope = STRETCH if name == "llama" else {"rope_type": "default", "rope_theta": 500.0}
    rope |= {"partial_rotary_factor": 0.5} if name in ("gpt_neox", "phi") else {}
    _, directory = torch_checkpoint(model_type=name, rope_parameters=rope)
    hf = json.loads((directory / "config.json").read_text())
    rope = hf.pop("rope_parameters")
    assert not assert_their_model_or_a_line_that_names("", directory, hf | {place: rope})
    for key in rope:
        for value in (None, "x", [1], True):
            assert_their_model_or_a_line_that_names(key, directory, hf | {place: rope | {key: value}})


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_key_that_is_absent_means_what_transformers_takes_for_it(name):
    transformers = pytest.importorskip("transformers")
    theirs = {x.name: x.default for x in dataclasses.fields(transformers.AutoConfig.for_model(name))}
    hf = TINY_OF[name] | {"num_attention_heads": 32, "hidden_size": 512, "n_embd": 512, "n_head": 8}
    compared = 0
    for key in set(keys_read(hf)) & set(theirs) - {"eos_token_id", "rope_parameters"}:
        without = {other: hf[other] for other in hf if other != key}
        try:
            config = config_from_hf(without)
        except UserError as error:
            assert f'"{key}" is missing' in str(error)
            continue
        assert config == config_from_hf(without | {key: theirs[key]}), key
        compared += 1
    assert compared > 5


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_ends_of_text_are_ids(name):
    for right, first in ((7, 7), ([5, 7], 5), ([], -1), (None, -1), (0, 0)):
        assert config_from_hf(TINY_OF[name] | {"eos_token_id": right}).eos_token_id == first
    for wrong in ("7", "<|endoftext|>", True, 7.0, -1, [[7]], [7, "8"], [7, -1], [None], {}):
        with pytest.raises(UserError, match='"eos_token_id" is .* a list of them or null is needed') as error:
            config_from_hf(TINY_OF[name] | {"eos_token_id": wrong})
        assert "\n" not in str(error.value)


NO_WINDOW = [
    {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 0},
    {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    {"use_sliding_window": True, "sliding_window": 8},
    {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0, "layer_types": ["full_attention"] * 2},
    {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
    {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 0},
    {"use_sliding_window": True, "sliding_window": 128, "layer_types": ["full_attention", "sliding_attention"]},
]


@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
def test_a_window_that_hides_nothing_is_none(torch_checkpoint, name):
    for keys in NO_WINDOW:
        _, directory = torch_checkpoint(model_type=name, **keys)
        written = json.loads((directory / "config.json").read_text())
        for hf in (written, {key: value for key, value in TINY_OF[name].items()} | keys):
            assert not assert_their_model_or_a_line_that_names("", directory, hf)


@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
@pytest.mark.parametrize(
    ("keys", "windows"),
    [
        ({"sliding_window": 8, "max_window_layers": 1}, (0, 8)),
        ({"sliding_window": 127, "max_window_layers": 0}, (127, 127)),
        ({"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}, (8, 0)),
    ],
)
def test_a_window_that_hides_something_is_kept(torch_checkpoint, name, keys, windows):
    keys = keys | {"use_sliding_window": True}
    _, directory = torch_checkpoint(model_type=name, **keys)
    assert models.load(directory).config.windows == windows
    assert_their_logits(directory)
    seen = logits_of_theirs(directory)
    hf = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(hf | {"use_sliding_window": False, "layer_types": None}))
    assert np.abs(seen - logits_of_theirs(directory)).max() > 1e-3  # and rightly so
    assert_their_logits(directory)


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan"), -(10**400)])
def test_numbers_beyond_what_a_float_holds_are_named(value):
    hf = {"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    hf |= {"num_attention_heads": 2, "max_position_embeddings": 8}
    config_from_hf(hf)
    with pytest.raises(UserError, match=r'"initializer_range" is .* a number above zero is needed'):
        config_from_hf(hf | {"initializer_range": value})
