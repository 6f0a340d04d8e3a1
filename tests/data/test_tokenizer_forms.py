"""Text becomes the ids that tokenizer.json says, whatever class is named: on loading, from an export, and elsewhere."""

import json
import os
import shutil
import subprocess

import jax
import pytest
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

from adaspec_jax import data, models
from adaspec_jax.config import Qwen2
from adaspec_jax.data import check_same_tokenizer, fingerprint, load_tokenizer, notes_on, opening
from adaspec_jax.data.tokenizer_files import load_by_class
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.pair import load_pair
from tests import tiny_pair
from tests.data import forms
from tests.running import some

TASKS = dict.fromkeys(("gsm8k", "mbpp", "cnn_dailymail", "xsum"), "test") | dict.fromkeys(
    ("alpaca", "tinystories"), "train"
)
STRANGE = [
    " It's 1234.5%",
    "e\u0301 \ufb01 \u2581x",
    "Hello   world ",
    "\n\n  a",
    "<s>hi</s> <|im_start|>x<|endoftext|>y",
    "",
]


@pytest.fixture(scope="module")
def texts(request):
    """200 rows of every task at hand, and what tokenizers trip over."""
    found = [*STRANGE, *forms.texts()[:40]]
    if os.environ.get("ADASPEC_DATA"):
        for task, split in TASKS.items():
            found += [e.prompt + e.answer for e in data.load_examples(task, split, num=200)]
    return found


@pytest.fixture
def directory(request, tmp_path, shared_data):
    form = request.param
    if form not in forms.REAL:
        return forms.write(form, tmp_path / "form")
    folder, model_type = forms.REAL[form]
    shutil.copytree(shared_data("tokenizers", folder), tmp_path / "form")
    (tmp_path / "form" / "config.json").write_text(json.dumps({"model_type": model_type}))
    return tmp_path / "form"


ALL = pytest.mark.parametrize("directory", [*forms.FORMS, *some(forms.REAL, "GPT-NeoX")], indirect=True)


def by_the_file(directory, texts):
    file = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return [encoding.ids for encoding in file.encode_batch(texts, add_special_tokens=False)]


@ALL
def test_ids_are_those_of_the_tokenizers_file(directory, texts):
    tokenizer = load_tokenizer(directory)
    expected = by_the_file(directory, texts)
    assert tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] == expected
    file = Tokenizer.from_file(str(directory / "tokenizer.json"))
    for ids in expected[:60]:
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == file.decode(ids, skip_special_tokens=False)


@ALL
def test_what_is_written_reads_the_same_and_is_the_file_that_was_read(directory, texts, tmp_path):
    tokenizer = load_tokenizer(directory)
    out = tmp_path / "out"
    out.mkdir()
    models.write_tokenizer(tokenizer, out)
    again = load_tokenizer(out)
    assert again(texts[:80])["input_ids"] == tokenizer(texts[:80])["input_ids"]
    assert fingerprint(again) == fingerprint(tokenizer)
    check_same_tokenizer(tokenizer, again)
    switched = "told not to begin" in str(notes_on(tokenizer)) or opening(tokenizer) != begun_by(directory)
    assert ((out / "tokenizer.json").read_bytes() == (directory / "tokenizer.json").read_bytes()) != switched
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(settings.get("extra_special_tokens"), list)


def begun_by(directory):
    file = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return file.encode("a").ids[: len(file.encode("a").ids) - len(file.encode("a", add_special_tokens=False).ids)]


@pytest.mark.parametrize(
    "form, begins", [("Llama without a post-processor", [1]), ("Llama told not to begin", []), ("Llama 2", [1])]
)
def test_begin_of_text_is_as_tokenizer_config_says_where_transformers_4_obeyed_it(form, begins, tmp_path):
    tokenizer = load_tokenizer(forms.write(form, tmp_path))
    assert opening(tokenizer) == begins and notes_on(tokenizer) == ()
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"add_eos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert load_tokenizer(tmp_path)("a")["input_ids"][-1] == 2


def test_special_tokens_that_only_the_class_names_are_named(tmp_path):
    """GPT-2's own tokenizer_config.json has nothing but a length."""
    forms.write("GPT-2", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.eos_token == tokenizer.bos_token == "<|endoftext|>" and tokenizer.eos_token_id == 0
    (tmp_path / "config.json").unlink()
    assert load_tokenizer(tmp_path).eos_token is None
    forms.write("CodeQwen", tmp_path)  # a model_type whose class would name tokens that are not there
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert load_tokenizer(tmp_path).eos_token is None


def test_a_begin_that_its_class_does_not_obey_is_said(tmp_path):
    forms.write("CodeQwen", tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": "<s>", "add_bos_token": True}))
    tokenizer = load_tokenizer(tmp_path)
    assert opening(tokenizer) == []
    (note,) = notes_on(tokenizer)
    assert note.startswith("tokenizer_config.json has add_bos_token, which the class PreTrainedTokenizer does not obey")


def test_a_tokenizer_trained_here_is_itself_beside_a_qwen2(tmp_path, texts):
    """Whose model_type makes transformers 5 build another pre-tokeniser."""
    trained = data.train_bpe(forms.texts(), vocab_size=600)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = models.build(Qwen2(vocab_size=600, num_key_value_heads=2, **sizes).hf_config(), jax.random.key(0))
    models.save(model, tmp_path, tokenizer=trained)
    again = load_tokenizer(tmp_path)
    assert again(texts)["input_ids"] == trained(texts)["input_ids"]
    check_same_tokenizer(trained, again)
    assert load_by_class(tmp_path)(texts)["input_ids"] != trained(texts)["input_ids"]  # what the doctor warns of


PART = {
    "normalizer": ("normaliser", normalizers.NFKC()),
    "pre_tokenizer": ("pre-tokeniser", pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False)])),
    "post_processor": ("post-processor", forms.begin("<|endoftext|>", 0)),
    "decoder": ("decoder", decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])),
}


@pytest.mark.parametrize("part", PART)
def test_every_part_is_compared_and_in_the_fingerprint(part):
    one, other = (data.train_bpe(forms.texts(), vocab_size=300) for _ in range(2))
    check_same_tokenizer(one, other)
    words, changed = PART[part]
    setattr(other.backend_tokenizer, part, changed)
    with pytest.raises(UserError, match=f"different tokenizers: the {words} is .* put the target's tokenizer.json"):
        check_same_tokenizer(one, other)
    assert fingerprint(one) != fingerprint(other)


def test_what_decides_nothing_is_not_compared(tmp_path):
    one = load_tokenizer(forms.write("GPT-2", tmp_path))
    written = json.loads((tmp_path / "tokenizer.json").read_text())
    assert written["post_processor"]["type"] == "ByteLevel"
    written |= {"post_processor": None, "padding": None}
    written["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [written["pre_tokenizer"] | {"trim_offsets": True}],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(written))
    other = load_tokenizer(tmp_path)
    check_same_tokenizer(one, other)
    assert fingerprint(one) == fingerprint(other)


def test_a_draft_may_know_more_tokens_at_the_end(tmp_path):
    one = load_tokenizer(forms.write("Llama 2", tmp_path / "one"))
    other = load_tokenizer(tmp_path / "one")
    other.add_special_tokens({"pad_token": "[PAD]"})
    check_same_tokenizer(one, other)
    with pytest.raises(UserError, match=r"token \d+ is '\[PAD\]' in one and absent in the other"):
        check_same_tokenizer(other, one)  # a target's own tokens occur in its text
    longer = data.train_bpe(forms.texts(), vocab_size=320)
    with pytest.raises(UserError, match="token 310 is absent"):
        check_same_tokenizer(data.train_bpe(forms.texts(), vocab_size=310), longer)  # no added ones


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {"type": "Unknown"}}', "\x00"])
def test_a_tokenizer_json_that_cannot_be_read_is_one_line(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="tokenizer.json is nothing that the tokenizers library can read") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "tokenizer_config.json").write_text("nothing")
    forms.FORMS["GPT-2"][0]().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="tokenizer_config.json is not valid JSON"):
        load_tokenizer(tmp_path)


IN_TRANSFORMERS_4 = """
import json, sys, transformers
assert transformers.__version__.startswith("4."), transformers.__version__
for line in sys.stdin:
    directory, texts, ids = json.loads(line)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    differing = [text for text, i in zip(texts, ids) if tokenizer(text)["input_ids"] != i]
    print(json.dumps([directory, len(texts), differing]))
"""


def test_a_drafts_tokenizer_that_cannot_be_read_is_no_missing_one(tmp_path):
    for seed, name in enumerate(("target", "draft")):
        tiny_pair.save(tmp_path / name, tiny_pair.LLAMA | {"vocab_size": 288}, seed=seed)
    (tmp_path / "draft" / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="draft/tokenizer.json is nothing that the tokenizers library can read"):
        load_pair(str(tmp_path / "target"), str(tmp_path / "draft"))


def test_transformers_4_reads_an_export_alike(tmp_path, texts, shared_weights):
    """ADASPEC_TRANSFORMERS4 is the Python of an environment of its own, with transformers 4.57."""
    python = os.environ.get("ADASPEC_TRANSFORMERS4") or pytest.skip("ADASPEC_TRANSFORMERS4 is not set")
    sources = [forms.write(form, tmp_path / form) for form in forms.FORMS] + [shared_weights("stories260K-hf")]
    (tmp_path / "trained").mkdir()
    models.write_tokenizer(data.train_bpe(forms.texts(), vocab_size=600), tmp_path / "trained")
    (tmp_path / "trained" / "config.json").write_text('{"model_type": "qwen2"}')
    sources.append(tmp_path / "trained")
    lines = []
    for number, source in enumerate(sources):
        tokenizer, out = load_tokenizer(source), tmp_path / f"out{number}"
        out.mkdir()
        models.write_tokenizer(tokenizer, out)
        shutil.copy(source / "config.json", out)
        lines.append(json.dumps([str(out), texts, tokenizer(texts, verbose=False)["input_ids"]]))
    ran = subprocess.run([python, "-c", IN_TRANSFORMERS_4], input="\n".join(lines), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(found) == len(sources) and all(count == len(texts) and not bad for _, count, bad in found)


def test_a_file_that_the_library_panics_on_is_one_line(tmp_path):
    """Found by `tests.faults.fuzz`: merges whose parts are shorter than the prefix that their model takes off."""
    spelt = tiny_pair.tokenizer().backend_tokenizer.to_str()
    file = json.loads(spelt)
    file["model"]["continuing_subword_prefix"] = "a" * 300
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(UserError, match=r"tokenizer.json is nothing that the tokenizers library can read"):
        load_tokenizer(tmp_path)
