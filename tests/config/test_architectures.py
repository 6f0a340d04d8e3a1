"""The families' architectures in a config: sizes of known models, overrides by type, mistakes in one line."""

import json
import math

import jax
import pytest

from adaspec_jax import config, models
from adaspec_jax.command_line import load_config, parse_experiment
from adaspec_jax.config import Draft, Experiment, Target, flatten, validate, with_cut
from adaspec_jax.config.architectures import GPT2, Architecture, CodeGen, GPTNeoX, Llama, Llama3Rope, Phi, Qwen2, Qwen3
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
}  # fmt: skip
FAMILY_CLASSES = (GPTNeoX, GPT2, CodeGen, Phi, Llama, Qwen2, Qwen3)


@pytest.mark.parametrize("name", SIZES)
def test_a_known_model_has_its_number_of_parameters(name):
    architecture, count = SIZES[name]
    shapes = parameter_shapes(models.config_from_hf(architecture.hf_config()))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == count


def test_every_family_has_an_architecture_that_a_config_file_can_take():
    assert {cls.model_type: cls.CLASS for cls in FAMILY_CLASSES} == {
        model_type: family.ARCHITECTURE for model_type, family in FAMILIES.items()
    }
    assert all(getattr(config, cls.__name__) is cls for cls in (*FAMILY_CLASSES, Architecture))


def test_the_real_config_of_phi_2_is_the_architecture_of_the_same_sizes(shared_data):
    real = json.loads(shared_data("configs", "phi-2.config.json").read_text())
    ours = models.config_from_hf(PHI_2.hf_config() | {"eos_token_id": 50256})
    assert models.config_from_hf(real) == ours and ours.rotary_dim == 32


def test_transformers_reads_what_an_architecture_writes():
    transformers = pytest.importorskip("transformers")
    for cls in FAMILY_CLASSES:
        hf = cls().hf_config()
        theirs = transformers.AutoConfig.for_model(hf.pop("model_type"), **hf)
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
