"""An architecture that is left to config.json is what that file says, in all families; no other file is read."""

import dataclasses
import json
import subprocess
import sys
import types

import jax
import pytest

from adaspec_jax import models, planning
from adaspec_jax.command_line import parse_experiment
from adaspec_jax.config import (
    Described,
    Draft,
    Experiment,
    Llama,
    Llama3Rope,
    Qwen2,
    Target,
    architecture_of,
    validate,
)
from adaspec_jax.config.architectures import FAMILIES
from adaspec_jax.errors import UserError
from adaspec_jax.models.families import llama
from tests.models.conftest import TINY_OF
from tests.running import CHECKOUT, command_line

STRETCH = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
STRETCH |= {"original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 32, "beta_fast": 16, "truncate": False}
LONG = {"type": "longrope", "short_factor": [1.0, 1.5, 2, 2.5], "long_factor": [1.0, 4, 8, 16]}
FULL, SLIDING = "full_attention", "sliding_attention"
# Families of whose key heads transformers takes no null.
NEVER_NULL = ("gemma", "gemma2", "gemma3_text", "ministral", "mistral", "mixtral", "qwen3_moe")
VARIANTS = {
    **{f"{name}, tiny": (name, keys) for name, keys in TINY_OF.items()},
    **{f"{name}, its class's own sizes": (name, {}) for name in TINY_OF if name != "ministral"},  # which has no head
    "gpt_neox, in sequence": ("gpt_neox", {"use_parallel_residual": False, "hidden_act": "gelu_new"}),
    "gpt_neox, tied, without biases": ("gpt_neox", {"tie_word_embeddings": True, "attention_bias": False}),
    "gpt_neox, other rotation": ("gpt_neox", {"rotary_pct": 1.0, "rotary_emb_base": 500}),
    "gpt2, untied": ("gpt2", {"tie_word_embeddings": False, "n_inner": 48, "activation_function": "relu"}),
    "codegen, an inner size": ("codegen", {"n_inner": 96, "layer_norm_epsilon": 1e-6}),
    "phi, grouped": ("phi", {"num_key_value_heads": 2, "num_attention_heads": 4, "hidden_size": 32}),
    "phi, other rotation": ("phi", {"partial_rotary_factor": 0.25, "rope_theta": 500.0}),
    "llama, stretched": ("llama", TINY_OF["llama"] | {"rope_theta": 5e5, "rope_scaling": STRETCH}),
    "llama, heads of their own size": ("llama", TINY_OF["llama"] | {"head_dim": 16}),
    "llama, biases and tied": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama, one key head": ("llama", TINY_OF["llama"] | {"num_key_value_heads": 1}),
    "qwen2, heads of their own size": ("qwen2", TINY_OF["qwen2"] | {"head_dim": 16}),
    "qwen2, stretched": ("qwen2", TINY_OF["qwen2"] | {"rope_scaling": STRETCH, "rope_theta": 5e5}),
    "qwen2, a window of everything": (
        "qwen2",
        TINY_OF["qwen2"] | {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 1},
    ),
    "qwen2, windows from a layer on": (
        "qwen2",
        TINY_OF["qwen2"] | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3, yarn": ("qwen3", TINY_OF["qwen3"] | {"rope_scaling": {"rope_type": "yarn", "factor": 4}}),
    "llama, linear": ("llama", TINY_OF["llama"] | {"rope_scaling": {"type": "linear", "factor": 2.0}}),
    "llama, dynamic": ("llama", TINY_OF["llama"] | {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
    "gpt_neox, yarn": ("gpt_neox", TINY_OF["gpt_neox"] | {"rope_scaling": YARN}),
    "mistral, no window": ("mistral", TINY_OF["mistral"] | {"sliding_window": None}),
    "ministral, by layer": ("ministral", TINY_OF["ministral"] | {"layer_types": [FULL, SLIDING]}),
    "gemma2, no caps, by layer": (
        "gemma2",
        TINY_OF["gemma2"]
        | {"attn_logit_softcapping": None, "final_logit_softcapping": None, "layer_types": [FULL, SLIDING]},
    ),
    "gemma3_text, stretched": (
        "gemma3_text",
        TINY_OF["gemma3_text"] | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "num_hidden_layers": 7},
    ),
    "smollm3, by layer": ("smollm3", TINY_OF["smollm3"] | {"no_rope_layers": [0, 1]}),
    "phi3, long": ("phi3", TINY_OF["phi3"] | {"original_max_position_embeddings": 32, "rope_scaling": LONG}),
    "phi3, in part": ("phi3", TINY_OF["phi3"] | {"partial_rotary_factor": 0.75}),
    "qwen3, biases": ("qwen3", TINY_OF["qwen3"] | {"attention_bias": True, "tie_word_embeddings": True}),
}


def same_decoder(hf):
    """What is read from a config.json describes the decoder that the file does; the tokenizer says where text ends."""
    ours = architecture_of(hf)
    assert ours.mistake() is None
    theirs = dataclasses.replace(models.config_from_hf(hf), eos_token_id=-1)
    assert models.config_from_hf(ours.hf_config()) == theirs
    return ours


def test_every_family_with_a_dataclass_is_one_that_is_loaded():
    assert set(FAMILIES) <= set(models.families.FAMILIES)


@pytest.fixture
def toy(monkeypatch):
    """A family of one file: Llama under another name and with a key of its own."""
    config = lambda hf: dataclasses.replace(  # noqa: E731
        llama.config(hf), model_type="toy", logit_scale=hf.get("toy_scale", 1.0)
    )
    rules = {"ARCHITECTURE": "ToyForCausalLM", "IGNORED": llama.IGNORED, "config": config, "table": llama.table}
    monkeypatch.setitem(models.families.FAMILIES, "toy", types.SimpleNamespace(**rules))
    return TINY_OF["llama"] | {"model_type": "toy", "toy_scale": 0.5}


def test_a_family_of_one_file_needs_no_dataclass(toy, tmp_path, capsys, monkeypatch):
    ours = same_decoder(toy)
    assert isinstance(ours, Described) and ours.vocab_size == 61 and ours.num_layers == 2
    model = models.build(ours.hf_config(), jax.random.key(0))
    assert model.config.logit_scale == 0.5
    models.save(model, tmp_path / "model")
    (tmp_path / "cut.py").write_text(CUT_OF.format(place=str(tmp_path / "model")))
    status, said, errors = command_line(capsys, monkeypatch, "plan", "--config", str(tmp_path / "cut.py"), *PLAN)
    assert status == 0 and not errors and "reference: fits" in said


CUT_OF = """from adaspec_jax.config import *


def get_config(variant=''):
    target = Target(init={place!r}, architecture=None)
    return Experiment(target=target, draft=Draft(init='cut', architecture=None))
"""


def test_a_family_that_is_not_there_is_refused_where_the_model_is_made(file, tmp_path, capsys, monkeypatch):
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "lama"}))
    status, _, errors = command_line(capsys, monkeypatch, "plan", "--config", file, *PLAN)
    assert status == 2 and errors.count("\n") == 1 and 'model_type "lama" is not supported' in errors
    assert 'did you mean "llama"' in errors


def test_what_a_dataclass_has_no_place_for_is_kept_as_it_is():
    rope = {FULL: {"rope_theta": 1e6}, SLIDING: {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}}
    assert isinstance(same_decoder(TINY_OF["gemma3_text"] | {"rope_parameters": rope}), Described)
    rope[SLIDING] = {"rope_theta": 2e4}
    assert same_decoder(TINY_OF["gemma3_text"] | {"rope_parameters": rope}).rope_local_base_freq == 2e4


@pytest.mark.parametrize("name", ["llama, dynamic", "phi3, long"])
def test_the_length_of_text_that_a_stretch_is_for_is_read(name):
    model_type, keys = VARIANTS[name]
    ours = same_decoder(keys | {"model_type": model_type, "adaspec_context": 100})
    assert ours.rope_scaling.adaspec_context == ours.hf_config()["adaspec_context"] == 100


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_read_describes_the_decoder_that_transformers_wrote(name):
    transformers = pytest.importorskip("transformers")
    model_type, keys = VARIANTS[name]
    keys = json.loads(json.dumps({key: value for key, value in keys.items() if key != "model_type"}))
    written = transformers.AutoConfig.for_model(model_type, **keys).to_json_string(use_diff=False)
    ours = same_decoder(json.loads(written))
    assert type(ours) is FAMILIES.get(model_type, Described)
    validate(Experiment(target=Target(architecture=ours)))
    # Read once more from what it writes itself, it stays as it is.
    assert architecture_of(ours.hf_config()) == ours


NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
NEEDED += ("n_embd", "n_layer", "n_head")
# Sizes that go with every family's defaults: 32 key heads, 64 features of a head that rotate, or a quarter of them.
DIVISIBLE = ({"hidden_size": 1024, "num_attention_heads": 32}, {"n_embd": 512, "n_head": 4})


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_key_that_the_file_lacks_has_the_familys_default_for_files(model_type):
    needed = set(NEEDED) & set(TINY_OF[model_type]) | {"model_type"}
    tiny = {key: TINY_OF[model_type][key] for key in needed} | DIVISIBLE[model_type in ("gpt2", "codegen")]
    tiny |= {"head_dim": 32} if model_type == "ministral" else {}  # which has no other
    same_decoder(tiny)
    if model_type not in NEVER_NULL:
        same_decoder(tiny | {"num_key_value_heads": None})
    for key in needed - {"model_type", *FAMILIES[model_type].ABSENT}:
        with pytest.raises(UserError, match=f'a/config.json has no "{key}", which a {model_type} model needs'):
            architecture_of({k: value for k, value in tiny.items() if k != key}, origin="a/config.json")


@pytest.mark.parametrize("place", ["rope_scaling", "rope_parameters"])
def test_the_rotation_is_read_in_its_old_and_new_place(place):
    for model_type, share in {"gpt_neox": 0.5, "phi": 0.25, "llama": None, "qwen3": None}.items():
        rope = {"rope_theta": 500, "rope_type": "default"} | ({"partial_rotary_factor": share} if share else {})
        same_decoder(TINY_OF[model_type] | {place: rope})
    stretched = same_decoder(TINY_OF["llama"] | {place: STRETCH | {"rope_theta": 500}})
    assert stretched.rope_scaling.factor == 8.0 and stretched.rope_theta == 500.0
    without = {key: value for key, value in STRETCH.items() if key != "original_max_position_embeddings"}
    same_decoder(TINY_OF["llama"] | {place: without})


def test_the_real_config_of_phi_2_is_read(shared_data):
    same_decoder(json.loads(shared_data("configs", "phi-2.config.json").read_text()))


def test_the_real_config_of_a_small_llama_is_read(shared_weights):
    same_decoder(json.loads(shared_weights("stories260K-hf", "config.json").read_text()))


@pytest.mark.parametrize(
    ("hf", "says"),
    [
        (
            TINY_OF["llama"] | {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}},
            'x: "rope_parameters" differs by kind of layer ("full_attention"), which llama has not',
        ),
        ({}, 'x has no "model_type" of a language model'),
        (TINY_OF["llama"] | {"hidden_size": "32"}, "x: \"hidden_size\" is '32'; an integer is needed"),
        (TINY_OF["llama"] | {"tie_word_embeddings": None}, 'x: "tie_word_embeddings" is null; true or false is needed'),
        (
            TINY_OF["llama"] | {"rope_scaling": {"rope_type": "bent"}},
            'x: rope type "bent" in "rope_scaling" is not sup',
        ),
        (
            TINY_OF["phi3"] | {"rope_parameters": STRETCH},
            'rope type "llama3" in "rope_parameters" is not supported; only',
        ),
        (TINY_OF["llama"] | {"rope_scaling": 3}, 'x: "rope_scaling" is 3; an object is needed'),
        (TINY_OF["llama"] | {"rope_scaling": {"type": "llama3"}}, 'x: rope type "llama3" without "factor"'),
    ],
)
def test_what_is_no_model_of_ours_is_one_line(hf, says):
    with pytest.raises(UserError) as error:
        architecture_of(hf, origin="x")
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.fixture
def file(tmp_path):
    """A config file that leaves both architectures to one config.json, which lies there alone."""
    (tmp_path / "model").mkdir()
    hf = TINY_OF["llama"] | {"head_dim": 16, "rope_scaling": STRETCH}
    (tmp_path / "model" / "config.json").write_text(json.dumps(hf))
    (tmp_path / "unsaid.py").write_text(
        "from adaspec_jax.config import *\n\n\ndef get_config(variant=''):\n"
        f"    place = {str(tmp_path / 'model')!r}\n"
        "    unsaid = {'init': place, 'architecture': None}\n"
        "    return Experiment(target=Target(**unsaid), draft=Draft(**unsaid))\n"
    )
    return str(tmp_path / "unsaid.py")


def parsed(file, *overrides):
    return parse_experiment(["train", "--config", file, *overrides], description="a test")[0]


READ = Llama(
    vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
    intermediate_size=56, max_position_embeddings=128, rope_theta=10_000.0, rope_scaling=Llama3Rope(8.0, 1.0, 4.0, 64),
    rms_norm_eps=1e-6, tie_word_embeddings=False, initializer_range=0.3,
)  # fmt: skip


def test_every_door_gets_the_architecture_that_config_json_says(file):
    config = parsed(file)
    assert config.target.architecture == config.draft.architecture == READ


def test_a_name_below_the_given_weights_is_read(file, tmp_path, monkeypatch):
    monkeypatch.setenv("ADASPEC_WEIGHTS", str(tmp_path))
    assert parsed(file, "--config.target.init=anybody/model").target.architecture == READ


def test_of_a_hub_name_config_json_alone_is_fetched(file, tmp_path, monkeypatch):
    import huggingface_hub

    from adaspec_jax.data import network

    asked = []

    def download(name, file, **_):
        asked.append((name, file))
        return str(tmp_path / "model" / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(network, "hub_reachable", lambda: True)
    assert parsed(file, "--config.target.init=some/model").target.architecture == READ
    assert asked == [("some/model", "config.json")]


def test_an_architecture_of_the_config_file_can_be_left_to_config_json(file):
    quick = str(CHECKOUT / "configs" / "quickstart.py")
    place = parsed(file).target.init
    config = parsed(quick, f"--config.target.init={place}", "--config.target.architecture=None")
    assert config.target.architecture == READ and config.draft.architecture.hidden_size == 64


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["target.init=random"],
            "target.architecture is None: say which model: --config.target.init=DIR_OR_NAME",
        ),
        (["draft.init=random"], "draft.architecture is None: say which model: --config.draft.init=DIR_OR_NAME"),
        (
            ["target.architecture.hidden_size=64"],
            "config.target.architecture is None, so that config.json says it, and",
        ),
        (["target.init=nowhere/at/all"], "nowhere/at/all: no such directory"),
        (["target.init={tmp}"], "has no config.json: it is not a Hugging Face model directory"),
        (["target.init={tmp}/adapter"], "holds an adapter of some/base"),
        (["target.init={tmp}/broken"], "config.json"),
        (
            ["target.architecture=None", "target.architecture.hidden_size=64"],
            "--config.target.architecture=None and --config.target.architecture.hidden_size=64 contradict each other",
        ),
    ],
)
def test_what_gives_no_architecture_is_one_line(file, tmp_path, overrides, says):
    for name, content in {
        "adapter/adapter_config": {"base_model_name_or_path": "some/base"},
        "broken/config": [],
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        parsed(file, *(f"--config.{override}".replace("{tmp}", str(tmp_path)) for override in overrides))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_an_architecture_that_nobody_read_is_refused_where_a_run_begins():
    with pytest.raises(
        UserError, match="draft.architecture is None: nobody read it: give one, such as architecture_of"
    ):
        validate(Experiment(draft=Draft(init="some/where", architecture=None)))


def test_print_config_opens_no_other_file_and_needs_no_jax(file):
    """The model's directory holds config.json alone."""
    script = (
        "import sys; from adaspec_jax import train; "
        f"sys.argv = ['train', '--config', {file!r}, '--print_config']; train.main(); "
        "assert not {'jax', 'transformers', 'torch'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    shown = json.loads(ran.stdout)["target"]["architecture"]
    assert shown == dataclasses.asdict(READ)


PLAN = ["--topology", "cpu", "--no_search", "--stages", "reference", "--config.mesh.data=1", "--config.data.buckets=64"]
PLAN += ["--config.data.max_length=64"]


def test_a_plan_needs_config_json_alone(file, capsys, monkeypatch):
    status, said, errors = command_line(capsys, monkeypatch, "plan", "--config", file, *PLAN)
    assert status == 0 and not errors and "reference: fits" in said
    assert f"target: the sizes of {parsed(file).target.init}, as its config.json says" in said


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "the weights are quantised (quant_method: gptq)"),
        ({"partial_rotary_factor": 0.5}, '"partial_rotary_factor" below 1 is not supported in this family'),
    ],
)
def test_a_plan_refuses_what_a_run_would(file, tmp_path, capsys, monkeypatch, keys, says):
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    status, _, errors = command_line(capsys, monkeypatch, "plan", "--config", file, *PLAN)
    assert status == 2 and errors.count("\n") == 1 and says in errors


def test_a_plan_says_what_an_architecture_leaves_out_of_its_config_json():
    hf = TINY_OF["qwen2"] | {"rope_scaling": STRETCH, "eos_token_id": 2}
    whole = architecture_of(hf)
    assert planning.left_out(whole, hf, "here") == []
    lines = planning.left_out(dataclasses.replace(whole, rope_scaling=None, head_dim=16), hf, "here")
    assert lines[0] == "here: head_dim is 8, planned as 16"
    assert any(line.startswith("here: rope_scaling is Llama3Scaling(factor=8.0") for line in lines)


def test_an_optional_stretch_is_overridden_key_by_key_where_the_config_file_has_one(tmp_path):
    (tmp_path / "qwen.py").write_text(
        "from adaspec_jax.config import *\n\n\ndef get_config(variant=''):\n"
        "    return Experiment(target=Target(architecture=Qwen2(rope_scaling=Llama3Rope())))\n"
    )
    config = parsed(str(tmp_path / "qwen.py"), "--config.target.architecture.rope_scaling.factor=8")
    assert config.target.architecture == Qwen2(rope_scaling=Llama3Rope(factor=8.0))
