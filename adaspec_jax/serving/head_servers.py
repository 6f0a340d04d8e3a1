"""Which servers take a trained head, of which kind, beside a target of which family, and under which classes.

Read in the sources of vLLM 0.32, SGLang 0.5.23, tpu-inference 0.32 and sglang-jax; vLLM alone was run.

- A layer's number: vLLM means what enters that layer, SGLang adds one. Without numbers both, and tpu-inference always,
  read what enters layers 2, L / 2 and L - 3.
- Classes: vLLM prefixes "Eagle" or "Eagle3" where a name has neither; SGLang knows LlamaForCausalLMEagle and
  LlamaForCausalLMEagle3; tpu-inference Eagle3LlamaForCausalLM alone.
- Beside the head: vLLM's EAGLE wants the target's `model.embed_tokens`, its Medusa nothing but hidden states.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

TPU_SERVERS = ("tpu-inference", "sglang-jax")


class Server(NamedTuple):
    """What a server takes."""

    layout: str  # whose config.json it reads: "vllm" or "sglang"
    families: Mapping[str, tuple[str, ...]]  # kind -> the model_types of targets that it serves such a head beside
    why: Mapping[str, str]  # model_type -> why a head of EAGLE's does not run beside it
    switches: Mapping[str, str] = {}  # key of config.json -> what it does with it, where that is set
    classes: Mapping[str, tuple[str, ...]] = {}  # kind -> the classes that it knows; the first is written for it
    last: int = 0  # the highest number that a layer may have, beside the count of the target's
    own_layers: bool = False  # whether it reads the same three whatever config.json says


_EAGLE = ("granite", "llama", "mistral", "olmo2", "phi", "phi3", "qwen2", "qwen3", "smollm3")
_EAGLE_1 = tuple(family for family in _EAGLE if family != "granite")  # whose class has the interface of EAGLE-3 alone
_LIKE_LLAMA = ("llama", "mistral", "phi3", "qwen2", "qwen3")
_NORMS = {key: "it does not know of it" for key in ("norm_before_residual", "fc_norm", "norm_output")}
_NO_INTERFACE = "its class for it hands out no hidden states of layers"
VLLM_CLASSES = {
    "eagle": ("EagleLlamaForCausalLM", "LlamaForCausalLM"),
    "eagle3": ("Eagle3LlamaForCausalLM", "LlamaForCausalLMEagle3", "LlamaForCausalLM"),
    "dflash": ("DFlashDraftModel",),
    "p_eagle": ("Eagle3LlamaForCausalLM", "LlamaForCausalLMEagle3", "LlamaForCausalLM"),
}
SGLANG_CLASSES = {"eagle": ("LlamaForCausalLMEagle",), "eagle3": ("LlamaForCausalLMEagle3",)}
SERVERS: dict[str, Server] = {
    "vLLM": Server(
        layout="vllm",
        families={
            "eagle": _EAGLE_1,
            "eagle3": _EAGLE,
            "dflash": _EAGLE,
            "p_eagle": _EAGLE,
            "medusa": ("gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", *_EAGLE),
        },
        why={
            "gpt_neox": "it looks for the target's embed_tokens, which GPT-NeoX calls embed_in",
            "gpt2": "it looks for the target's `model`, which GPT-2 calls transformer",
            "codegen": "it has no CodeGen",
            "ministral": "it has no class for it",
            "granite": "its class for it hands out what EAGLE-3 reads alone",
            **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), _NO_INTERFACE),
        },
        classes=VLLM_CLASSES,
    ),
    "SGLang": Server(
        layout="sglang",
        families={"eagle": _LIKE_LLAMA, "eagle3": ("gemma3_text", *_LIKE_LLAMA)},
        why={
            **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "gpt2", "granite", "olmo2", "phi"), _NO_INTERFACE),
            **dict.fromkeys(("gpt_neox", "ministral", "smollm3"), "it has no class of its own for it"),
        },
        switches=_NORMS,
        classes=SGLANG_CLASSES,
        last=-2,
    ),
    "tpu-inference": Server(
        layout="vllm",
        families={"eagle3": ("llama",)},
        why={},
        switches={key: _NORMS[key] for key in ("fc_norm", "norm_output")},
        classes={"eagle3": VLLM_CLASSES["eagle3"][:1]},
        own_layers=True,
    ),
    "sglang-jax": Server(
        layout="sglang",
        families={"eagle3": ("llama", "qwen3")},
        why={},
        switches=_NORMS,
        classes={"eagle3": SGLANG_CLASSES["eagle3"]},
        last=-2,
    ),
}
