"""What servers compute of an exported head, read independently in PyTorch, is what our head guesses."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import Context
from adaspec_jax.decoding.drafters.target.features import FeatureDrafter
from adaspec_jax.models import heads
from adaspec_jax.models.heads.parts.recurrent import OnTarget
from tests.decoding.recording import play
from tests.models.heads import setting

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
TARGETS = {
    # Of its four waves one is kept, one slowed, and two are between.
    "llama3": {"model_type": "llama", "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 64}},
    "llama": {"model_type": "llama", "num_hidden_layers": 7},  # whose layers 1, 2 and 3 need no word in config.json
    "qwen2": {"model_type": "qwen2", "num_hidden_layers": 3},
    "phi": {"model_type": "phi", "num_hidden_layers": 2},
    "gpt_neox": {"model_type": "gpt_neox", "num_hidden_layers": 2},
}
TOKENS = np.random.default_rng(0).integers(0, 61, (2, 12))


def ours(head, target, next_B):
    """Logits [B, T - 1, V] along the text as training has them, and one guess further as decoding has it."""
    kind, text = head.config, jnp.asarray(TOKENS)
    features = heads.features_of(target, text, kind.layers)
    along = kind.spread(head, head.logits(target, head.guessed(target, text, features)[0]))[:, :-1]
    drafter = OnTarget(head, target)
    hidden = drafter.entered(features[:, :-1])
    made, handed_on, cache = drafter.read(hidden, text[:, 1:], drafter.init_cache(2, 16))
    np.testing.assert_allclose(drafter.unembed(made), along, atol=1e-4)
    made, _, _ = drafter.read(handed_on[:, -1:], jnp.asarray(next_B)[:, None], cache)
    return along, drafter.unembed(made)[:, 0]


@pytest.fixture
def exported(torch_checkpoint, tmp_path):
    """`exported(variant, family)` is (our target, theirs, our head, the directory it was saved to)."""

    def make(variant, family):
        theirs, directory = torch_checkpoint(**TARGETS[family])
        target = models.load(directory)
        head = setting.new(variant, target)
        models.save_head(head, tmp_path / "head", fingerprint="a" * 64)
        return target, theirs, head, tmp_path / "head"

    return make


RECURRENT = [name for name in setting.VARIANTS if name.startswith("eagle")]


@pytest.mark.parametrize(
    ("variant", "family"),
    [*((name, family) for name in RECURRENT for family in ("llama", "qwen2")), ("eagle", "llama3")],
)
def test_servers_guess_what_a_recurrent_head_guesses(variant, family, exported):
    torch = pytest.importorskip("torch")
    from tests.models.heads import torch_reading

    target, theirs, head, directory = exported(variant, family)
    reading = {"eagle": torch_reading.Eagle, "eagle3": torch_reading.Eagle3}[head.config.name](directory, theirs)
    next_B = np.asarray([3, 58])
    there = reading.guesses(torch.tensor(TOKENS), torch.tensor(next_B))
    for one, other in zip(ours(head, target, next_B), there, strict=True):
        spread = np.abs(np.asarray(one)[np.asarray(one) > -1e8]).max()
        np.testing.assert_allclose(np.asarray(one), other.numpy(), atol=1e-4 * max(1, spread))


@pytest.mark.parametrize("variant", ["eagle", "eagle3_switches"])
def test_in_decoding_every_guess_is_what_servers_guess_after_the_same_text(variant, exported):
    """Round by round, whatever was accepted before."""
    torch = pytest.importorskip("torch")
    from tests.models.heads import torch_reading

    target, theirs, head, directory = exported(variant, "llama3")
    reading = {"eagle": torch_reading.Eagle, "eagle3": torch_reading.Eagle3}[head.config.name](directory, theirs)
    prompt = Context(TOKENS[:, :5], np.array([5, 3]))
    for row in play(target, FeatureDrafter(OnTarget(head, target.ends()), 3), prompt, max_new_tokens=10):
        for length, guesses in row.rounds:
            assert list(guesses[-1]) == reading.chain(torch.tensor(row.text[:length]), 3)


def test_beside_phi_servers_guess_what_eagle_does_but_for_the_bias_of_the_output_matrix(exported):
    torch = pytest.importorskip("torch")
    from tests.models.heads import torch_reading

    target, theirs, head, directory = exported("eagle", "phi")
    next_B, bias_V = np.asarray([3, 58]), np.asarray(target.params["head"]["bias"])
    there = torch_reading.Eagle(directory, theirs).guesses(torch.tensor(TOKENS), torch.tensor(next_B))
    assert np.abs(bias_V).max() > 0.01
    for one, other in zip(ours(head, target, next_B), there, strict=True):
        np.testing.assert_allclose(np.asarray(one) - bias_V, other.numpy(), atol=1e-4 * np.abs(one).max())


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.parametrize("variant", ["medusa", "medusa_blocks"])
def test_servers_guess_what_medusas_heads_guess(variant, family, exported):
    torch = pytest.importorskip("torch")
    from tests.models.heads import torch_reading

    target, theirs, head, directory = exported(variant, family)
    there = torch_reading.Medusa(directory, theirs).guesses(torch.tensor(TOKENS))
    features = heads.features_of(target, jnp.asarray(TOKENS), (-1,))
    for i, hidden in enumerate(head.guessed(target, jnp.asarray(TOKENS), features)):
        here = np.asarray(head.logits(target, hidden, i))
        np.testing.assert_allclose(here, there[i].numpy(), atol=1e-4 * max(1, np.abs(here).max()))


def served_layout(directory):
    from safetensors.numpy import load_file

    config = json.loads((directory / "config.json").read_text())
    shapes = {name: list(tensor.shape) for name, tensor in load_file(directory / "model.safetensors").items()}
    return config, shapes


@pytest.fixture
def target(tiny_of):
    return tiny_of("llama", num_hidden_layers=7)


def layer_of(name, wide):
    sizes = {"q_proj": [32, wide], "k_proj": [16, wide], "v_proj": [16, wide], "o_proj": [32, 32]}
    shapes = {f"{name}.self_attn.{part}.weight": shape for part, shape in sizes.items()}
    shapes |= {f"{name}.mlp.{part}_proj.weight": [56, 32] for part in ("gate", "up")}
    return shapes | {f"{name}.mlp.down_proj.weight": [32, 56], f"{name}.post_attention_layernorm.weight": [32]}


def test_eagle_has_the_servers_names_and_shapes_and_no_others(target, tmp_path):
    models.save_head(setting.new("eagle", target), tmp_path)
    config, shapes = served_layout(tmp_path)
    assert shapes == {"fc.weight": [32, 64], "fc.bias": [32]} | layer_of("layers.0", 32)
    from safetensors.numpy import load_file

    assert not load_file(tmp_path / "model.safetensors")["fc.bias"].any()
    assert config["model_type"] == "llama" and config["num_hidden_layers"] == 1 and config["hidden_size"] == 32
    assert config["head_dim"] == 8 and not config["tie_word_embeddings"]


def test_eagle3_has_the_servers_names_and_shapes_and_no_others(target, tmp_path):
    head = setting.new("eagle3_vocabulary", target)
    models.save_head(head, tmp_path)
    config, shapes = served_layout(tmp_path)
    norms = ("norm", "midlayer.input_layernorm", "midlayer.hidden_norm")
    own = {"fc.weight": [32, 96], "lm_head.weight": [20, 32], "d2t": [20], "t2d": [61]}
    assert shapes == own | {f"{name}.weight": [32] for name in norms} | layer_of("midlayer", 64)
    assert config["draft_vocab_size"] == 20 and config["vocab_size"] == 61 and config["norm_before_residual"]
    assert "eagle_aux_hidden_state_layer_ids" not in config["eagle_config"]
    from safetensors.numpy import load_file

    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["d2t"].dtype == np.int64 and tensors["t2d"].dtype == bool
    np.testing.assert_array_equal(np.arange(20) + tensors["d2t"], np.asarray(head.tables["kept"]))
    np.testing.assert_array_equal(np.flatnonzero(tensors["t2d"]), np.asarray(head.tables["kept"]))


def test_layers_are_named_by_what_enters_them_where_servers_would_read_others(target, tiny_of, tmp_path):
    models.save_head(setting.new("eagle3_switches", target), tmp_path / "a")
    assert served_layout(tmp_path / "a")[0]["eagle_config"]["eagle_aux_hidden_state_layer_ids"] == [1, 2]
    assert served_layout(tmp_path / "a")[0]["num_aux_hidden_states"] == 2
    # Of six layers the servers' own are 2, 3 and 3 again.
    models.save_head(setting.new("eagle3", tiny_of("llama", num_hidden_layers=6)), tmp_path / "b")
    assert served_layout(tmp_path / "b")[0]["eagle_config"]["eagle_aux_hidden_state_layer_ids"] == [1, 3, 6]


def test_medusa_has_the_servers_names_and_shapes_and_no_others(target, tmp_path):
    models.save_head(setting.new("medusa", target), tmp_path)
    config, shapes = served_layout(tmp_path)
    blocks = {f"blocks.{i}.layers.0.weight": [32, 32] for i in range(4)}
    blocks |= {f"blocks.{i}.layers.0.bias": [32] for i in range(4)}
    assert shapes == blocks | {f"lm_heads.{i}.weight": [61, 32] for i in range(4)}
    said = {"model_type": "medusa", "architectures": ["MedusaModel"], "hidden_size": 32, "vocab_size": 61}
    said |= {"num_heads": 4, "num_hidden_layers": 1, "medusa_fc_bias": True, "torch_dtype": "float32"}
    assert config == said
