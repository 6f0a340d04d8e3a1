"""What a model's own files ask of decoding: where its text ends, how to sample, and what is not to be had here.

As `model.generate` of transformers reads them: a generation_config.json stands alone; without one config.json counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from adaspec_jax.errors import UserError
from adaspec_jax.files import read_json

FILE = "generation_config.json"
# What is here, with values that ask for nothing; the first only where the model is to be sampled.
_SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
_PROCESSORS = {"repetition_penalty": 1.0, "suppress_tokens": None, "sequence_bias": None}
# What is not here and changes text, with values that ask for nothing; None and empty ones never do.
_LACKING = {
    "no_repeat_ngram_size": 0,
    "begin_suppress_tokens": None,
    "bad_words_ids": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "exponential_decay_length_penalty": None,
    "guidance_scale": 1.0,
    "watermarking_config": None,
    "penalty_alpha": None,
    "dola_layers": None,
    "num_beams": 1,
    "stop_strings": None,
}
_LACKING_IN_SAMPLING = {"typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "top_h": None}


class Asked(NamedTuple):
    """What a directory's files ask of decoding."""

    ends: tuple[int, ...] | None  # any of them ends the text; (): none does; None: no file says anything of ends
    closing: tuple[int, ...]  # ends that config.json names, in use or not
    sampling: dict[str, Any]  # what is here, by the names of `Sampling`
    lacking: dict[str, Any]  # what transformers would do beside, and is not here

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user of the model should know, a line each."""
        said = []
        if self.ends == () and self.closing:
            said.append(
                f"{FILE} names no end of text, so that text never ends by itself, as in transformers; put into it what "
                f'config.json has, "eos_token_id": {list(self.closing)}'
            )
        if self.sampling:
            flags = " ".join(f"--{name} {_spelt(value)}" for name, value in self.sampling.items())
            said.append(f"{FILE} asks for {flags}: given so it is done, where the command has these")
        if self.lacking:
            asked = ", ".join(f"{name} {value}" for name, value in self.lacking.items())
            said.append(f"{FILE} asks for {asked}, which is not to be had here: transformers' text will be another")
        return tuple(said)


NOTHING = Asked(None, (), {}, {})


def read_generation_config(directory: Path) -> dict[str, Any] | None:
    """The file's content; None where it is absent; UserError where it is no JSON object."""
    return read_json(directory / FILE) if (directory / FILE).is_file() else None


def asked(config: Mapping[str, Any], generation: Mapping[str, Any] | None, *, origin: str = "") -> Asked:
    """What a config.json and a generation_config.json (None: absent) ask; UserError for what are no ids of tokens."""
    vocab_size = config.get("vocab_size")
    own = end_ids(config, vocab_size, file=f"{origin}config.json")
    if generation is None:
        return Asked(own or None, own or (), {}, {})
    ends = end_ids(generation, vocab_size, file=f"{origin}{FILE}")
    sampled = generation.get("do_sample") is True
    here = _beyond(generation, (_SAMPLING if sampled else {}) | _PROCESSORS)
    lacking = _beyond(generation, _LACKING | (_LACKING_IN_SAMPLING if sampled else {}))
    if (bias := here.pop("sequence_bias", None)) is not None:
        singles = _singles(bias)
        (lacking if singles is None else here).update(
            {"sequence_bias": bias} if singles is None else {"logit_bias": singles}
        )
    return Asked(None if not ends and not own else ends or (), own or (), here, lacking)


def end_ids(hf: Mapping[str, Any], vocab_size: Any, *, file: str) -> tuple[int, ...] | None:
    """The ends of text a file names, in its order; None where it says nothing; UserError for anything but ids."""
    value = hf.get("eos_token_id")
    if value is None:
        return None
    ids = value if isinstance(value, list) else [value]
    limit = vocab_size if isinstance(vocab_size, int) else 2**31
    for i in ids:
        if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < limit:
            raise UserError(
                f'{file}: "eos_token_id" is {value!r}; an id from 0 to {limit - 1}, or a list of them, is needed'
            )
    return tuple(dict.fromkeys(ids))


def _singles(bias: Any) -> dict[int, float] | None:
    """transformers' [[[token], bias], ...] by token; None where sequences are longer, or it is another form."""
    try:
        return {int(token): float(value) for (token,), value in bias}
    except (TypeError, ValueError):
        return None


def _spelt(value: Any) -> str:
    """As the command line takes it."""
    if isinstance(value, dict):
        return ",".join(f"{token}={added:g}" for token, added in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else f"{value:g}"


def _beyond(given: Mapping[str, Any], neutral: Mapping[str, Any]) -> dict[str, Any]:
    """What is given and asks for something."""
    values = {name: given.get(name) for name in neutral}
    return {name: value for name, value in values.items() if value not in (None, [], {}, neutral[name])}
