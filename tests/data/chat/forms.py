"""Chat templates in the forms of the families here, conversations made for them, and tokenizers with their marks.

Each file of templates/ has the marks {% generation %} around what the assistant writes, which stock templates lack:
`stock` leaves them out, and transformers' own mask by the marked one says what the labels of the stock one must be.
"""

import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from adaspec_jax import data

_IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_HEADERS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
# name -> (special tokens, begin, end, whether it takes tools)
FORMS = {
    "chatml": (_IM, None, "<|im_end|>", True),
    "qwen3": (_IM, None, "<|im_end|>", True),
    "llama2": (["<s>", "</s>"], "<s>", "</s>", False),
    "llama3": (_HEADERS, "<|begin_of_text|>", "<|eot_id|>", True),
    "phi": (["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"], None, "<|endoftext|>", False),
    "neox": (["<|endoftext|>", "<|prompter|>", "<|assistant|>", "<|system|>"], None, "<|endoftext|>", False),
}


def template(name):
    return Path(__file__).with_name("templates").joinpath(f"{name}.jinja").read_text().rstrip("\n")


def stock(marked):
    """Without generation marks, as templates are shipped."""
    return marked.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def tokenizer_of(name, *, marks=False):
    special, begin, end, _ = FORMS[name]
    marked = template(name)
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    settings = {"initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet()), "show_progress": False}
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, **settings)
    made.train_from_iterator([text for turn in conversations(20) for text in turn.texts], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=begin,
        eos_token=end,
        chat_template=marked if marks else stock(marked),
        clean_up_tokenization_spaces=False,
    )


def ends_of(tokenizer, name):
    """What closes a turn: in Phi's form not what ends text; its generation_config.json names both."""
    return {tokenizer.convert_tokens_to_ids("<|end|>") if name == "phi" else tokenizer.eos_token_id}


_WORDS = [*"Tom has 3 apples and buys 14 more. How many are left?".split()]
_WORDS += ["caf\u00e9 \u6f22\u5b57", "\U0001f600\U0001f680", "don't\nlist:\n- a\n", "  two", "\n\nB."]
_TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}},
    },
}


def conversations(number, *, tools=False, reasoning=False, seed=0):
    """Of one to eight turns of user and assistant, with a system turn, tools and reasoning in some."""
    rng = random.Random(seed)

    def words():
        return " ".join(rng.choices(_WORDS, k=rng.randint(1, 12))).strip() or "Yes."

    rows = []
    for row in range(number):
        turns = [{"role": "system", "content": words()}] if rng.random() < 0.4 else []
        offered = tools and rng.random() < 0.3
        for _ in range(1 + row % 8):
            turns.append({"role": "user", "content": words()})
            if offered and rng.random() < 0.5:
                call = {"name": "add", "arguments": {"a": rng.randint(0, 9), "b": words()}}
                calls = [{"type": "function", "function": call}]
                turns.append({"role": "assistant", "content": None, "tool_calls": calls})
                turns.append({"role": "tool", "content": words()})
            answer = {"role": "assistant", "content": words()}
            if reasoning and (way := rng.randrange(3)):
                thought = words()
                beside, inside = {"reasoning_content": thought}, f"<think>\n{thought}\n</think>\n\n{answer['content']}"
                answer |= beside if way == 1 else {"content": inside}
            turns.append(answer)
        rows.append({"messages": turns} | ({"tools": [_TOOL]} if offered else {}))
    return [data.chat.read_row(row, f"made row {n}") for n, row in enumerate(rows, 1)]
