"""Every family beside its transformers class: the same logits, the same files, and mistakes named."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adaspec_jax import models
from adaspec_jax.devices import sharding
from adaspec_jax.errors import UserError
from adaspec_jax.models import CausalLM
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import FAMILIES, llama
from adaspec_jax.models.families.hf_config import positive_int

PORTED = ["codegen", "gpt2", "llama", "mixtral", "phi", "qwen2", "qwen3", "qwen3_moe"]
STRETCH = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
STRETCH |= {"original_max_position_embeddings": 64}  # so that a tiny model has slow, fast and interpolated waves
CASES = [
    ("codegen", {}),
    ("codegen", {"n_head": 4, "rotary_dim": 16, "n_inner": 40}),
    ("codegen", {"activation_function": "relu", "layer_norm_epsilon": 1e-2, "n_layer": 1}),
    ("gpt2", {}),
    ("gpt2", {"tie_word_embeddings": False, "n_inner": 40, "layer_norm_epsilon": 1e-2}),
    ("gpt2", {"activation_function": "relu", "n_head": 2, "n_positions": 14, "n_layer": 1}),
    ("phi", {}),
    ("phi", {"num_key_value_heads": 2, "partial_rotary_factor": 1.0, "rope_theta": 500.0}),
    ("phi", {"hidden_size": 80, "partial_rotary_factor": 0.4, "hidden_act": "gelu", "layer_norm_eps": 1e-2}),
    ("llama", {}),
    ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True, "rms_norm_eps": 1e-2}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1}),
    ("llama", {"head_dim": 16, "rope_scaling": STRETCH, "rope_theta": 500.0, "max_position_embeddings": 512}),
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True, "rope_theta": 1e6, "rms_norm_eps": 1e-2}),
    ("qwen2", {"num_key_value_heads": 4, "hidden_act": "gelu", "num_hidden_layers": 1}),
    ("qwen3", {}),
    ("qwen3", {"tie_word_embeddings": True, "head_dim": 8, "rms_norm_eps": 1e-2}),
    ("qwen3", {"attention_bias": True, "num_key_value_heads": 1, "rope_theta": 1e6}),
    ("mixtral", {}),
    ("mixtral", {"num_experts_per_tok": 1, "tie_word_embeddings": True, "rms_norm_eps": 1e-2}),
    ("mixtral", {"num_local_experts": 33, "num_experts_per_tok": 4, "head_dim": 16, "hidden_act": "gelu"}),
    ("qwen3_moe", {}),
    ("qwen3_moe", {"norm_topk_prob": False, "attention_bias": True, "num_experts_per_tok": 8}),
    ("qwen3_moe", {"norm_topk_prob": False, "num_experts": 64, "num_experts_per_tok": 1, "tie_word_embeddings": True}),
]
NAMES = [f"{name}-{','.join(map(str, keys.items())) or 'default'}"[:60] for name, keys in CASES]
TOKENS_BT = np.random.default_rng(0).integers(0, 61, (3, 14))
call = jax.jit(CausalLM.__call__)


@pytest.mark.parametrize(("name", "keys"), CASES, ids=NAMES)
def test_logits_equal_transformers_and_come_back_to_it_whole(torch_checkpoint, tmp_path, name, keys):
    theirs, directory = torch_checkpoint(model_type=name, **keys)
    import torch
    import transformers

    ours = models.load(directory)
    assert ours.num_params == sum(parameter.numel() for parameter in theirs.parameters())
    with torch.no_grad():
        expected = theirs(torch.tensor(TOKENS_BT)).logits
    assert float(expected.abs().max()) > 0.1
    difference = np.abs(np.asarray(ours(TOKENS_BT)[0]) - expected.numpy()).max()
    print(f"{name} {keys}: {difference:.2g} of {float(expected.abs().max()):.2g}")
    assert difference <= 1e-4

    models.save(ours, tmp_path / "ours")
    back, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    assert type(back) is type(theirs) and back.config.architectures == [type(theirs).__name__]
    with torch.no_grad():
        assert torch.equal(back.eval()(torch.tensor(TOKENS_BT)).logits, expected)
    written, given = (load_file(folder / "model.safetensors") for folder in (tmp_path / "ours", directory))
    assert sorted(written) == sorted(given)
    assert ("lm_head.weight" in written) != keys.get("tie_word_embeddings", name == "gpt2")
    assert all(np.array_equal(written[tensor], given[tensor]) for tensor in given)


@pytest.mark.parametrize(
    ("name", "keys"), [CASES[0], CASES[3], CASES[6], CASES[12]], ids=lambda x: x if isinstance(x, str) else ""
)
def test_logits_are_right_far_beyond_the_first_positions(torch_checkpoint, name, keys):
    theirs, directory = torch_checkpoint(model_type=name, **keys)
    import torch

    positions_BT = np.arange(90, 104)[None]
    with torch.no_grad():
        expected = theirs(torch.tensor(TOKENS_BT[:1]), position_ids=torch.tensor(positions_BT)).logits.numpy()
    logits, _ = models.load(directory)(TOKENS_BT[:1], positions_BT=positions_BT)
    assert np.abs(np.asarray(logits) - expected).max() <= 1e-3


def test_the_first_gpt2_checkpoints_have_no_prefix(tiny_of, tmp_path):
    model = tiny_of("gpt2")
    models.save(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "transformer.wpe.weight" in tensors
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    back = models.load(tmp_path)
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(back.params)))


def test_padding_past_the_last_learned_position_leaves_the_text_as_it_is(tiny_of):
    model = tiny_of("gpt2", n_positions=14)
    padded_BT = np.concatenate([TOKENS_BT, np.zeros((3, 6), np.int32)], axis=1)
    logits, _ = call(model, padded_BT)
    np.testing.assert_allclose(logits[:, :14], call(model, TOKENS_BT)[0], atol=5e-5)
    assert np.isfinite(logits).all()
    model.check_context(14, "the draft", "ask for fewer")
    with pytest.raises(UserError, match="the draft has a context of 14 tokens, and 15 are needed; ask for fewer"):
        model.check_context(15, "the draft", "ask for fewer")


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("phi", {"partial_rotary_factor": 0.25, "rope_theta": 700.0}),
        ("llama", {"rope_scaling": STRETCH, "rope_theta": 700.0}),
        ("qwen3", {"rope_theta": 700.0}),
    ],
)
def test_old_and_new_rope_forms_are_one_config(tiny_of, name, keys):
    old = tiny_of(name, **keys).config
    rope = {"rope_type": "default"} | keys.get("rope_scaling", {}) | keys
    rope.pop("rope_scaling", None)
    new = tiny_of(name, partial_rotary_factor=None, rope_parameters=rope).config
    assert old == new and hash(old) == hash(new) and new.rope_theta == 700.0
    assert (new.rope_scaling is not None) == (name == "llama")
    if name == "llama":  # as some configs spell it
        renamed = STRETCH | {"type": "llama3"}
        del renamed["rope_type"]
        assert tiny_of(name, rope_scaling=renamed, rope_theta=700.0).config == new


def test_waves_are_kept_slowed_or_interpolated_by_their_length():
    from adaspec_jax.models.rotary import Llama3Scaling

    frequencies_R = np.float32([1, 0.2, 0.01])  # waves of 6, 31 and 628 positions; all above 64 / 1 are slowed
    stretched_R = Llama3Scaling(8.0, 1.0, 4.0, 64)(frequencies_R)
    assert stretched_R.dtype == np.float32
    assert stretched_R[0] == frequencies_R[0] and stretched_R[2] == frequencies_R[2] / 8
    assert frequencies_R[1] / 8 < stretched_R[1] < frequencies_R[1]


@pytest.mark.parametrize("name", PORTED)
def test_reading_in_parts_equals_reading_at_once_and_a_tree_its_branches(tiny_of, name):
    model = tiny_of(name)
    expected, _ = call(model, TOKENS_BT)
    first, cache = call(model, TOKENS_BT[:, :8], model.init_cache(3, 20))
    rest, cache = call(model, TOKENS_BT[:, 8:], cache)
    np.testing.assert_allclose(np.concatenate([first, rest], axis=1), expected, atol=5e-5)

    # A fork after 8 tokens: node 0, then the branches 1-2 and 3.
    cache = cache.roll_back(np.array([8, 8, 8]))
    sees = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]], bool)
    mask_BTS = np.zeros((3, 4, 20), bool)
    mask_BTS[:, :, :8], mask_BTS[:, :, 8:12] = True, sees
    positions_BT = np.broadcast_to(8 + np.array([0, 1, 2, 1]), (3, 4))
    other_BT = np.where(np.arange(14) == 9, (TOKENS_BT + 7) % 61, TOKENS_BT)
    nodes_BN = np.concatenate([TOKENS_BT[:, 8:11], other_BT[:, 9:10]], axis=1)
    logits, _ = call(model, nodes_BN, cache, positions_BT=positions_BT, mask_BTS=mask_BTS)
    np.testing.assert_allclose(logits[:, :3], expected[:, 8:11], atol=5e-5)
    np.testing.assert_allclose(logits[:, 3], call(model, other_BT)[0][:, 9], atol=5e-5)


@pytest.mark.parametrize(("name", "keys"), CASES, ids=NAMES)
def test_save_then_load_gives_the_same_model_and_the_same_files(tiny_of, tmp_path, name, keys):
    model = tiny_of(name, **keys)
    models.save(model, tmp_path / "ours")
    back = models.load(tmp_path / "ours")
    assert back.config == model.config
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(back.params)))
    models.save(back, tmp_path / "again")
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"] == [FAMILIES[name].ARCHITECTURE]


@pytest.mark.parametrize(
    ("name", "buffer"),
    [
        ("codegen", "transformer.h.0.attn.causal_mask"),
        ("gpt2", "transformer.h.0.attn.bias"),
        ("phi", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("qwen2", "model.layers.0.self_attn.rotary_emb.inv_freq"),
    ],
)
def test_legacy_buffers_are_dropped_silently(tiny_of, tmp_path, name, buffer):
    model = tiny_of(name)
    models.save(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors") | {buffer: np.ones((1, 1, 8, 8), bool)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    back = models.load(tmp_path)
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(back.params)))


@pytest.mark.parametrize("name", PORTED)
def test_every_parameter_has_its_place_on_a_mesh(tiny_of, name):
    params = sharding.shard(tiny_of(name).params, sharding.make_mesh(1, 2, 2))
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        names = [key.key for key in path]
        whole = any("norm" in part for part in names) or names[-2:] in (
            ["head", "bias"],
            ["out", "bias"],
            ["down", "bias"],
        )
        assert leaf.sharding.is_fully_replicated == (whole or leaf.shape == (61,)), names


@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        ("codegen", {"n_head": 2}, "n_head 2 is not a multiple of 4"),
        ("codegen", {"n_embd": 62}, "n_embd 62 is not a multiple of n_head 8"),
        ("codegen", {"n_layer": None}, '"n_layer" is null'),
        ("codegen", {"rotary_dim": 10}, '"rotary_dim" has 10 of 8 features'),
        ("codegen", {"tie_word_embeddings": True}, '"tie_word_embeddings" is true, .* the head has a bias'),
        (
            "codegen",
            {"activation_function": "gelu_neu"},
            '"activation_function" .* "gelu_neu"; did you mean "gelu_new"',
        ),
        ("gpt2", {"scale_attn_weights": False}, '"scale_attn_weights" is false'),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, '"scale_attn_by_inverse_layer_idx" is true'),
        ("phi", {"qk_layernorm": True}, '"qk_layernorm" is true'),
        ("phi", {"qk_layernorm": "no"}, "\"qk_layernorm\" is 'no'; true or false"),
        ("phi", {"partial_rotary_factor": 1.5}, '"partial_rotary_factor" is 1.5'),
        ("phi", {"rope_scaling": {"type": "bent", "factor": 2.0}}, 'rope type "bent" in "rope_scaling"'),
        ("phi3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, 'rope type "linear" .* only "default" and "long'),
        ("phi", {"layer_norm_eps": "small"}, "\"layer_norm_eps\" is 'small'; a number"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 0.5}}, '"factor" is 0.5; a number from 1'),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, '"low_freq_factor" is missing'),
        ("llama", {"rope_scaling": STRETCH | {"high_freq_factor": 0.5}}, '"low_freq_factor" 1.0 must be below'),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, '"full_attention"'),
        ("llama", {"partial_rotary_factor": 0.5}, '"partial_rotary_factor"'),
        ("llama", {"num_key_value_heads": 3}, '4 heads are not a multiple of "num_key_value_heads" 3'),
        ("llama", {"hidden_act": "silo"}, '"hidden_act" .* "silo"; did you mean "silu"'),
        ("llama", {"head_dim": 0}, '"head_dim" is 0'),
        ("qwen2", {"use_mrope": True}, '"use_mrope" is true'),
        ("qwen3", {"layer_types": ["full_attention", "conv"]}, '"layer_types" has "conv"'),
        ("mixtral", {"sliding_window": 0}, '"sliding_window" is 0'),
        ("mixtral", {"router_jitter_noise": "much"}, "\"router_jitter_noise\" is 'much'"),
        ("mixtral", {"num_local_experts": 0}, '"num_local_experts" is 0'),
        ("mixtral", {"num_experts_per_tok": 5}, '"num_experts_per_tok" 5 is more than the 4 experts'),
        ("mixtral", {"num_experts": 8}, '"num_experts" 8 and "num_local_experts" 4 are to be one number'),
        ("qwen3_moe", {"decoder_sparse_step": 2}, '"decoder_sparse_step" is 2; only 1'),
        ("qwen3_moe", {"mlp_only_layers": [1]}, '"mlp_only_layers" has 1; layers without experts'),
        ("qwen3_moe", {"mlp_only_layers": "first"}, '"mlp_only_layers" is .first.; a list'),
        ("llama4", {}, 'model_type "llama4" is not supported; .* did you mean "llama"'),
    ],
)
def test_an_unusable_config_is_one_line_that_names_the_key(tiny_of, name, keys, words):
    with pytest.raises(UserError, match=words) as error:
        tiny_of(name, **keys)
    assert "\n" not in str(error.value)


def test_a_new_family_is_one_entry(monkeypatch, tiny_of, tmp_path):
    def config(hf):
        return DecoderConfig(
            "toy", positive_int(hf, "vocab_size"), 32, 56, 2, 4, 2, 8, norm="rms", parallel_residual=True,
            shared_norm=True, mlp="gated", activation="relu", rotary_dim=4, rotary_interleaved=True, qk_norm=True,
            mlp_bias=False,
        )  # fmt: skip

    def table(config):
        return [row for row in llama.table(config) if "post_attention" not in row.name]

    toy = SimpleNamespace(ARCHITECTURE="ToyForCausalLM", IGNORED=llama.IGNORED, config=config, table=table)
    monkeypatch.setitem(FAMILIES, "toy", toy)
    model = tiny_of("toy")
    models.save(model, tmp_path)
    np.testing.assert_array_equal(models.load(tmp_path)(TOKENS_BT)[0], model(TOKENS_BT)[0])
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["ToyForCausalLM"]
