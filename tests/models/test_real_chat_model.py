"""A real chat model of thirty layers answers as in transformers, token for token, turn by turn."""

import json

import numpy as np
import pytest

from adaspec_jax import data, methods
from adaspec_jax.measuring.pair import load_given
from adaspec_jax.measuring.talk import Talk

pytestmark = pytest.mark.slow
NEW = 32


def test_twelve_conversations_equal_transformers_chat(shared_weights, shared_data):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    directory = shared_weights("SmolLM2-135M-Instruct")
    given, ends = load_given(str(directory), [])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    talks = data.load_examples("chat", path=shared_data("spec_bench", "question.jsonl.gz"), num=12)
    template = data.chat.template_of(given.tokenizer)
    for questions in talks:
        talk, turns = Talk(given, methods.find("plain"), template, ends, max_new_tokens=NEW), []
        for question in questions.messages[:2]:
            turns.append(dict(question))
            asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")["input_ids"]
            made = theirs.generate(asked, attention_mask=torch.ones_like(asked), max_new_tokens=NEW, do_sample=False)
            expected = made[0, asked.shape[1] :].tolist()
            answer = talk.say(question["content"])
            start = int(answer.made.lengths_B[0]) - answer.new_tokens
            np.testing.assert_array_equal(answer.made.tokens_BS[0, :start], asked[0].numpy())
            assert answer.made.tokens_BS[0, start : start + answer.new_tokens].tolist() == expected
            turns.append({"role": "assistant", "content": tokenizer.decode(expected, skip_special_tokens=True)})
        assert talk.messages == json.loads(json.dumps(turns))
