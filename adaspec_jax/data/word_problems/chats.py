"""Word problems as conversations: a user asks one after another, and the assistant answers each."""

from __future__ import annotations

from adaspec_jax.data.word_problems.generator import generate

_SYSTEM = "You solve word problems step by step."
_MOST_TURNS = 3


def generate_chats(num: int, *, seed: int = 0, split: str = "train") -> list[dict]:
    """`num` rows with "messages", of one to three questions each; every fourth begins with a system turn.

    Prompts of different splits differ, as those of `generate` do.
    """
    turns = [1 + i % _MOST_TURNS for i in range(num)]
    problems = iter(generate(sum(turns), seed=seed, split=split))
    rows = []
    for i, count in enumerate(turns):
        messages = [{"role": "system", "content": _SYSTEM}] if i % 4 == 3 else []
        for problem in (next(problems) for _ in range(count)):
            messages.append({"role": "user", "content": problem["question"]})
            answer = problem["answer"].replace("####", "The answer is")
            messages.append({"role": "assistant", "content": answer})
        rows.append({"messages": messages})
    return rows
