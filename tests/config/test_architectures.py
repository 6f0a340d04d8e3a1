"""The families' architectures in a config: sizes of known models, overrides by type, mistakes in one line."""

import json
import math

import jax
import pytest

from adaspec_jax import config, models
from adaspec_jax.command_line import load_config, parse_experiment
from adaspec_jax.config import (
    GPT2,
    Architecture,
    CodeGen,
    Draft,
    Experiment,
    Gemma,
    Gemma2,
    Gemma3Text,
    GPTNeoX,
    Granite,
    LinearRope,
    Llama,
    Llama3Rope,
    LongRope,
    Ministral,
    Mistral,
    Mixtral,
    Olmo2,
    Phi,
    Phi3,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    SmolLM3,
    Target,
    flatten,
    validate,
    with_cut,
)
from adaspec_jax.errors import UserError
from adaspec_jax.models.causal_lm import parameter_shapes
from adaspec_jax.models.families import FAMILIES
from tests.running import CHECKOUT

PHI_2 = Phi(hidden_size=2560, num_hidden_layers=32, intermediate_size=10240, partial_rotary_factor=0.4)
SIZES = {
    "Pythia-31M": (GPTNeoX(), 30_494_720),
    "CodeGen-350M": (CodeGen(), 356_712_448),
    "GPT-2": (GPT2(), 124_439_808),
    "Phi-1.5": (Phi(), 1_418_270_720),
    "Phi-2": (PHI_2, 2_779_683_840),
    "Llama-3.2-1B": (Llama(), 1_235_814_400),
    "Qwen2.5-0.5B": (Qwen2(), 494_032_768),
    "Qwen2.5-32B": (
        Qwen2(
            vocab_size=152064, hidden_size=5120, num_hidden_layers=64, num_attention_heads=40, num_key_value_heads=8,
            intermediate_size=27648, rms_norm_eps=1e-5, tie_word_embeddings=False,
        ), 32_763_876_352,
    ),
    "Qwen3-0.6B": (Qwen3(), 596_049_920),
    "Qwen3-30B-A3B": (Qwen3Moe(), 30_532_122_624),
    "Mixtral-8x7B": (Mixtral(), 46_702_792_704),
    "Mistral-7B-v0.3": (Mistral(), 7_248_023_552),
    "Ministral-8B": (Ministral(), 8_019_808_256),
    "Gemma-2B": (Gemma(), 2_506_172_416),
    "Gemma-2-2B": (Gemma2(), 2_614_341_888),
    "Gemma-3-270M": (Gemma3Text(), 268_098_176),
    "Phi-3-mini-4k": (Phi3(), 3_821_079_552),
    "Phi-4-mini": (
        Phi3(vocab_size=200064, num_attention_heads=24, num_key_value_heads=8, tie_word_embeddings=True),
        3_836_021_760,
    ),
    "OLMo-2-1B": (Olmo2(), 1_484_916_736),
    "SmolLM3-3B": (SmolLM3(), 3_075_098_624),
    "Granite-3.3-2B": (Granite(), 2_533_539_840),
}  # fmt: skip
FAMILY_CLASSES = (GPTNeoX, GPT2, CodeGen, Phi, Llama, Qwen2, Qwen3, Mistral, Ministral, Gemma, Gemma2, Gemma3Text)
FAMILY_CLASSES += (Phi3, Olmo2, SmolLM3, Granite, Mixtral, Qwen3Moe)


@pytest.mark.parametrize("name", SIZES)
def test_a_known_model_has_its_number_of_parameters(name):
    architecture, count = SIZES[name]
    shapes = parameter_shapes(models.config_from_hf(architecture.hf_config()))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == count


def test_every_dataclass_is_of_a_family_and_a_config_file_can_take_it():
    assert {*FAMILY_CLASSES} == {*config.architectures.FAMILIES.values()}
    assert all(cls.CLASS == FAMILIES[cls.model_type].ARCHITECTURE for cls in FAMILY_CLASSES)
    assert all(getattr(config, cls.__name__) is cls for cls in (*FAMILY_CLASSES, Architecture))


def test_the_real_config_of_phi_2_is_the_architecture_of_the_same_sizes(shared_data):
    real = json.loads(shared_data("configs", "phi-2.config.json").read_text())
    ours = models.config_from_hf(PHI_2.hf_config() | {"eos_token_id": 50256})
    assert models.config_from_hf(real) == ours and ours.rotary_dim == 32


def test_transformers_reads_what_an_architecture_writes():
    transformers = pytest.importorskip("transformers")
    for cls in FAMILY_CLASSES:
        hf = cls().hf_config()
        named = {"pad_token_id": 0} if cls in (Phi3, SmolLM3) else {}  # whose class has one beyond some vocabularies
        theirs = transformers.AutoConfig.for_model(hf.pop("model_type"), **hf, **named)
        again = json.loads(json.dumps(theirs.to_dict()))
        drop = {"eos_token_id": None}  # its class default, which ours leaves to the tokenizer
        assert models.config_from_hf(again | drop) == models.config_from_hf(cls().hf_config())


@pytest.fixture
def pair(tmp_path):
    """`pair("CodeGen()", "Qwen3()")` is a config file with that target and draft."""

    def write(target, draft):
        (tmp_path / "pair.py").write_text(
            "from adaspec_jax.config import *\n\n\ndef get_config(variant=''):\n"
            f"    return Experiment(target=Target(architecture={target}), draft=Draft(architecture={draft}))\n"
        )
        return str(tmp_path / "pair.py")

    return write


def overridden(file, *overrides) -> Experiment:
    argv = ["train", "--config", file, *(f"--config.{override}" for override in overrides)]
    return parse_experiment(argv, description="a test")[0]


def test_overrides_reach_the_fields_of_the_family_that_is_there(pair):
    file = pair("CodeGen(n_layer=3)", "Qwen3()")
    experiment = overridden(
        file, "target.architecture.n_inner=96", "target.architecture.n_head=8", "draft.architecture.hidden_size=96",
        "draft.architecture.rope_theta=5e5", "draft.architecture.tie_word_embeddings=false",
    )  # fmt: skip
    assert experiment.target.architecture == CodeGen(n_layer=3, n_inner=96, n_head=8)
    assert experiment.draft.architecture == Qwen3(hidden_size=96, rope_theta=5e5, tie_word_embeddings=False)
    assert flatten(experiment)["target.architecture.model_type"] == "codegen"


def test_overrides_reach_the_stretch_of_a_llama(pair):
    experiment = overridden(
        pair("Llama()", "Llama()"),
        "target.architecture.rope_scaling.factor=8",
        "draft.architecture.rope_scaling.rope_type=default",
    )
    target, draft = experiment.target.architecture.hf_config(), experiment.draft.architecture.hf_config()
    assert models.config_from_hf(target).rope_scaling.factor == target["rope_scaling"]["factor"] == 8.0
    assert models.config_from_hf(draft).rope_scaling is draft["rope_scaling"] is None


def test_a_key_of_another_family_is_an_unknown_key(pair):
    with pytest.raises(UserError, match='unknown key "n_layer" in config.draft.architecture'):
        overridden(pair("CodeGen()", "Phi()"), "draft.architecture.n_layer=2")
    with pytest.raises(UserError, match='did you mean "n_layer"'):
        overridden(pair("CodeGen()", "Phi()"), "target.architecture.n_layers=2")


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        (GPTNeoX(num_attention_heads=5), "draft.architecture: hidden_size 256 is not a multiple"),
        (CodeGen(n_head=10), "n_embd 1024 is not a multiple of n_head 10"),
        (CodeGen(n_head=2), "n_head 2 is not a multiple of 4"),
        (CodeGen(n_inner=0), "draft.architecture.n_inner is 0"),
        (Phi(num_attention_heads=30), "hidden_size 2048 is not a multiple of num_attention_heads 30"),
        (Llama(num_key_value_heads=5), "num_attention_heads 32 is not a multiple of num_key_value_heads 5"),
        (Qwen2(num_attention_heads=0), "draft.architecture.num_attention_heads is 0"),
        (Qwen3(num_key_value_heads=3), "num_attention_heads 16 is not a multiple of num_key_value_heads 3"),
        (Llama(rope_scaling=Llama3Rope(rope_type="yarn")), 'rope_type is "yarn"; it must be one of default, llama3'),
        (Qwen3(head_dim=-1), "draft.architecture.head_dim is -1"),
        (Phi3(rope_scaling=LongRope((1.0,), (1.0,))), "short_factor has 1 factors, and 48 pairs of a head's features"),
        (Gemma3Text(sliding_window=0), "draft.architecture.sliding_window is 0"),
        (Gemma3Text(sliding_window=None, layer_types=("sliding_attention",) * 18), "and sliding_window is None"),
        (Gemma2(layer_types=("full_attention",)), "says something of 1 layers, and num_hidden_layers is 26"),
        (Ministral(layer_types=("conv",) * 36), "layer_types has 'conv'; each must be one of full_attention, slid"),
        (Llama(rope_scaling=LinearRope(factor=0.0)), "draft.architecture.rope_scaling.factor is 0"),
        (Phi3(rope_scaling=LongRope((0.0,), (1.0,))), "short_factor is .0.0,.; it must be numbers above 0"),
    ],
)  # fmt: skip
def test_sizes_that_cannot_work_are_named(architecture, words):
    with pytest.raises(UserError, match=words):
        validate(Experiment(draft=Draft(architecture=architecture)))


def test_sizes_that_work_pass():
    for cls in FAMILY_CLASSES:
        validate(Experiment(target=Target(architecture=cls()), draft=Draft(architecture=cls())))
    validate(Experiment(draft=Draft(architecture=Qwen3(hidden_size=100, num_attention_heads=3, num_key_value_heads=1))))


@pytest.mark.parametrize("file", sorted((CHECKOUT / "configs").glob("*.py")), ids=lambda file: file.stem)
def test_the_models_of_every_config_can_be_built(file):
    config = with_cut(load_config(str(file)))
    small = [config.draft, *([config.qualifier] if config.qualifier.epochs else [])]
    for stage in (config.target, *small):
        if stage.architecture is not None:
            assert parameter_shapes(models.config_from_hf(stage.architecture.hf_config()))


def test_features_are_turned_in_pairs():
    assert "rotary_pct turns 7 features of a head" in GPTNeoX(hidden_size=112, num_attention_heads=4).mistake()
    assert GPTNeoX(hidden_size=112, num_attention_heads=7).mistake() is None
