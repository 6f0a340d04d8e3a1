"""Text ends where `model.generate` of transformers ends it, in every family, alone and inside an accepted block."""

import json

import jax
import numpy as np
import pytest

from adaspec_jax import data, models
from adaspec_jax.decoding import GUESS, ChainDrafter, Context, NoDraft, Sampling, generate
from adaspec_jax.errors import UserError
from adaspec_jax.generation_config import asked
from adaspec_jax.measuring.pair import load_given, notes_on
from tests import tiny_pair
from tests.running import command_line

VOCAB, NEW = 288, 24
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 128, "num_key_value_heads": 2}
OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
FAMILIES = dict.fromkeys(("gpt_neox", "llama", "phi", "qwen2", "qwen3"), SIZES) | {"gpt2": OLD, "codegen": OLD}
FAMILIES |= {"codegen": OLD | {"rotary_dim": 4}, "qwen3": SIZES | {"head_dim": 8}}
FAMILIES |= dict.fromkeys(("granite", "olmo2", "smollm3"), SIZES)
FAMILIES |= dict.fromkeys(("gemma", "gemma2", "gemma3_text", "ministral"), SIZES | {"head_dim": 8, "sliding_window": 8})
FAMILIES |= dict.fromkeys(("mistral", "phi3"), SIZES | {"sliding_window": 8})
FAMILIES["mixtral"] = SIZES | {"num_local_experts": 4}
FAMILIES["qwen3_moe"] = SIZES | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
# name -> (config.json's eos_token_id, generation_config.json): X is what the model comes to say, 269 what it never says
FORMS = {
    "Qwen2.5-Instruct: one id, and two": (269, {"eos_token_id": [269, "X"]}),
    "Llama-3.1-Instruct: both lists": (["X", 269], {"eos_token_id": ["X", 269]}),
    "a list in config.json alone": ([269, "X"], None),
    "an id in config.json alone": ("X", None),
    "another in generation_config.json": ("X", {"eos_token_id": 269}),
    "none in generation_config.json": ("X", {"temperature": 1.0}),
}


def filled(value, x):
    if isinstance(value, dict):
        return {key: filled(entry, x) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [filled(entry, x) for entry in value]
    return x if value == "X" else value


class Pair:
    """A random target and draft of a family, as transformers saves them, and what transformers makes of prompts."""

    def __init__(self, family, root):
        torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
        self.torch, self.load = torch, transformers.AutoModelForCausalLM.from_pretrained
        self.root, self.tokenizer = root, tiny_pair.tokenizer()
        keys = {"vocab_size": VOCAB, "bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": False}
        keys["pad_token_id"] = None  # some classes have one beyond so few rows
        for seed, name in enumerate(("target", "draft")):
            torch.manual_seed(0)
            config = transformers.AutoConfig.for_model(family, **keys | FAMILIES[family])
            model = transformers.AutoModelForCausalLM.from_config(config)
            with torch.no_grad():
                for p in model.parameters():
                    p.copy_(0.3 * torch.randn(p.shape) + (p.ndim == 1))
                torch.manual_seed(seed)  # the draft is the target but for noise
                for p in model.parameters():
                    p.add_(0.02 * seed * torch.randn(p.shape))
            model.save_pretrained(root / name)
            models.write_tokenizer(self.tokenizer, root / name)
        self.prompts = [self.tokenizer(text)["input_ids"] for text in tiny_pair.TEXTS[:8]]
        self.endless = self.answers(eos_token_id=None)

    def edit(self, config, generation):
        for name in ("target", "draft"):
            file = self.root / name / "config.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": config}))
            (self.root / name / "generation_config.json").unlink(missing_ok=True)
            if generation is not None:
                (self.root / name / "generation_config.json").write_text(json.dumps(generation))

    def answers(self, assisted=False, **knobs):
        target = self.load(self.root / "target").eval()
        knobs |= {"assistant_model": self.load(self.root / "draft").eval()} if assisted else {}
        found = []
        for prompt in self.prompts:
            tokens = self.torch.tensor([prompt])
            given = {"attention_mask": self.torch.ones_like(tokens), "pad_token_id": 0, "do_sample": False, **knobs}
            found.append(target.generate(tokens, max_new_tokens=NEW, **given)[0, len(prompt) :].tolist())
        return found

    def ours(self, rows, drafter):
        """The answers to the first prompts, and the generation."""
        given, ends = load_given(str(self.root / "target"), [str(self.root / "draft")], draft_length=4)
        prompts = self.prompts[:rows]
        tokens = np.zeros((rows, max(map(len, prompts))), np.int32)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt)] = prompt
        context = Context(tokens, np.asarray([len(prompt) for prompt in prompts]))
        drafter = ChainDrafter(given.draft, length=4) if drafter else NoDraft()
        knobs = {"max_new_tokens": NEW, "sampling": Sampling(0.0), "eos_id": ends}
        made = jax.device_get(generate(given.target, drafter, context, jax.random.key(0), **knobs))
        return [made.tokens_BS[b, len(p) : made.lengths_B[b]].tolist() for b, p in enumerate(prompts)], made


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    return Pair(request.param, tmp_path_factory.mktemp(request.param))


ONE = "Qwen2.5-Instruct: one id, and two"
QUICK = [("llama", form) for form in FORMS] + [("gpt_neox", ONE)]
REST = [(family, form) for family in FAMILIES for form in FORMS if (family, form) not in QUICK]
GRID = [*QUICK, *(pytest.param(*which, marks=pytest.mark.slow) for which in REST)]


@pytest.mark.parametrize("pair, form", GRID, indirect=["pair"])
def test_text_ends_where_transformers_ends_it(pair, form):
    x = pair.endless[0][6]
    pair.edit(*filled(FORMS[form], x))
    expected = pair.answers()
    assert (x in expected[0]) and (len(expected[0]) <= 7) == (form not in list(FORMS)[-2:])
    for drafter in (False, True):
        assert pair.ours(8, drafter)[0] == expected
    assert pair.answers(assisted=True) == expected


SOME = ["llama", *(pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES if family != "llama")]


@pytest.mark.parametrize("pair", SOME, indirect=True)
def test_an_end_may_stand_inside_an_accepted_block(pair):
    """With the target as its own draft every guess is accepted: a guess that ends the text is the last token."""
    pair.edit(None, {"eos_token_id": None})
    inside = set()
    for at in (1, 2, 3, 4):
        x = pair.endless[0][at]
        pair.edit(*filled(FORMS[ONE], x))
        given, ends = load_given(str(pair.root / "target"), [str(pair.root / "target")])
        prompt = pair.prompts[0]
        context = Context(np.asarray([prompt]), np.asarray([len(prompt)]))
        knobs = {"max_new_tokens": NEW, "sampling": Sampling(0.0), "eos_id": ends}
        made = jax.device_get(generate(given.target, ChainDrafter(given.draft, 4), context, jax.random.key(0), **knobs))
        tokens = made.tokens_BS[0, len(prompt) : made.lengths_B[0]].tolist()
        assert tokens == pair.answers()[0]
        inside |= {bool(made.origin_BS[0, made.lengths_B[0] - 1] == GUESS)}
        assert int(made.judged_BN.sum()) <= len(tokens)
    assert True in inside


@pytest.mark.parametrize("pair", SOME, indirect=True)
def test_a_batch_of_one_ends_alike(pair):
    for form in FORMS:
        pair.edit(*filled(FORMS[form], pair.endless[0][6]))
        for drafter in (False, True):
            assert pair.ours(1, drafter)[0] == pair.answers()[:1]


def test_the_tokenizers_end_counts_where_no_file_names_one(tmp_path):
    tiny_pair.save(tmp_path, tiny_pair.LLAMA | {"vocab_size": VOCAB, "eos_token_id": None})
    assert load_given(str(tmp_path), [])[1] == (0,)
    (tmp_path / "generation_config.json").unlink()
    assert load_given(str(tmp_path), [])[1] == (0,)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    root = tmp_path_factory.mktemp("bare")
    tiny_pair.save(root, tiny_pair.LLAMA | {"vocab_size": VOCAB})
    return root


def test_ends_and_all_else_that_is_asked_survive_a_save(tmp_path):
    tiny_pair.save(tmp_path / "one", tiny_pair.LLAMA | {"vocab_size": VOCAB})
    asks = {"eos_token_id": [5, 0], "do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.05}
    (tmp_path / "one" / "generation_config.json").write_text(json.dumps(asks))
    model = models.load(tmp_path / "one")
    models.save(model, tmp_path / "two", generation={"num_assistant_tokens": 3})
    kept = json.loads((tmp_path / "two" / "generation_config.json").read_text())
    assert kept == asks | {"num_assistant_tokens": 3}
    found = models.asked_of(models.load(tmp_path / "two"))
    assert found.ends == (5, 0) and not found.lacking
    assert found.sampling == {"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.05}
    assert models.asked_by(str(tmp_path / "two")) == found


def test_what_is_asked_and_not_to_be_had_is_said(tmp_path, capsys, monkeypatch):
    tiny_pair.save(tmp_path, tiny_pair.LLAMA | {"vocab_size": VOCAB})
    asks = {"eos_token_id": 0, "do_sample": True, "temperature": 0.6, "min_p": 0.1, "suppress_tokens": [3, 4]}
    asks |= {"sequence_bias": [[[7], -2.0]], "min_new_tokens": 2, "typical_p": 0.9}
    (tmp_path / "generation_config.json").write_text(json.dumps(asks))
    arguments = ["--target", tmp_path, "--prompt", "Tom", "--max_new_tokens", 4]
    status, _, errors = command_line(capsys, monkeypatch, "generate", *arguments)
    flags = "--temperature 0.6 --min_p 0.1 --suppress_tokens 3,4 --logit_bias 7=-2"
    assert status == 0 and f"note: generation_config.json asks for {flags}: given so it is done" in errors
    assert "asks for min_new_tokens 2, typical_p 0.9, which is not to be had here" in errors
    status, _, errors = command_line(capsys, monkeypatch, "generate", *arguments, *flags.split())
    assert status == 0, errors
    neutral = asks | {"min_p": 0.0, "suppress_tokens": [], "temperature": 1.0, "repetition_penalty": 1.0}
    neutral |= {"sequence_bias": None, "min_new_tokens": 0, "typical_p": 1.0}
    (tmp_path / "generation_config.json").write_text(json.dumps(neutral))
    assert notes_on(load_given(str(tmp_path), [])[0]) == []


def test_min_p_is_nothing_to_a_model_that_is_not_sampled():
    found = asked({}, {"min_p": 0.1, "temperature": 0.5, "repetition_penalty": 1.2})
    assert found.lacking == {} and found.sampling == {"repetition_penalty": 1.2}


def test_a_bias_of_longer_sequences_is_not_to_be_had():
    bias = [[[3], 1.0], [[3, 4], 2.0]]
    assert asked({}, {"sequence_bias": bias}).lacking == {"sequence_bias": bias}


@pytest.mark.parametrize(
    "flags, says",
    [
        ("--logit_bias 3", "--logit_bias is 3; give ids with what is added to each"),
        ("--logit_bias 3=1,3=2", "give each id once"),
        ('--logit_bias {"a":1}', "--logit_bias is"),
        ("--logit_bias 999=1", "--logit_bias names token 999; the vocabulary has ids below"),
        ("--suppress_tokens 1,x", "--suppress_tokens is 1,x; give ids with commas"),
        ("--repetition_penalty 0", "--repetition_penalty is 0; it must be above 0"),
        ("--min_p 2", "--min_p is 2; it must be at most 1"),
    ],
)
def test_a_processor_that_makes_no_law_is_one_line(bare, capsys, monkeypatch, flags, says):
    arguments = ["--target", bare, "--prompt", "Tom", "--max_new_tokens", 4]
    status, _, errors = command_line(capsys, monkeypatch, "generate", *arguments, *flags.split())
    assert (status, errors.count("\n")) == (2, 1) and says in errors


@pytest.mark.parametrize("value", ["<eos>", -1, VOCAB, [0, VOCAB], True, 1.5, [[0]], {"id": 0}])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_what_is_no_end_is_one_line_with_file_and_key(tmp_path, file, value):
    tiny_pair.save(tmp_path, tiny_pair.LLAMA | {"vocab_size": VOCAB})
    content = json.loads((tmp_path / file).read_text()) | {"eos_token_id": value}
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=f'{file}: "eos_token_id" is ') as error:
        load_given(str(tmp_path), [])
    assert "\n" not in str(error.value)


def test_a_generation_config_that_is_no_json_is_one_line(tmp_path):
    tiny_pair.save(tmp_path, tiny_pair.LLAMA | {"vocab_size": VOCAB})
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(UserError, match="generation_config.json is not valid JSON"):
        load_given(str(tmp_path), [])


def test_rows_that_no_token_owns_are_ruled_out_of_what_was_trained_here(tmp_path):
    model = tiny_pair.save(tmp_path, tiny_pair.LLAMA | {"vocab_size": VOCAB})
    owned = lambda: load_given(str(tmp_path), [])[0].target.config.num_tokens  # noqa: E731
    assert owned() == VOCAB  # somebody else's: transformers rules out none
    (tmp_path / "stage.json").write_text("{}")
    assert owned() == tiny_pair.TOKENS  # a run's stage, also one of before
    (tmp_path / "stage.json").unlink()
    models.save(model.with_vocabulary(tiny_pair.TOKENS), tmp_path)
    assert owned() == tiny_pair.TOKENS  # said in its config.json


def test_reports_of_before_name_one_end():
    assert data.Ends.of_record(7) == (7,) and data.Ends.of_record(7).closing == 7
    several = data.Ends((3, 7), 7)
    assert several.recorded == [7, 3] and data.Ends.of_record(several.recorded).closing == 7
    never = data.Ends.of_record(-1)
    assert never == (-1,) and never.ids == () and never.recorded == -1
