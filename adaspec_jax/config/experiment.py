"""What a config file returns: typed dataclasses that carry everything a run depends on.

A file under `configs/` has `get_config(variant="")`, which returns an `Experiment`; every field can be overridden on
the command line (`--config.draft.lr=1e-4`). Nothing here imports jax, so that `--print_config` and `--help` are quick.
Annotations stay real types (no `from __future__ import annotations`): ml_collections parses overrides by them. What a
field may hold stands beside its default; what several must have in common is in `checks`.
"""

from dataclasses import dataclass, field

from adaspec_jax.config.architectures import Architecture, GPTNeoX
from adaspec_jax.config.bounds import (
    MOST_ROWS,
    MOST_TOKENS,
    axis,
    below,
    increasing,
    named,
    not_negative,
    numbered,
    one_of,
    positive,
    several_of,
    share,
    steps_of,
    within,
)
from adaspec_jax.knobs import MOST_GUESSES

MODEL, PARD, SPECDEC, SPECDEC_PP = "model", "pard", "specdec", "specdec_pp"
MASKED = (PARD, SPECDEC)  # a language model that guesses at mask tokens
MODELS = (MODEL, *MASKED, SPECDEC_PP)  # values of `draft.kind` that name no kind of head: the draft is a language model
PASS = "pass"  # the kind of head that is the target's own guesses at trained embeddings
RANDOM, CUT = "random", "cut"  # values of `init` that name no place
QUALIFIER = "qualifier"  # key, directory and report row of the model that stands between target and draft in some runs


@dataclass
class Chat:
    """How conversations become rows, where data.task is "chat"."""

    turns: str = one_of("every", "last", "each")  # of the assistant's that are labels; "each": a row for every one
    end_of_turn: bool = True  # whether the mark that closes a turn is a label
    reasoning: str = one_of("keep", "drop", "unlabelled")  # <think>...</think> and its like
    assistant_roles: tuple[str, ...] = ()  # further names that files have for the assistant
    options: str = ""  # of the template, as JSON: '{"enable_thinking": false}'


@dataclass
class Data:
    """Where prompts and answers come from. Without paths: `ADASPEC_DATA`, else tensorflow-datasets, else the hub."""

    task: str = "word_problems"  # of docs/tasks.md; "chat": conversations, "columns": your own columns
    # Several sources in place of one, each a task, a file of `task`'s rows or hf:NAME:SPLIT, and how often its rows
    # come in an epoch: ("gsm8k", "mbpp*4", "mine.jsonl*0.5").
    mixture: tuple[str, ...] = ()
    train: str | None = None  # a .jsonl or .jsonl.gz file, or hf:NAME:SPLIT
    evaluation: str | None = None  # as train; None: held_out rows of it, or the task's own split
    held_out: int = not_negative(0)  # rows of data.train to measure on, where there is no data.evaluation; 0: none
    train_split: str = "train"
    evaluation_split: str = "test"
    train_rows: str | None = None  # "0:7000"
    evaluation_rows: str | None = None
    num_train: int = positive(4000, 10_000_000)  # generated tasks only
    num_evaluation: int = positive(200, 10_000_000)
    seed: int | None = not_negative(None)  # of generated tasks; None: the run's
    prompt_column: str | None = None  # with answer_column: any jsonl, prompt and answer taken as they are
    answer_column: str | None = None  # None will do where a target that is not fitted answers
    text_column: str | None = None  # any jsonl of plain texts: the first sentences are the prompt
    chat_template: str | None = None  # a Jinja file in place of the tokenizer's own
    chat: Chat = field(default_factory=Chat)
    preview: int = not_negative(0)  # rows that are shown, labels marked, before training starts
    max_length: int = positive(512, MOST_TOKENS)  # tokens of prompt and answer together; what is longer is cut
    max_prompt_length: int = not_negative(0)  # a longer prompt loses its middle; 0: it is left out where no answer fits
    contamination: str = one_of("remove", "allow")  # training rows with an evaluation prompt
    buckets: tuple[int, ...] = increasing(128, 192, 256, 384, 512, most=MOST_TOKENS)  # padded: a compiled step each
    length_window: int = positive(1)  # batches regrouped by length among so many: less padding, less random batches
    # Whole examples share rows of up to max_length tokens, each attending to itself alone; once, by seed, before rows
    # are shuffled. Then batch_size counts such rows, and the number of steps follows from theirs.
    packing: bool = False


@dataclass
class Tokenizer:
    """`init` "train" fits a byte-level BPE to the training split, "characters" has a token for each of its characters,
    "target" takes the target's; or a directory or a hub name.
    """

    init: str = "train"
    vocab_size: int = positive(1024, 2**24)  # when trained here


@dataclass
class Fit:
    """How a stage optimises: AdamW, global-norm clipping, one schedule."""

    epochs: float = not_negative(3.0, 1e6)
    batch_size: int = positive(16, MOST_ROWS)
    lr: float = positive(3e-4, 1000)
    schedule: str = one_of("constant", "linear", "cosine")  # the last two go down to zero at the last step
    warmup_steps: int = not_negative(0)
    weight_decay: float = not_negative(0.1, 1000)
    clip_norm: float = not_negative(1.0, 1e9)  # 0: off
    beta1: float = below(1, 0.9, "at 1 and above nothing is learnt")
    beta2: float = below(1, 0.999, "at 1 and above nothing is learnt")
    eps: float = positive(1e-8, 1)
    accumulate: int = positive(1, MOST_ROWS)  # batches per update
    micro_batches: int = positive(1, MOST_ROWS)  # parts of a batch that go through the layers in turn; same results
    rematerialise: bool = False  # compute a layer's inside again in the backward pass; results do not change
    moments: str = one_of("float32", "bfloat16", "factored")  # "factored": Adafactor's, and no first moment
    master: str = one_of("float32", "bfloat16")  # what parameters are kept in; "bfloat16" rounds updates stochastically


@dataclass
class Target(Fit):
    """The model to be accelerated. `init` "random", a directory or a hub name; `epochs` 0 uses it as it is.

    `architecture` None: as the config.json of `init` says.
    """

    init: str = RANDOM
    architecture: Architecture | None = field(default_factory=GPTNeoX)
    lora_rank: int = not_negative(0, 2**16)  # above 0: adapters are fitted instead of the whole model, then merged
    lora_lr: float = positive(2e-4, 1000)
    # LayerSkip's tuning in place of plain fine-tuning, as in p_max=0.1,curriculum=gradual: it changes the target, for
    # which the method layerskip then drafts with its first layers; "": off. See `config.early_exits`.
    early_exit: str = ""


@dataclass
class Answers:
    """The text that reference and draft are distilled on (DistillSpec's data G); prompts are always the data set's.

    `source` "dataset": its answers. "target": the target's own, sampled once before the stages. "draft": the model's
    own as it stands, sampled anew at every step (on-policy). "mixed": that in a `share` of the steps, else the data
    set's. Answers sampled on the way end at the latest where the batch's rows do, whose length is the data set's.
    """

    source: str = one_of("dataset", "target", "draft", "mixed")
    temperature: float = not_negative(1.0, 1e6)  # 0: the likeliest tokens
    max_new_tokens: int = positive(128, MOST_TOKENS)  # of a sampled answer
    share: float = share(0.5)


@dataclass
class Reference(Fit):
    """The draft's starting weights distilled on every label: the DistillSpec baseline."""

    divergence: str = "forward_kl"  # a name in training.divergences; "jensen_shannon:0.1" has its beta
    equal_data: bool = False  # distil another baseline on the selective draft's batches: is it the data?


@dataclass
class Draft(Fit):
    """The draft, distilled on the labels where it lags most behind the reference (AdaSPEC).

    `init` as the target's, or "cut": some of the target's own layers, with its embeddings, final norm and head, as the
    target is when it is distilled from; then `architecture` follows from the target's.
    """

    # "model"; "pard": a model that guesses several tokens in one pass, at mask tokens; "specdec": the same at masks
    # that see each other; "specdec_pp": a model as any, and then a head on it that says how likely a guess is to
    # stay; or a head on the target's own hidden states: a name in models/heads, as eagle3 or medusa. A head begins
    # with random weights, and in the sizes that follow from the target's: init, layers and architecture say nothing.
    kind: str = MODEL
    head: str = ""  # what that kind lets one set: "steps=3,vocabulary=8000"
    masks: str = one_of("all", "laws")  # at labels that are not selected of a head's loss: all, or the divergence alone
    init: str = RANDOM
    # Of a draft that is cut, by number from 0; (): a quarter of all, evenly spaced, with first and last [ours].
    layers: tuple[int, ...] = numbered()
    architecture: Architecture | None = field(default_factory=GPTNeoX)
    divergence: str = "forward_kl"
    fraction: float = share(0.4)  # the paper's k
    final_fraction: float | None = share(None)  # k goes to this along a line; None: it stays
    # "top", or "bottom" or "random" to compare with, or "rejected": what greedy decoding would refuse, however much it
    # is; k then sets the budget alone, and the reference is no more than the baseline.
    selection: str = "top"
    # "moving_average": of the draft itself; then reference.epochs may be 0.
    reference: str = one_of("trained", "moving_average")
    average_decay: float = below(1, 0.999, "at 1 and above the average never moves")
    # Divide by the selected labels, or ("official") by all labels, as the released code does.
    normalize: str = one_of("paper", "official")
    # The quantile over the whole batch, over each of `shards` runs of rows, or over each row.
    scope: str = one_of("global", "shard", "sequence")
    shards: int = positive(1, MOST_ROWS)
    # Epochs / k at batch / k, the reference's number of steps; or both as written.
    budget: str = one_of("official", "equal_compute")


@dataclass
class Qualifier(Fit):
    """A model between draft and target, distilled on every label: the middle one of three (PyramidSD, CS Drafting).

    `epochs` 0: there is none. `init`, `layers` and `architecture` as the draft's.
    """

    epochs: float = not_negative(0.0, 1e6)
    init: str = RANDOM
    layers: tuple[int, ...] = numbered()
    architecture: Architecture | None = field(default_factory=GPTNeoX)
    divergence: str = "forward_kl"


MATMUL = ("float32", "bfloat16", "auto")


@dataclass
class Evaluation:
    """How acceptance is measured; none of it affects training."""

    num_prompts: int = positive(200)
    batch_size: int = positive(8, MOST_ROWS)
    draft_length: int = not_negative(5, MOST_GUESSES)  # guesses per round; 0: the best by measured costs and acceptance
    max_new_tokens: int = positive(128, MOST_TOKENS)
    temperature: float = not_negative(0.0, 1e6)
    resamples: int = positive(10_000, 10_000_000)  # of the bootstrap behind intervals
    # Products of the measured models; "float32": in the parameters' type; "bfloat16", "auto": in bfloat16 with float32
    # sums where the machine has matrix units for it, which a short measurement decides.
    matmul: str = named(*MATMUL)


@dataclass
class Mesh:
    """Devices along each axis; -1 takes as many as divide the batch sizes, `fsdp` before `data`."""

    data: int = axis(-1)
    fsdp: int = axis(1)
    tensor: int = positive(1)
    # Draft and reference; "replicated": whole on every device, beside a target that is cut.
    draft: str = one_of("sharded", "replicated")


@dataclass
class Published:
    """Acceptance that the paper reports for this row, in percent; nothing is computed from it."""

    distillspec: float | None = within(0, 100, None)
    adaspec: float | None = within(0, 100, None)


@dataclass
class Experiment:
    """One run of the pipeline: target, reference, draft, evaluation."""

    seed: int = not_negative(0)
    dtype: str = one_of("float32", "bfloat16")  # of the computation; parameters in training and moments stay float32
    attention: str = one_of("xla", "cudnn")  # "cudnn": NVIDIA's fused kernel, in training and with dtype bfloat16
    # Frozen models: "recompute" at every step, or store "hidden" states, or "top_k" (inexact).
    teacher: str = one_of("auto", "recompute", "hidden", "top_k")
    # Where what the target says is stored: a directory that runs on the same target and text share; None: the workdir.
    teacher_store: str | None = None
    teacher_dtype: str = one_of("computed", "bfloat16")  # of stored hidden states
    teacher_top_k: int = positive(64, 2**24)  # entries of the target's law stored per label; the rest becomes one event
    # "auto": each stage gives up what it must, in the order of docs/plan.md, to fit.
    memory: str = one_of("as_written", "auto")
    layers: str = one_of("auto", "unrolled", "scanned")  # scanned: stacked, one compiled; auto: so on accelerators
    accelerator: str = one_of("any", "gpu", "tpu")  # "gpu" or "tpu": refuse to run where there is none
    # "auto": one run of several processes, found by the cluster or JAX_COORDINATOR_ADDRESS.
    distributed: str = one_of("off", "auto")
    loss_chunk: int = not_negative(0, 2**40)  # logits held at once, per device; 0: 2**23 on CPUs, 2**27 elsewhere
    data: Data = field(default_factory=Data)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    target: Target = field(default_factory=Target)
    answers: Answers = field(default_factory=Answers)
    reference: Reference = field(default_factory=Reference)
    draft: Draft = field(default_factory=Draft)
    qualifier: Qualifier = field(default_factory=Qualifier)
    evaluation: Evaluation = field(default_factory=Evaluation)
    mesh: Mesh = field(default_factory=Mesh)
    published: Published = field(default_factory=Published)
    checkpoint_every: int = positive(200)  # steps
    # A batch whose loss or gradient is not finite: "stop" with it and the last good model in DIR/STAGE/nonfinite, or
    # "skip" it, and stop after so many in a row.
    nonfinite: str = one_of("stop", "skip")
    most_skipped: int = positive(10, MOST_ROWS)  # such batches in a row
    # Where metrics go beside metrics.jsonl, with commas between them: each is an extra of the package by this name.
    metrics: str = several_of("tensorboard", "wandb", "trackio")
    # "draft:100-110" traces these steps of that stage with jax's profiler, into DIR/draft/profile; "": none.
    profile: str = steps_of("target", "reference", "draft", QUALIFIER)


def prompts_alone(answers: Answers, target: Target) -> bool:
    """Whether the training data is read for its prompts alone: the target is as it is, and answers them itself."""
    return answers.source == "target" and not target.epochs
