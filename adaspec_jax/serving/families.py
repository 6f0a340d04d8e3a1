"""Which engine implements which family of models, by `model_type`, and why one does not run another.

- RAN: tests ran these (`tests/serving/test_real_engines.py`, `tests/serving/test_vllm.py`), or their notes say so.
- LISTED: read in the sources of vLLM 0.32 (model_executor/models/registry.py), SGLang 0.5.23 (srt/models),
  optimum-intel (exporters/openvino/model_configs.py) and CTranslate2 4.8 (converters/transformers.py), and not run:
  said as a warning.
- ABSENT: read there to be missing, or to compute another function.
"""

from __future__ import annotations

from collections.abc import Mapping

ATTENTION = "its transformers code takes no engine's attention"
FIRST = ("codegen", "gpt2", "gpt_neox", "llama", "phi", "qwen2", "qwen3")
MIXTURES = ("mixtral", "qwen3_moe")
DENSE = ("gemma", "gemma2", "gemma3_text", "granite", "ministral", "mistral", "olmo2", "phi3", "smollm3")
RAN: Mapping[str, tuple[str, ...]] = {
    "transformers": (*FIRST, *DENSE, *MIXTURES),
    "vLLM": ("gpt2", "gpt_neox", "llama", "phi", "qwen2", "qwen3"),
    "SGLang": ("gpt2", "llama", "phi", "qwen2", "qwen3"),
    "OpenVINO GenAI": FIRST,
    "CTranslate2": FIRST,
}
LISTED: Mapping[str, tuple[str, ...]] = {
    "vLLM": ("gemma", "gemma2", "gemma3_text", "granite", "mistral", "olmo2", "phi3", "smollm3", *MIXTURES),
    "SGLang": ("gemma", "gemma2", "gemma3_text", "granite", "mistral", "olmo2", "phi3", *MIXTURES),
    "OpenVINO GenAI": ("gemma", "gemma2", "gemma3_text", "granite", "mistral", "olmo2", "phi3", "smollm3", *MIXTURES),
    "CTranslate2": ("gemma", "gemma3_text", "mistral", "phi3"),
}
# Families that vLLM has no class of its own for, and runs by transformers' code.
BORROWED = ("gpt_neox", "olmo2", "phi", "smollm3")
_NO_CONVERSION = "its converter has no conversion for it"
_FALLBACK = "of its own, and its transformers fallback says nothing of speculation"
ABSENT: Mapping[str, Mapping[str, str]] = {
    "vLLM": {"codegen": f"its list of models has no CodeGen, and {ATTENTION}"},
    "SGLang": {
        "codegen": f"its list of models has no CodeGen, and {ATTENTION}",
        "gpt_neox": f"it has no GPT-NeoX {_FALLBACK}",
        "ministral": f"it has no Ministral {_FALLBACK}",
        "smollm3": f"it has no SmolLM3 {_FALLBACK}",
    },
    "OpenVINO GenAI": {"ministral": "optimum-intel's list of models has no Ministral"},
    "CTranslate2": {
        "gemma2": "its converter leaves out Gemma 2's soft caps of scores and logits, and so writes another model",
        **dict.fromkeys(MIXTURES, "its converter has no mixture of experts of this family"),
        **dict.fromkeys(("granite", "ministral", "olmo2", "smollm3"), _NO_CONVERSION),
    },
}
