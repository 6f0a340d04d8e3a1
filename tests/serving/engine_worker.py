"""Run by a Python that has the engine: its greedy texts, and what it counts of its guesses.

PYTHON engine_worker.py ENGINE JOB.json OUT.json    # job: {"target", "draft" or null, "guesses", "prompts", "new"}
"""

import json
import os
import sys


def vllm(job):
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # all in one process: seconds to start, not a minute
    from vllm import LLM, SamplingParams

    spec = {"method": "draft_model", "model": job["draft"], "num_speculative_tokens": job["guesses"]}
    knobs = {"dtype": "float32", "max_model_len": 256, "max_num_seqs": 4, "enforce_eager": True, "seed": 0}
    knobs |= {"disable_log_stats": False, "enable_prefix_caching": False}
    engine = LLM(job["target"], speculative_config=spec if job["draft"] else None, **knobs)
    sampling = SamplingParams(temperature=0, max_tokens=job["new"], ignore_eos=True)
    prompts = [{"prompt_token_ids": ids} for ids in job["prompts"]]
    answers = [list(done.outputs[0].token_ids) for done in engine.generate(prompts, sampling, use_tqdm=False)]
    named = {
        metric.name.removeprefix("vllm:spec_decode_"): getattr(metric, "value", getattr(metric, "values", None))
        for metric in engine.get_metrics()
        if "spec_decode" in metric.name
    }
    return {"answers": answers, "counts": named}


def openvino(job):
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    knobs = {"INFERENCE_PRECISION_HINT": ov.Type.f32, "KV_CACHE_PRECISION": ov.Type.f32}
    knobs |= {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0, "INFERENCE_NUM_THREADS": 2}
    draft = {"draft_model": genai.draft_model(job["draft"], "CPU", **knobs)} if job["draft"] else {}
    pipeline = genai.LLMPipeline(job["target"], "CPU", **draft, **knobs)
    config = genai.GenerationConfig()
    config.do_sample, config.ignore_eos, config.max_new_tokens = False, True, job["new"]
    if job["draft"]:
        config.num_assistant_tokens = job["guesses"]
    answers, accepted = [], 0
    for prompt in job["prompts"]:
        ids = np.asarray([prompt], np.int64)
        made = pipeline.generate(genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids))), config)
        answers.append(list(made.tokens[0]))
        if job["draft"]:
            accepted += made.extended_perf_metrics.get_num_accepted_tokens()
    return {"answers": answers, "counts": {"num_accepted_tokens": accepted}}


def ctranslate2(job):
    import ctranslate2

    generator = ctranslate2.Generator(job["target"], device="cpu", compute_type="float32")
    with open(os.path.join(job["target"], "vocabulary.json")) as file:
        words = json.load(file)
    rows = [[words[token] for token in row] for row in job["prompts"]]
    knobs = {"sampling_topk": 1, "include_prompt_in_result": False, "end_token": []}
    made = generator.generate_batch(rows, max_length=job["new"], min_length=job["new"], **knobs)
    return {"answers": [row.sequences_ids[0] for row in made], "counts": {}}


if __name__ == "__main__":
    engine, job, out = sys.argv[1:]
    with open(job) as file:
        told = json.load(file)
    said = {"vllm": vllm, "openvino": openvino, "ctranslate2": ctranslate2}[engine](told)
    with open(out, "w") as file:
        json.dump(said, file)
