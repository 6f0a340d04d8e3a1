"""What strangers hand over, made wrong at random, and the doors it comes in by.

A door writes something into a folder that is its own and opens it as the package does. It returns, or raises UserError;
`Watch` sees to it that nothing runs, hangs, or is written elsewhere. All chance comes from one `random.Random`, which
may be hypothesis' own.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import jax
import numpy as np

from adaspec_jax import compare, data, models
from adaspec_jax.command_line import parse_experiment
from adaspec_jax.config import Experiment, flatten
from adaspec_jax.data.chat.template import CHATML, Refused
from adaspec_jax.data.prompts import Prompt
from adaspec_jax.data.questions import read_questions
from adaspec_jax.errors import UserError, refused_by_the_system
from adaspec_jax.measuring.asked import conversations_of, prompts_of
from adaspec_jax.measuring.records import Record, read_record, write_record
from adaspec_jax.methods import find_all, swept
from adaspec_jax.models import heads
from adaspec_jax.models.files.directories import described
from adaspec_jax.pipeline.workdir import Workdir
from adaspec_jax.retrieval.store import read_store, write_store
from tests import tiny_pair
from tests.faults.mutations import NAUGHTY, NUMBERS, changed, damaged, written
from tests.faults.watch import Watch
from tests.running import CHECKOUT

LLAMA = tiny_pair.LLAMA | {"vocab_size": tiny_pair.TOKENS}


@cache
def _pair() -> Path:
    """A small model with its tokenizer, made once in this process, and gone with it."""
    import atexit
    import shutil
    import tempfile

    place = Path(tempfile.mkdtemp(prefix="hostile."))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    tiny_pair.save_run(place / "run", target=LLAMA, draft=LLAMA | {"hidden_size": 8})
    return place


def prepare() -> None:
    """Makes what the doors' inputs are made of."""
    for make in (_tokenizer, _chat_tokenizer, _target, _head, _run, _store):
        make()


@cache
def _tokenizer():
    return tiny_pair.tokenizer()


def overrides(chance: Random, place: Path) -> None:
    keys = sorted(flatten(Experiment()))
    picked = [f"--config.{chance.choice(keys)}={chance.choice((*NAUGHTY, *map(str, NUMBERS)))}" for _ in range(2)]
    if chance.random() < 0.1:
        picked.append(chance.choice(NAUGHTY))
    variant = chance.choice(("", "", ":" + chance.choice(NAUGHTY)))
    parse_experiment(["train", "--config", f"{CHECKOUT}/configs/quickstart.py{variant}", *picked], description=None)


def config_file(chance: Random, place: Path) -> None:
    content = (CHECKOUT / "configs" / "quickstart.py").read_bytes()
    (place / "c.py").write_bytes(damaged(content, chance))
    parse_experiment(["train", "--config", str(place / "c.py")], description=None)


TASKS = {
    "gsm8k": {"question": "Tom has 2 apples. How many?", "answer": "He has 2.\n#### 2"},
    "alpaca": {"instruction": "Add.", "input": "1 and 1", "output": "2"},
    "mbpp": {"text": "Add.", "code": "def f(): return 2", "test_list": ["assert f() == 2"], "task_id": 1},
    "chat": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]},
    "xsum": {"document": "A long text. It goes on.", "summary": "A text."},
}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
TALKS = (
    TASKS["chat"],
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": "x"},
        ]
    },
    {"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
    {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]},
)


def rows(chance: Random, place: Path) -> None:
    """Files of training rows, and what they become as tokens."""
    task = chance.choice(sorted(TASKS))
    row = chance.choice(TALKS) if task == "chat" else TASKS[task]
    lines = [
        written(changed(row, chance) if chance.random() < 0.7 else row, chance) for _ in range(chance.choice((1, 3)))
    ]
    content, name = b"\n".join(lines), chance.choice(("r.jsonl", "r.jsonl", "r.json", "r.jsonl.gz", "r.parquet"))
    if name == "r.json":
        content = b"[" + b",".join(lines) + b"]"
    elif name.endswith(".gz"):
        content = gzip.compress(content)
        content = damaged(content, chance) if chance.random() < 0.3 else content
    (place / name).write_bytes(content)
    columns = chance.choice(({}, {}, {"prompt_column": "question"}, {"text_column": "document"}))
    source = data.load_examples(task, path=place / name, **columns)
    chat = data.chat_of(source.examples, _chat_tokenizer())
    data.encode(source.examples, _chat_tokenizer(), max_length=64, eos_id=0, chat=chat)


@cache
def _chat_tokenizer():
    made = tiny_pair.tokenizer()
    made.chat_template = CHATML
    return made


PIECES = (
    "{% for m in messages %}", "{% endfor %}", "{{ m.content }}", "{{ m['role'] }}", "{% if m.role == 'user' %}",
    "{% endif %}", "{{ messages|length }}", "{% set x = namespace(n=0) %}", "{{ raise_exception('no') }}",
    "{{ ''.__class__.__mro__ }}", "{{ cycler.__init__.__globals__.os.popen('touch owned').read() }}",
    "{{ self.__init__.__globals__ }}", "{% macro f() %}", "{% endmacro %}", "{{ f() }}", "{{ 'a' * 1000 }}",
    "{{ messages[99].content }}", "{{ 1/0 }}", "{{ bos_token }}", "{% include '/etc/passwd' %}", "{{ tools|tojson }}",
    "{% import 'os' as os %}", "{{ strftime_now('%d') }}", "{% generation %}", "{% endgeneration %}", "<|im_start|>",
    "{{ messages|tojson }}", "\n", "{%- if add_generation_prompt %}",
)  # fmt: skip


def template(chance: Random, place: Path) -> None:
    if chance.random() < 0.5:
        source = damaged(CHATML.encode(), chance)
    else:
        source = "".join(chance.choice(PIECES) for _ in range(chance.randrange(1, 9))).encode()
    (place / "t.jinja").write_bytes(source)
    made = data.chat.template_of(_tokenizer(), place / "t.jinja", chance.choice((None, '{"a": 1}', "[", "3")))
    talk = TASKS["chat"]["messages"]
    with contextlib.suppress(Refused):
        made.text(talk, answer_follows=chance.random() < 0.5)


def _one_file(chance: Random, place: Path, origin: Path, name: str, *, of_bytes: bool = False) -> Path:
    """A copy of a directory with one file of it made wrong."""
    shutil.copytree(origin, place / "d")
    file = place / "d" / name
    content = file.read_bytes()
    if of_bytes or chance.random() < 0.2:
        file.write_bytes(damaged(content, chance))
    else:
        file.write_bytes(written(changed(json.loads(content), chance), chance))
    return place / "d"


def tokenizer(chance: Random, place: Path) -> None:
    name = chance.choice(("tokenizer.json", "tokenizer_config.json"))
    made = data.load_tokenizer(_one_file(chance, place, _pair() / "run" / "tokenizer", name))
    data.fingerprint(made)
    text = chance.choice(NAUGHTY)
    with contextlib.suppress(UserError):
        data.text_of(data.prompt_ids(text, made), made)


def model_config(chance: Random, place: Path) -> None:
    directory = _one_file(chance, place, _pair() / "run" / "target", "config.json")
    models.asked_by(directory)
    described(json.loads((directory / "config.json").read_text()), directory)
    models.load(directory)


def generation_config(chance: Random, place: Path) -> None:
    directory = _one_file(chance, place, _pair() / "run" / "target", "generation_config.json")
    data.ends_of_text(_tokenizer(), models.asked_by(directory).ends)


def weights(chance: Random, place: Path) -> None:
    directory = _one_file(chance, place, _pair() / "run" / "draft", "model.safetensors", of_bytes=True)
    models.load(directory, dtype=chance.choice(("float32", "bfloat16", "float16")))


def header(chance: Random, place: Path) -> None:
    """A safetensors header that says other things than lie there."""
    shutil.copytree(_pair() / "run" / "draft", place / "d")
    file = place / "d" / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    said = written(changed(json.loads(content[8 : 8 + length]), chance), chance)
    size = chance.choice((len(said), len(said), len(said), 2**40, 2**63, 0))
    file.write_bytes(size.to_bytes(8, "little") + said + content[8 + length :])
    models.load(place / "d")


def index(chance: Random, place: Path) -> None:
    shutil.copytree(_pair() / "run" / "draft", place / "d")
    names = ["model-00001-of-00001.safetensors", "../x.safetensors", "/etc/passwd", "pytorch_model.bin"]
    (place / "d" / "model.safetensors").rename(place / "d" / names[0])
    said = {"metadata": {"total_size": 1}, "weight_map": {"a": names[0], "b": chance.choice(names)}}
    (place / "d" / "model.safetensors.index.json").write_bytes(written(changed(said, chance), chance))
    models.load(place / "d")


def head(chance: Random, place: Path) -> None:
    origin = _head()
    name = chance.choice(sorted(file.name for file in origin.iterdir()))
    directory = _one_file(chance, place, origin, name, of_bytes=name.endswith("safetensors"))
    models.load_head(directory, _target())


@cache
def _target():
    return models.load(_pair() / "run" / "target")


@cache
def _head() -> Path:
    kind = heads.made_for("medusa", {}, heads.Sizes.of(_target().config))
    counts_V = np.arange(tiny_pair.TOKENS)
    models.save_head(heads.new(kind, _target(), jax.random.key(0), counts_V), _pair() / "head")
    return _pair() / "head"


@cache
def _store() -> Path:
    write_store(_pair() / "store", [[1, 2, 3], [2, 3, 4]], tokenizer="t", source="s")
    return _pair() / "store"


def datastore(chance: Random, place: Path) -> None:
    origin = _store()
    name = chance.choice(sorted(file.name for file in origin.iterdir()))
    read_store(_one_file(chance, place, origin, name, of_bytes=not name.endswith(".json")), tokenizer="t")


QUESTION = {
    "question_id": 1,
    "category": "qa",
    "turns": ["Who?", "Why?"],
    "question": "Who?",
    "answers": ["He"],
    "ctxs": [{"text": "x"}],
}


def questions(chance: Random, place: Path) -> None:
    lines = [written(changed(QUESTION, chance), chance) for _ in range(2)]
    name = chance.choice(("q.jsonl", "q.jsonl.gz", "q.json"))
    content = b"\n".join(lines) if name != "q.json" else b"[" + b",".join(lines) + b"]"
    (place / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    if chance.random() < 0.5:
        prompts_of(str(place / name), None, 1, path=None, split="test", seed=0)
        return
    if chance.random() < 0.5:
        conversations_of(str(place / name), 2, assistants=())
        return
    read_questions(place / name, chance.choice((None, 1)), column=chance.choice(("question", "turns", "ctxs")))


def record(chance: Random, place: Path) -> None:
    prompt = Prompt("1", "", "qa", 0, (1, 2))
    write_record(place / "r.json", Record({"tokens": 5}, (prompt,), ((3, 4),), 0))
    said = changed(json.loads((place / "r.json").read_text()), chance)
    (place / "r.json").write_bytes(written(said, chance))
    read_record(place / "r.json", {"tokens": 5})


REPORT = CHECKOUT / "benchmarks" / "results" / "quickstart.json"


def report(chance: Random, place: Path) -> None:
    (place / "report.json").write_bytes(written(changed(json.loads(REPORT.read_text()), chance), chance))
    compare.read(place / "report.json")


def workdir(chance: Random, place: Path) -> None:
    names = ("config.json", "decisions.json", "target/stage.json", "target/config.json")
    run = _one_file(chance, place, _run(), chance.choice(names))
    made = Workdir(run)
    config = Experiment()
    made.claim(config)
    made.finished_report(config.evaluation, config.data, ("target", "draft"))
    made.vocab_size("target")
    made.draft_length()
    made.trained_on("draft")


@cache
def _run() -> Path:
    run = _pair() / "claimed"
    made = Workdir(run)
    made.claim(Experiment())
    made.decide("teacher", {"choice": "hidden"})
    for name in ("target", "draft"):
        shutil.copytree(_pair() / "run" / name, run / name)
        made.finish(name, {"steps": 1, "examples_sha256": "x", "tokens_sha256": "y"})
    return run


def method_names(chance: Random, place: Path) -> None:
    names = ("vanilla", "prompt_lookup", "rest", "medusa", "suffix", "lookahead", "anpd", "llma")
    found = find_all(",".join(chance.choice((*names, *names, *NAUGHTY)) for _ in range(chance.choice((1, 2)))))
    knob = chance.choice(("length", "ngram", "vanilla.draft_length", chance.choice(NAUGHTY)))
    swept(found, knob + chance.choice(("=", "=", "")) + chance.choice((*NAUGHTY, "1,2", "2", *map(str, NUMBERS))))


def prompts(chance: Random, place: Path) -> None:
    text = "".join(chance.choice(NAUGHTY) for _ in range(chance.choice((0, 1, 3))))
    ids = data.prompt_ids(text, _tokenizer())
    data.text_of(ids, _tokenizer())
    np.asarray(ids, np.int32)


Door = Callable[[Random, Path], None]
DOORS: dict[str, Door] = {
    door.__name__: door
    for door in (
        overrides, config_file, rows, template, tokenizer, model_config, generation_config, weights, header, index,
        head, datastore, questions, record, report, workdir, method_names, prompts,
    )
}  # fmt: skip


TAKEN, REFUSED = "taken", "refused"


def opened(door: Door, chance: Random, place: Path, watch: Watch) -> str:
    """`TAKEN`, `REFUSED` in one line, or what is wrong with how a door took what it was given."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    outcome = TAKEN
    try:
        with watch.over(place):
            door(chance, place)
    except UserError as error:
        outcome = REFUSED if len(str(error)) < 20_000 else f"a complaint of {len(str(error))} characters"
    except SystemExit as error:
        return f"SystemExit {error}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of Rust's is no Exception
        if refused_by_the_system(error) is None:  # which every command says in one line
            return f"{type(error).__name__}: {error}"
        outcome = REFUSED
    return watch.seen[0] if watch.seen else outcome
