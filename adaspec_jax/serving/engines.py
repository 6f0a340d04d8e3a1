"""Whether a target and a draft can serve together in transformers, vLLM and SGLang: what each asks of a pair, as data.

Read in the engines' own documentation and sources; of the three only transformers is run by the tests.

- transformers 5: `GenerationMixin._validate_generation_mode` and `generation/candidate_generator.py` take equal
  `vocab_size`s for equal tokenizers, and read `num_assistant_tokens` and its schedule from the draft's
  generation_config.json (where it is silent: 20 guesses, and a confidence below 0.4 ends the round).
- vLLM: docs/models/supported_models.md, docs/features/speculative_decoding/draft_model.md and
  vllm/config/speculative.py (`verify_equal_vocab_size_if_draft_model`, `draft_sample_method`).
- SGLang: docs/supported_models, docs/advanced_features/speculative_decoding.md, srt/speculative/standalone_worker*.py
  (equal `vocab_size`s and equal token ids; the draft's context length is overridden by the target's).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from adaspec_jax import data
from adaspec_jax.data.network import hub_reachable
from adaspec_jax.drafter_file import FILE as HEAD_FILE
from adaspec_jax.drafter_file import kind_in, kind_said, may_hide_a_head
from adaspec_jax.errors import UserError
from adaspec_jax.files import read_json
from adaspec_jax.generation_config import FILE as GENERATION
from adaspec_jax.generation_config import asked
from adaspec_jax.places import ADAPTER, file_of, find_local, only_an_adapter
from adaspec_jax.serving.readers import misread

CONFIG = "config.json"
DRAFT_LENGTH = 5  # where the draft's generation_config.json names none
ATTENTION = "its transformers code takes no engine's attention"


def pinned_generation(draft_length: int) -> dict[str, Any]:
    """Keys of a draft's generation_config.json with which transformers makes this many guesses in every round."""
    return {
        "num_assistant_tokens": draft_length,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0,
    }


@dataclass(frozen=True)
class Published:
    """What a directory or hub name says of its model, weights unread."""

    name: str
    model_type: str
    vocab_size: int
    positions: int | None
    generation: dict[str, Any]
    tokenizer: Any = field(repr=False)  # None: it comes without one
    ends: tuple[int, ...] | None = None  # of text, as its files name them
    notes: tuple[str, ...] = ()  # what its user should know


class Pair(NamedTuple):
    target: Published
    draft: Published
    draft_length: int


class Engine(NamedTuple):
    """What an engine asks of a pair, and how it is started."""

    families: tuple[str, ...]  # the model_types it implements
    absent: dict[str, str]  # model_type -> why it does not run; any other is not known here
    other_tokenizers: str  # what it offers where the tokenizers differ
    command: Callable[[Pair], str]
    warn: Callable[[Pair], list[str]]


class Verdict(NamedTuple):
    reasons: list[str]  # why the pair cannot serve, each with how to mend it; empty: it can
    command: str
    warnings: list[str]

    def in_one_line(self, engine: str) -> str:
        return f"{engine}: cannot serve: {'. Also: '.join(self.reasons)}" if self.reasons else f"{engine}: can serve"


def _transformers_command(pair: Pair) -> str:
    load = "AutoModelForCausalLM.from_pretrained({!r})".format
    return f"{load(pair.target.name)}.generate(**inputs, assistant_model={load(pair.draft.name)})"


def _warn_of_unpinned_rounds(pair: Pair) -> list[str]:
    given = pair.draft.generation
    loose = [
        f"{key} is {given.get(key, 'absent')}"
        for key, value in pinned_generation(pair.draft_length).items()
        if given.get(key) != value
    ]
    if not loose:
        return []
    return [
        f"acceptance is not comparable: in the draft's generation_config.json {', '.join(loose)}, so that transformers "
        "chooses the number of guesses itself; pin them as adaspec_jax.export does"
    ]


def _vllm_command(pair: Pair) -> str:
    settings = {"method": "draft_model", "model": pair.draft.name, "num_speculative_tokens": pair.draft_length}
    return f"vllm serve {shlex.quote(pair.target.name)} --speculative-config {shlex.quote(json.dumps(settings))}"


def _warn_of_greedy_drafts(pair: Pair) -> list[str]:
    return [
        'draft_sample_method is "greedy" unless set: above temperature 0, add "draft_sample_method": "probabilistic" '
        "for an acceptance that compares with sampled drafts"
    ]


def _sglang_command(pair: Pair) -> str:
    k = pair.draft_length
    context = f" --context-length {pair.draft.positions}" if _shorter_context(pair) else ""
    return (
        f"python -m sglang.launch_server --model-path {shlex.quote(pair.target.name)}{context} "
        f"--speculative-algorithm STANDALONE --speculative-draft-model-path {shlex.quote(pair.draft.name)} "
        f"--speculative-num-steps {k} --speculative-eagle-topk 1 --speculative-num-draft-tokens {k + 1}"
    )


def _warn_of_the_context(pair: Pair) -> list[str]:
    if not _shorter_context(pair):
        return []
    return [
        f"it drives the draft to the target's {pair.target.positions} positions, past its own {pair.draft.positions}; "
        "--context-length above keeps both within"
    ]


def _shorter_context(pair: Pair) -> bool:
    own, targets = pair.draft.positions, pair.target.positions
    return bool(own and targets and own < targets)


ENGINES: dict[str, Engine] = {
    "transformers": Engine(
        families=("codegen", "gpt2", "gpt_neox", "llama", "phi", "qwen2", "qwen3"),
        absent={},
        other_tokenizers="generate(tokenizer=, assistant_tokenizer=) translates between two, if the sizes differ too",
        command=_transformers_command,
        warn=_warn_of_unpinned_rounds,
    ),
    "vLLM": Engine(
        families=("gpt2", "gpt_neox", "llama", "phi", "qwen2", "qwen3"),
        absent={"codegen": f"its list of models has no CodeGen, and {ATTENTION}"},
        other_tokenizers='"use_heterogeneous_vocab": true drafts greedily over the tokens that both have',
        command=_vllm_command,
        warn=_warn_of_greedy_drafts,
    ),
    "SGLang": Engine(
        families=("gpt2", "llama", "phi", "qwen2", "qwen3"),
        absent={
            "codegen": f"its list of models has no CodeGen, and {ATTENTION}",
            "gpt_neox": "it has no GPT-NeoX of its own, and its transformers fallback says nothing of speculation",
        },
        other_tokenizers="",
        command=_sglang_command,
        warn=_warn_of_the_context,
    ),
}


def read_pair(target: str, draft: str, *, draft_length: int | None = None) -> Pair:
    """Both as they are published; UserError where a config.json, or the target's tokenizer, is missing or of no use."""
    pair = [_read(target), _read(draft)]
    pair[1] = replace(pair[1], notes=pair[1].notes + _unseen(draft))
    if pair[0].tokenizer is None:
        data.load_tokenizer(target)  # raises, saying why
    length = draft_length or pair[1].generation.get("num_assistant_tokens") or DRAFT_LENGTH
    return Pair(*pair, length)


def judge(pair: Pair) -> dict[str, Verdict]:
    """Each engine's verdict, by its name."""
    asked = _vocabulary_reasons(pair)
    compared = pair.draft.tokenizer is not None
    difference = data.first_difference(pair.target.tokenizer, pair.draft.tokenizer, beyond=True) if compared else None
    verdicts = {}
    for name, engine in ENGINES.items():
        reasons = _family_reasons(pair, engine)
        if difference:
            instead = f" ({engine.other_tokenizers})" if engine.other_tokenizers else ""
            mend = f"train a draft on the target's tokenizer{instead}"
            reasons.append(f"the tokenizers differ: {difference}; {mend}")
        else:
            reasons += asked
        warnings = [] if compared else ["the draft comes without a tokenizer, so none could be compared"]
        for model_type in sorted({m.model_type for m in pair[:2]} - {*engine.families, *engine.absent}):
            warnings.append(f"{model_type} is not a family known here; look it up in {name}'s list of models")
        verdicts[name] = Verdict(reasons, engine.command(pair), warnings + engine.warn(pair))
    return verdicts


def ends_in_words(model: Published) -> str:
    """Where text of this model ends, and what names it."""
    if model.ends is not None:
        return f"ends of text: {', '.join(map(str, model.ends)) or 'none'}"
    own = None if model.tokenizer is None else model.tokenizer.eos_token_id
    return "ends of text: none is named" if own is None else f"ends of text: {own}, by the tokenizer alone"


def vocabulary_in_words(pair: Pair) -> str:
    """How many tokens, and how many rows each model has for them."""
    tokens, sizes = data.rows_needed(pair.target.tokenizer), {pair.target.vocab_size, pair.draft.vocab_size}
    rows = f"{sizes.pop()} in both" if len(sizes) == 1 else f"{pair.target.vocab_size} and {pair.draft.vocab_size}"
    line = f"vocabulary: {tokens} tokens; rows: {rows}"
    if pair.draft.vocab_size <= tokens:
        return line
    return f"{line}; no engine masks the rest, which in a draft from adaspec_jax.export never win"


def _family_reasons(pair: Pair, engine: Engine) -> list[str]:
    reasons = []
    for model_type in sorted({model.model_type for model in pair[:2]} & set(engine.absent)):
        whose = " and ".join(role for role in ("target", "draft") if getattr(pair, role).model_type == model_type)
        reasons.append(
            f"{model_type} (the {whose}): {engine.absent[model_type]}; use another engine, or models of "
            f"{', '.join(engine.families)}"
        )
    return reasons


def _vocabulary_reasons(pair: Pair) -> list[str]:
    """What all three refuse of two models that share a tokenizer."""
    needed, reasons = data.rows_needed(pair.target.tokenizer), []
    for role in ("target", "draft"):
        if (rows := getattr(pair, role).vocab_size) < needed:
            reasons.append(f"the tokenizer needs {needed} rows and the {role} has {rows}; use its own tokenizer")
    if not reasons and pair.target.vocab_size != pair.draft.vocab_size:
        reasons.append(
            f"vocab_size is {pair.target.vocab_size} in the target and {pair.draft.vocab_size} in the draft; pad the "
            "draft: adaspec_jax.export does, and so does CausalLM.with_vocabulary_size"
        )
    return reasons


def _read(name: str) -> Published:
    if (said := _json(name, ADAPTER)) is not None:
        raise only_an_adapter(name, said)
    hf = config_of(name)
    text = hf if "vocab_size" in hf else hf.get("text_config") or {}
    if not isinstance(text.get("vocab_size"), int) or not isinstance(hf.get("model_type"), str):
        raise UserError(f'{name}: config.json has no "vocab_size" and "model_type" of a language model')
    try:
        tokenizer = data.load_tokenizer(find_local(name) or name)
    except data.NoTokenizer:
        tokenizer = None
    generation = _json(name, GENERATION)
    asks = asked(text, generation)
    own = () if tokenizer is None else data.notes_on(tokenizer)
    return Published(
        name=str(name),
        model_type=hf["model_type"],
        vocab_size=text["vocab_size"],
        positions=text.get("max_position_embeddings") or text.get("n_positions"),
        generation=generation or {},
        tokenizer=tokenizer,
        ends=asks.ends,
        notes=(*own, *asks.notes, *misread(name, text, tokenizer)),
    )


def head_in(name: str) -> tuple[str, dict[str, Any]] | None:
    """(kind, config.json) of the head that a directory or hub name holds; None where it holds a plain model."""
    config, local = _json(name, CONFIG), find_local(name)
    kind = kind_in(local) if local else kind_said(_json(name, HEAD_FILE), config)
    return None if kind is None else (kind, config or {})


def _unseen(name: str) -> tuple[str, ...]:
    """What should be known of a draft that may be a head, where no tensors' names can be looked at."""
    said, local = _json(name, HEAD_FILE), find_local(name)
    seen = said is not None or local and any(local.glob("*.safetensors"))
    if seen or not may_hide_a_head(config_of(name)):
        return ()
    return (
        "its tensors were not looked at: it has one layer, and where it is a head of EAGLE's, only their names say so; "
        "then give a directory with its model.safetensors",
    )


def config_of(name: str) -> dict[str, Any]:
    """The config.json of a model; UserError where there is none."""
    if (config := _json(name, CONFIG)) is None:
        raise UserError(f"{name} has no config.json: it is not a Hugging Face model directory")
    return config


def _json(name: str, file: str) -> dict[str, Any] | None:
    """The object in that file of a directory or hub name; None where there is no such file."""
    path = file_of(name, file, reachable=hub_reachable, needed=file == CONFIG)
    return None if path is None else read_json(path)
