"""Run by a Python that has vLLM: engines one after another, each with its greedy texts and its counts of guesses.

PYTHON vllm_worker.py JOBS.json OUT.json      # jobs: [{"name", "target", "spec": {...} or null, "prompts", "new"}]
"""

import gc
import json
import os
import sys

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


def main(jobs, out):
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    results = {}
    for job in jobs:
        knobs = {"dtype": "float32", "max_model_len": 256, "max_num_seqs": 4, "enforce_eager": True, "seed": 0}
        knobs |= {"disable_log_stats": False, "enable_prefix_caching": False, "skip_tokenizer_init": True}
        try:
            engine = LLM(model=job["target"], speculative_config=job["spec"], **knobs)
            sampling = SamplingParams(temperature=0, max_tokens=job["new"], ignore_eos=True, detokenize=False)
            prompts = [{"prompt_token_ids": ids} for ids in job["prompts"]]
            answers = [list(done.outputs[0].token_ids) for done in engine.generate(prompts, sampling, use_tqdm=False)]
            counts = {
                metric.name.removeprefix("vllm:spec_decode_"): getattr(metric, "value", getattr(metric, "values", None))
                for metric in engine.get_metrics()
                if "spec_decode" in metric.name
            }
            results[job["name"]] = {"answers": answers, "counts": counts}
            del engine
        except Exception as error:  # of any kind: each is a result
            results[job["name"]] = {"failed": f"{type(error).__name__}: {error}"}
        gc.collect()
        cleanup_dist_env_and_memory()
        with open(out, "w") as file:
            json.dump(results, file)


if __name__ == "__main__":
    main(json.load(open(sys.argv[1])), sys.argv[2])
