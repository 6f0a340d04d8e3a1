"""What a config file returns: typed dataclasses that carry everything a run depends on.

A file under `configs/` has `get_config(variant="")`, which returns an `Experiment`; every field can be overridden on
the command line (`--config.draft.lr=1e-4`). Nothing here imports jax, so that `--print_config` and `--help` are quick.
Annotations stay real types (no `from __future__ import annotations`): ml_collections parses overrides by them.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from adaspec_jax.config.architectures import Architecture, GPTNeoX
from adaspec_jax.errors import UserError


@dataclass
class Data:
    """Where prompts and answers come from. Without paths: `ADASPEC_DATA`, else tensorflow-datasets, else the hub."""

    task: str = "word_problems"
    train: str | None = None  # a .jsonl or .jsonl.gz file
    evaluation: str | None = None
    train_split: str = "train"
    evaluation_split: str = "test"
    train_rows: str | None = None  # "0:7000"
    evaluation_rows: str | None = None
    num_train: int = 4000  # generated tasks only
    num_evaluation: int = 200
    seed: int | None = None  # of generated tasks; None: the run's
    prompt_column: str | None = None  # with answer_column: any jsonl, prompt and answer taken as they are
    answer_column: str | None = None
    max_length: int = 512  # tokens of prompt and answer together; what is longer is cut
    max_prompt_length: int = 0  # a longer prompt loses tokens from its middle; 0: it is left out where no answer fits
    contamination: str = "remove"  # training rows with an evaluation prompt: leave them out, or "allow" them
    buckets: tuple[int, ...] = (128, 192, 256, 384, 512)  # padded batch lengths: one compiled step each
    length_window: int = 1  # batches regrouped by length among so many in a row: less padding, less random batches


@dataclass
class Tokenizer:
    """`init` "train" fits a byte-level BPE to the training split; else a directory or a hub name."""

    init: str = "train"
    vocab_size: int = 1024  # when trained here


@dataclass
class Fit:
    """How a stage optimises: AdamW, global-norm clipping, one schedule."""

    epochs: float = 3.0
    batch_size: int = 16
    lr: float = 3e-4
    schedule: str = "constant"  # or "linear", "cosine": down to zero at the last step
    warmup_steps: int = 0
    weight_decay: float = 0.1
    clip_norm: float = 1.0  # 0: off
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    accumulate: int = 1  # batches per update
    micro_batches: int = 1  # parts of a batch that go through the layers one after another; results do not change
    rematerialise: bool = False  # compute a layer's inside again in the backward pass; results do not change
    moments: str = "float32"  # or "bfloat16", or "factored" (Adafactor's, and no first moment)
    master: str = "float32"  # type the parameters are kept in; "bfloat16" rounds updates stochastically


@dataclass
class Target(Fit):
    """The model to be accelerated. `init` "random", a directory or a hub name; `epochs` 0 uses it as it is."""

    init: str = "random"
    architecture: Architecture = field(default_factory=GPTNeoX)
    lora_rank: int = 0  # above 0: low-rank adapters are fitted instead of the whole model, and merged at the end
    lora_lr: float = 2e-4


@dataclass
class Answers:
    """The text that reference and draft are distilled on (DistillSpec's data G); prompts are always the data set's.

    `source` "dataset": its answers. "target": the target's own, sampled once before the stages. "draft": the model's
    own as it stands, sampled anew at every step (on-policy). "mixed": that in a `share` of the steps, else the data
    set's. Answers sampled on the way end at the latest where the batch's rows do, whose length is the data set's.
    """

    source: str = "dataset"
    temperature: float = 1.0
    max_new_tokens: int = 128  # of a sampled answer
    share: float = 0.5


@dataclass
class Reference(Fit):
    """The draft's starting weights distilled on every label: the DistillSpec baseline."""

    divergence: str = "forward_kl"  # a name in training.divergences; "jensen_shannon:0.1" has its beta
    equal_data: bool = False  # distil another baseline on the selective draft's batches: is it the data?


@dataclass
class Draft(Fit):
    """The draft, distilled on the labels where it lags most behind the reference (AdaSPEC)."""

    init: str = "random"
    architecture: Architecture = field(default_factory=GPTNeoX)
    divergence: str = "forward_kl"
    fraction: float = 0.4  # the paper's k
    final_fraction: float | None = None  # k goes to this along a line; None: it stays
    selection: str = "top"  # or "bottom" or "random", to compare with; a name in training.selection
    reference: str = "trained"  # "moving_average": of the draft itself; then reference.epochs may be 0
    average_decay: float = 0.999
    normalize: str = "paper"  # divide by the selected labels; "official": by all labels, as the released code does
    scope: str = "global"  # the quantile over the whole batch; "shard": over each of `shards` runs of rows; "sequence"
    shards: int = 1
    budget: str = "official"  # epochs / k at batch / k: the reference's number of steps; "equal_compute": as written


@dataclass
class Evaluation:
    """How acceptance is measured; none of it affects training."""

    num_prompts: int = 200
    batch_size: int = 8
    draft_length: int = 5  # guesses per round; 0: the best by measured costs and acceptance
    max_new_tokens: int = 128
    temperature: float = 0.0
    resamples: int = 10_000


@dataclass
class Mesh:
    """Devices along each axis; -1 takes as many as divide the batch sizes, `fsdp` before `data`."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    draft: str = "sharded"  # draft and reference; "replicated": whole on every device, beside a target that is cut


@dataclass
class Published:
    """Acceptance that the paper reports for this row, in percent; nothing is computed from it."""

    distillspec: float | None = None
    adaspec: float | None = None


@dataclass
class Experiment:
    """One run of the pipeline: target, reference, draft, evaluation."""

    seed: int = 0
    dtype: str = "float32"  # of the computation; parameters in training, and their moments, stay float32
    attention: str = "xla"  # or "cudnn": NVIDIA's fused kernel, in training and with dtype bfloat16
    teacher: str = "auto"  # frozen models: "recompute" at every step, or store "hidden" states, or "top_k" (inexact)
    teacher_top_k: int = 64  # entries of the target's law that "top_k" stores per label; the rest becomes one event
    memory: str = "as_written"  # or "auto": each stage gives up what it must, in the order of docs/plan.md, to fit
    layers: str = "auto"  # "unrolled", or "scanned": stacked, one compiled; auto: scanned on accelerators
    accelerator: str = "any"  # "gpu" or "tpu": refuse to run where there is none
    distributed: str = "off"  # "auto": one run of several processes, found by the cluster or JAX_COORDINATOR_ADDRESS
    loss_chunk: int = 0  # logits of a model that a loss holds at once, per device; 0: 2**23 on CPUs, 2**27 elsewhere
    data: Data = field(default_factory=Data)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    target: Target = field(default_factory=Target)
    answers: Answers = field(default_factory=Answers)
    reference: Reference = field(default_factory=Reference)
    draft: Draft = field(default_factory=Draft)
    evaluation: Evaluation = field(default_factory=Evaluation)
    mesh: Mesh = field(default_factory=Mesh)
    published: Published = field(default_factory=Published)
    checkpoint_every: int = 200  # steps
    tensorboard: bool = False


# What may differ when a workdir is used again: nothing a finished stage depends on.
_MEASUREMENT = ("evaluation.", "published.")
_MACHINE = ("mesh.", "attention", "loss_chunk", "accelerator", "distributed", "checkpoint_every", "tensorboard")
_RECORDED = ("memory", "layers")  # what a stage began with is kept
_ADDED = ("reference.equal_data",)  # another draft beside the others
FREE_TO_CHANGE = _MEASUREMENT + _MACHINE + _RECORDED + _ADDED

_CHOICES = {
    "dtype": ("float32", "bfloat16"),
    "attention": ("xla", "cudnn"),
    "schedule": ("constant", "linear", "cosine"),
    "contamination": ("remove", "allow"),
    "answers.source": ("dataset", "target", "draft", "mixed"),
    "draft.reference": ("trained", "moving_average"),
    "normalize": ("paper", "official"),
    "scope": ("global", "shard", "sequence"),
    "budget": ("official", "equal_compute"),
    "teacher": ("auto", "recompute", "hidden", "top_k"),
    "moments": ("float32", "bfloat16", "factored"),
    "master": ("float32", "bfloat16"),
    "memory": ("as_written", "auto"),
    "layers": ("auto", "unrolled", "scanned"),
    "distributed": ("off", "auto"),
    "accelerator": ("any", "gpu", "tpu"),
    "mesh.draft": ("sharded", "replicated"),
    "rope_type": ("default", "llama3"),
}
_POSITIVE = set(
    "batch_size lr lora_lr accumulate micro_batches num_prompts max_new_tokens checkpoint_every shards fraction "
    "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size num_key_value_heads head_dim "
    "n_embd n_layer n_head n_inner n_positions rotary_dim max_length length_window num_train num_evaluation "
    "teacher_top_k resamples tensor share final_fraction".split()
)
_NOT_NEGATIVE = set(
    "epochs warmup_steps weight_decay clip_norm lora_rank loss_chunk draft_length temperature max_prompt_length "
    "average_decay".split()
)
_SHARES = ("draft.fraction", "draft.final_fraction", "answers.share")


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """{"draft.lr": 1e-4, ...} of a config dataclass."""
    leaves: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        nested = dataclasses.is_dataclass(value)
        leaves |= flatten(value, f"{prefix}{item.name}.") if nested else {f"{prefix}{item.name}": value}
    return leaves


def validate(config: Experiment) -> None:
    """Raises `UserError` naming the first key whose value cannot work."""
    for key, value in flatten(config).items():
        name = key.rsplit(".", 1)[-1]
        choices = _CHOICES.get(key, _CHOICES.get(name))
        if choices and value not in choices:
            raise UserError(f'{key} is "{value}"; it must be one of {", ".join(choices)}')
        if value is None:
            continue
        if name in _POSITIVE and not value > 0:
            raise UserError(f"{key} is {value}; it must be positive")
        if name in _NOT_NEGATIVE and not value >= 0:
            raise UserError(f"{key} is {value}; it must not be negative")
        if key in _SHARES and value > 1:
            raise UserError(f"{key} is {value}; it must be at most 1, which is all")
    for axis in ("data", "fsdp"):
        if (count := getattr(config.mesh, axis)) == 0 or count < -1:
            raise UserError(f"mesh.{axis} is {count}; give a number of devices, or -1 for as many as fit")
    if config.draft.average_decay >= 1:
        raise UserError(f"draft.average_decay is {config.draft.average_decay}; at 1 and above the average never moves")
    if not config.reference.epochs and (config.draft.reference == "trained" or config.reference.equal_data):
        raise UserError(
            'reference.epochs is 0, which is possible with draft.reference="moving_average" and without '
            "reference.equal_data alone"
        )
    if (config.data.prompt_column is None) != (config.data.answer_column is None):
        raise UserError("data.prompt_column and data.answer_column must be given together")
    if not config.data.buckets or sorted(config.data.buckets) != list(config.data.buckets):
        raise UserError(f"data.buckets {config.data.buckets} must be lengths in increasing order")
    if config.data.max_prompt_length >= config.data.max_length:
        raise UserError(
            f"data.max_prompt_length {config.data.max_prompt_length} leaves no room for an answer within "
            f"data.max_length {config.data.max_length}"
        )
    if config.data.buckets[-1] < config.data.max_length:
        raise UserError(f"the last of data.buckets is below data.max_length {config.data.max_length}; raise it")
    for stage in ("target", "draft"):
        if mistake := getattr(config, stage).architecture.mistake():
            raise UserError(f"{stage}.architecture: {mistake}")
    if config.teacher == "top_k":
        for stage in ("reference", "draft"):
            if (divergence := getattr(config, stage).divergence) != "forward_kl":
                raise UserError(
                    f'{stage}.divergence is "{divergence}", and teacher "top_k" knows the forward_kl alone; '
                    'use teacher "hidden"'
                )
    rows = draft_schedule(config.draft)[1]
    if config.draft.scope == "shard" and rows % config.draft.shards:
        raise UserError(f"the draft's batch of {rows} does not divide into draft.shards {config.draft.shards}")


def draft_schedule(draft: Draft) -> tuple[float, int]:
    """(epochs, batch size) of the selective stage.

    The released code's "3 epochs at batch 16" are 3/k epochs at batch 16/k: the baseline's number of steps and of
    back-propagated labels, on 1/k times its data. That is budget "official"; "equal_compute" takes both as written.
    Where k changes, its mean counts.
    """
    if draft.budget == "equal_compute":
        return draft.epochs, draft.batch_size
    kept = (draft.fraction + (draft.final_fraction or draft.fraction)) / 2
    return draft.epochs / kept, max(round(draft.batch_size / kept), 1)
