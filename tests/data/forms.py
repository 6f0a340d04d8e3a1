"""Tokenizers in the forms real models have: parts as in the real files, vocabularies cut to a toy's."""

import functools
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from adaspec_jax import data

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_META = "\u2581"
_EXTRA = [
    "caf\u00e9 na\u00efve \u00e9t\u00e9 \u6f22\u5b57",
    "def f(x):\n    return  x[0]\t# tab",
    "don't 1234.5% HE'LL\r\n",
]


@functools.cache
def texts():
    return (*(e.prompt + e.answer for e in data.load_examples("word_problems", num=200)), *(5 * _EXTRA))


def _bytes(**settings):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, **settings)


def _byte_level(pre_tokenizer, special, *, normalizer=None, after=None, **bpe):
    made = Tokenizer(models.BPE(**bpe))
    if normalizer is not None:
        made.normalizer = normalizer
    made.pre_tokenizer, made.decoder = pre_tokenizer, decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts(), trainer)
    made.post_processor = after or processors.ByteLevel(trim_offsets=False)
    return made


def _sentencepiece(*, begins):
    made = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend(_META), normalizers.Replace(" ", _META)])
    special = ["<unk>", "<s>", "</s>"]
    codes = [f"<0x{code:02X}>" for code in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=special + codes, show_progress=False)
    made.train_from_iterator(texts(), trainer)
    written = json.loads(made.to_str())
    written["added_tokens"] = [token for token in written["added_tokens"] if token["content"] in special]
    made = Tokenizer.from_str(json.dumps(written))
    steps = [decoders.Replace(_META, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    if begins:
        made.post_processor = begin("<s>", 1)
    return made


def begin(token, token_id):
    pair = f"{token} $A {token} $B"
    return processors.TemplateProcessing(single=f"{token} $A", pair=pair, special_tokens=[(token, token_id)])


def _deepseek():
    patterns = ["[\r\n]", r"\s?[A-Za-z\u00b5\u00c0-\u00d6]+", r"\s?[!-/:-~]+", r"\s+$", "[\u4e00-\u9fa5]+"]
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    steps = [*splits, pre_tokenizers.Digits(individual_digits=True), _bytes(use_regex=False)]
    special = [AddedToken("<|begin|>", normalized=True), AddedToken("<|end|>", normalized=True)]
    before = {"normalizer": normalizers.Sequence([]), "after": begin("<|begin|>", 0)}
    return _byte_level(pre_tokenizers.Sequence(steps), special, **before)


def _split(digits):
    pattern = pre_tokenizers.Split(Regex(_WORDS % digits), "isolated")
    return pre_tokenizers.Sequence([pattern, _bytes(use_regex=False)])


def _llama3():
    after = processors.Sequence([processors.ByteLevel(trim_offsets=False), begin("<|begin_of_text|>", 0)])
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    return _byte_level(_split("{1,3}"), special, after=after, ignore_merges=True)


_CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_SINGLE_DIGITS = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _bytes()])
_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
# name -> (tokenizer, tokenizer_config.json, config.json's model_type)
FORMS = {
    "GPT-2": (
        lambda: _byte_level(_bytes(), ["<|endoftext|>"]),
        {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>", "add_prefix_space": False},
        "gpt2",
    ),
    "Llama 2": (
        lambda: _sentencepiece(begins=True),
        _LLAMA | {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": False},
        "llama",
    ),
    "Llama 3": (
        _llama3,
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
            "clean_up_tokenization_spaces": True,
        },
        "llama",
    ),
    "Qwen2": (
        lambda: _byte_level(_split(""), _CHAT, normalizer=normalizers.NFC()),
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "add_bos_token": False,
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
            "errors": "replace",
        },
        "qwen2",
    ),
    "CodeQwen": (
        lambda: _sentencepiece(begins=False),
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": "<unk>"},
        "qwen2",
    ),
    "SmolLM2": (
        lambda: _byte_level(_SINGLE_DIGITS, _CHAT),
        {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
        "llama",
    ),
    "DeepSeek": (
        _deepseek,
        {
            "tokenizer_class": "LlamaTokenizerFast",
            "bos_token": {"__type": "AddedToken", "content": "<|begin|>", "normalized": True},
            "eos_token": {"__type": "AddedToken", "content": "<|end|>", "normalized": True},
            "add_bos_token": True,
            "add_eos_token": False,
        },
        "llama",
    ),
    "begins with a space": (
        lambda: _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), ["<|endoftext|>"]),
        {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"},
        "gpt2",
    ),
    "Llama without a post-processor": (
        lambda: _sentencepiece(begins=False),
        _LLAMA | {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True},
        "llama",
    ),
    "Llama told not to begin": (
        lambda: _sentencepiece(begins=True),
        _LLAMA | {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False},
        "llama",
    ),
}
REAL = {"GPT-NeoX": ("gpt_neox_20b", "gpt_neox"), "CodeGen": ("codegen", "codegen")}


@functools.cache
def _trained(form):
    """Its tokenizer.json, trained once for all tests."""
    return FORMS[form][0]().to_str(pretty=True)


def write(form, directory):
    """The form's three files."""
    _, settings, model_type = FORMS[form]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(_trained(form))
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    return directory
