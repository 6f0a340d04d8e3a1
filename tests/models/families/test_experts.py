"""Mixtures of experts beside transformers: every form on disk, gradients, refusals; and what is said of a file."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adaspec_jax import models
from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Sampling, generate
from adaspec_jax.errors import UserError
from adaspec_jax.models import CausalLM
from adaspec_jax.training.lora import attached, init_lora, merged

NAMES = ("mixtral", "qwen3_moe")
TOKENS_BT = np.random.default_rng(0).integers(0, 61, (2, 9))
call = jax.jit(CausalLM.__call__)


def equal(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a.params), jax.tree.leaves(b.params)))


@pytest.mark.parametrize("name", NAMES)
def test_fused_experts_are_those_that_have_a_tensor_each(torch_checkpoint, tmp_path, name):
    theirs, directory = torch_checkpoint(model_type=name)
    theirs.save_pretrained(tmp_path / "fused", save_original_format=False)
    assert len(load_file(tmp_path / "fused" / "model.safetensors")) < len(load_file(directory / "model.safetensors"))
    assert any(key.endswith("experts.gate_up_proj") for key in load_file(tmp_path / "fused" / "model.safetensors"))
    apart, fused = models.load(directory), models.load(tmp_path / "fused")
    assert apart.config == fused.config and equal(apart, fused)


def test_a_qwen_mixture_says_how_many_experts_it_has_as_transformers_4_and_5_look_for_them(torch_checkpoint, tmp_path):
    _, directory = torch_checkpoint(model_type="qwen3_moe")
    hf = json.loads((directory / "config.json").read_text())
    assert "num_local_experts" in hf and "num_experts" not in hf  # as transformers 5 writes
    models.save(models.load(directory), tmp_path / "ours")
    ours = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert ours["num_experts"] == ours["num_local_experts"] == 8


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_routers_and_experts_are_pytorchs(torch_checkpoint, name):
    import torch

    theirs, directory = torch_checkpoint(model_type=name)
    torch.sum(theirs(torch.tensor(TOKENS_BT)).logits ** 2).backward()
    gradient = jax.jit(jax.grad(lambda model: jnp.sum(model(TOKENS_BT)[0] ** 2)))(models.load(directory).stacked())
    for i, layer in enumerate(theirs.model.layers):
        ours = jax.tree.map(lambda x, i=i: np.asarray(x[i]), gradient.params["layers"]["mlp"])
        gate, up = np.split(layer.mlp.experts.gate_up_proj.grad.numpy(), 2, axis=1)
        down, router = layer.mlp.experts.down_proj.grad.numpy(), layer.mlp.gate.weight.grad.numpy()
        for mine, other in (
            *((ours["experts"][part], x.swapaxes(1, 2)) for part, x in {"gate": gate, "up": up, "down": down}.items()),
            (ours["router"]["kernel"], router.T),
        ):
            assert np.abs(other).max() > 1e-2
            assert np.abs(mine - other).max() <= 1e-4 * np.abs(other).max()


@pytest.mark.parametrize("name", NAMES)
def test_a_low_rank_update_is_one_of_attention_alone(tiny_of, name):
    base = tiny_of(name)
    adapters = init_lora(base, 2, jax.random.key(0))
    assert {part for layer in adapters.params.values() for part in layer} == {"attention"}
    noise = lambda x: 0.1 * jax.random.normal(jax.random.key(1), x.shape)  # noqa: E731
    adapters = models.CausalLM(jax.tree.map(noise, adapters.params), adapters.config)
    added, whole = call(attached(base, adapters), TOKENS_BT)[0], call(merged(base, adapters), TOKENS_BT)[0]
    np.testing.assert_allclose(added, whole, atol=1e-4)
    assert np.abs(added - call(base, TOKENS_BT)[0]).max() > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_greedy_speculation_with_a_dense_draft_writes_what_transformers_writes(torch_checkpoint, tiny_of, name):
    import torch

    theirs, directory = torch_checkpoint(model_type=name)
    theirs.generation_config.eos_token_id = None
    target, draft = models.load(directory), tiny_of("llama")
    prompts_BT = np.random.default_rng(0).integers(3, 61, (8, 7))
    asked = torch.tensor(prompts_BT)
    how = {"do_sample": False, "max_new_tokens": 24, "pad_token_id": 0}
    expected_BS = theirs.generate(asked, attention_mask=torch.ones_like(asked), **how).numpy()

    @partial(jax.jit, static_argnames="length")
    def decode(target, draft, prompts_BT, length):
        prompt = Context(prompts_BT, jnp.full(len(prompts_BT), 7))
        drafter = ChainDrafter(draft, length=length) if length else NoDraft()
        how = {"sampling": Sampling(temperature=0.0), "eos_id": -1, "max_new_tokens": 24}
        return generate(target, drafter, prompt, jax.random.key(0), **how)

    for rows, length in ((1, 0), (1, 3), (8, 0), (8, 3)):
        for guesser in (draft, target)[: 1 + bool(length)]:  # few guesses are right, and all are
            out = decode(target, guesser, prompts_BT[:rows], length)
            np.testing.assert_array_equal(out.tokens_BS[:, :31], expected_BS[:rows])


@pytest.mark.parametrize("products", [None, "bfloat16"])
def test_laid_out_for_decoding_experts_change_their_type_and_routers_nothing(tiny_of, products):
    model = tiny_of("qwen3_moe")
    laid = model.for_decoding(products, backend="cpu")
    mlp, before = laid.params["layers_0"]["mlp"], model.params["layers_0"]["mlp"]
    assert mlp["router"]["kernel"] is before["router"]["kernel"]
    assert {x.dtype for x in mlp["experts"].values()} == {jnp.dtype(products or "float32")}
    exact, rounded = call(model, TOKENS_BT)[0], call(laid, TOKENS_BT)[0]
    np.testing.assert_allclose(rounded, exact, atol=5e-5 if products is None else 0.1 * np.abs(exact).max())


def test_what_only_training_would_do_is_said(torch_checkpoint, edit_config, capsys):
    _, directory = torch_checkpoint(model_type="mixtral")
    capsys.readouterr()
    models.load(directory)
    assert "".join(capsys.readouterr()) == ""
    edit_config(directory, output_router_logits=True, router_jitter_noise=0.1)
    models.load(directory)
    said = capsys.readouterr()
    said = (said.out + said.err).splitlines()
    assert len(said) == 2 and '"output_router_logits" is true' in said[0] and '"router_jitter_noise" is 0.1' in said[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_an_unexpected_and_a_quantised_expert_are_named(tiny_of, tmp_path, edit_config, name):
    models.save(tiny_of(name), tmp_path)
    file, block, part = tmp_path / "model.safetensors", *{
        "mixtral": ("block_sparse_moe", "w2"), "qwen3_moe": ("mlp", "down_proj"),
    }[name]  # fmt: skip
    tensors = load_file(file)
    at = f"model.layers.1.{block}.experts.3.{part}.weight"
    other = at.replace("experts.3", "experts.99")
    save_file({other if key == at else key: tensor for key, tensor in tensors.items()}, file)
    with pytest.raises(UserError, match=rf"missing \(1\): {at}; unexpected \(1\): {other}"):
        models.load(tmp_path)
    save_file(tensors | {at: tensors[at].astype(np.int8)}, file)
    with pytest.raises(UserError, match=rf"not floating point \(1\): {at} I8"):
        models.load(tmp_path)
    save_file(tensors, file)
    edit_config(tmp_path, quantization_config={"quant_method": "fp8"})
    with pytest.raises(UserError, match=r"quant_method: fp8"):
        models.load(tmp_path)
    count = {"num_experts": 10**6, "num_local_experts": 10**6}
    edit_config(tmp_path, quantization_config=None, **count)
    with pytest.raises(UserError, match="2 layers of 1000000 experts there"):
        models.load(tmp_path)
