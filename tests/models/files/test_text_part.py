"""Of a checkpoint of text and images the text part is taken and said; others are refused by name."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adaspec_jax import models
from adaspec_jax.config import Gemma3Text, architecture_of
from adaspec_jax.errors import UserError
from adaspec_jax.text_part import text_part
from tests.models.conftest import TINY_OF

TOKENS_BT = np.arange(2 * 12).reshape(2, 12) % 61
UNSAID = {
    "model_type": "gemma3",
    "text_config": {"hidden_size": 2560, "num_hidden_layers": 34},
    "eos_token_id": [1, 106],
}
UNSAID["text_config"] |= {"intermediate_size": 10240, "model_type": "gemma3_text", "sliding_window": 1024}
UNSAID["text_config"]["rope_scaling"] = {"factor": 8.0, "rope_type": "linear"}


@pytest.fixture
def theirs(tmp_path):
    """(transformers' model of text and images, its directory)."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    images = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    images |= {"image_size": 28, "patch_size": 14}
    text = {key: value for key, value in TINY_OF["gemma3_text"].items() if key != "model_type"}
    config = transformers.Gemma3Config(text_config=text, vision_config=images, mm_tokens_per_image=1)
    config.image_token_index = config.image_token_id = 60
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "theirs")
    return model, tmp_path / "theirs"


def logits_of(model):
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor(TOKENS_BT)).logits.numpy()


OLD = {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head."}


@pytest.mark.parametrize("old", [False, True], ids=["transformers 5", "transformers 4"])
def test_the_text_part_of_gemma_3_is_loaded_said_and_saved_as_a_model_of_text(theirs, tmp_path, capsys, old):
    import transformers

    model, directory = theirs
    file = directory / "model.safetensors"
    tensors = load_file(file)
    named = any(name.startswith("model.language_model.") for name in tensors)
    if old == named:  # as the other generation writes it
        table = OLD if old else {there: here for here, there in OLD.items()}
        for here, there in [*table.items(), *({} if not old else {"model.vision_tower.": "vision_tower."}).items()]:
            tensors = {there + k.removeprefix(here) if k.startswith(here) else k: v for k, v in tensors.items()}
        save_file(tensors, file, metadata={"format": "pt"})
    ours = models.load(directory)
    assert "of text and images; its text part is read, as gemma3_text" in "".join(capsys.readouterr())
    expected = logits_of(model)
    np.testing.assert_allclose(ours(jnp.array(TOKENS_BT))[0], expected, atol=1e-4)
    models.save(ours, tmp_path / "out")
    hf = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (
        hf["model_type"] == "gemma3_text" and hf["architectures"] == ["Gemma3ForCausalLM"] and "vision_config" not in hf
    )
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    np.testing.assert_allclose(logits_of(again), expected, atol=1e-4)


def test_what_the_published_text_part_leaves_to_its_class_is_filled_in():
    """As the config.json of Gemma 3 4B, which names neither its vocabulary nor its heads."""
    ours = architecture_of(UNSAID)
    assert isinstance(ours, Gemma3Text) and (ours.vocab_size, ours.num_attention_heads, ours.head_dim) == (
        262208,
        8,
        256,
    )
    assert ours.rope_scaling.factor == 8.0 and ours.max_position_embeddings == 131072
    part = text_part(UNSAID)
    assert models.config_from_hf(part | {"eos_token_id": None}) == models.config_from_hf(ours.hf_config())
    assert part["eos_token_id"] == [1, 106]


@pytest.mark.parametrize(
    ("hf", "says"),
    [
        (
            {"model_type": "mistral3"},
            'model_type "mistral3" is a checkpoint of text and images, of which no part is read',
        ),
        ({"model_type": "qwen2_vl", "vocab_size": 9}, "qwen2_vl"),
        ({"model_type": "phi4_multimodal"}, "of text, images and sound"),
        (
            {"model_type": "llama4", "text_config": {}, "vision_config": {}},
            '"llama4" is a checkpoint of text and images',
        ),
        ({"model_type": "newest", "text_config": {}, "audio_config": {}}, '"newest" is a checkpoint of text and sound'),
        ({"model_type": "whisper"}, '"whisper" is a model of sound without text'),
        ({"model_type": "newest_vit", "vision_config": {}}, '"newest_vit" is a model of images without text'),
        ({"model_type": "gemma3"}, 'model_type "gemma3", of text and images, has no "text_config"'),
        (UNSAID | {"quantization_config": {"quant_method": "awq"}}, "quantised (quant_method: awq)"),
    ],
)
def test_other_checkpoints_are_refused_by_name(hf, says, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(hf))
    with pytest.raises(UserError) as error:
        models.load(tmp_path)
    assert says in str(error.value) and str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    if "quantization_config" not in hf:
        with pytest.raises(UserError, match="x: model_type"):
            architecture_of(hf, origin="x")


def test_a_model_of_text_is_what_it_was():
    for name, hf in TINY_OF.items():
        assert text_part(hf) == hf, name
