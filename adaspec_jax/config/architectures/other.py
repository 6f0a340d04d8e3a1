"""A family that has no dataclass of its own: its config.json, as it is."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaspec_jax.config.architectures.base import Architecture

_DEPTHS = ("num_hidden_layers", "n_layer")
_BESIDE: tuple[str, ...] = (
    "transformers_version",
    "_name_or_path",
    "torch_dtype",
    "dtype",
    "use_cache",
)  # of no model's function
_BESIDE += ("eos_token_id", "bos_token_id", "pad_token_id")  # which the tokenizer says


@dataclass
class Described(Architecture):
    """A model by its config.json alone; whether the family is known here is found out where the model is made."""

    config_json: str = "{}"
    model_type: str = ""

    @classmethod
    def of(cls, hf: Mapping[str, Any]) -> "Described":
        kept = {key: value for key, value in hf.items() if key not in _BESIDE}
        return cls(json.dumps(kept, sort_keys=True), str(hf["model_type"]))

    def hf_config(self) -> dict[str, Any]:
        return json.loads(self.config_json)

    @property
    def num_layers(self) -> int:
        hf = self.hf_config()
        return hf[self._depth(hf)]

    @property
    def vocab_size(self) -> int:
        return self.hf_config()["vocab_size"]

    def of_layers(self, layers: Sequence[int]) -> Architecture:
        """Of what config.json says of each layer, that of these; what it leaves to their numbers is taken anew."""
        hf, count = self.hf_config(), self.num_layers
        known = [layer for layer in layers if type(layer) is int and 0 <= layer < count]
        for key, value in hf.items():
            if "layer" in key and isinstance(value, list) and len(value) == count:
                hf[key] = [value[layer] for layer in known]
        hf[self._depth(hf)] = len(layers)
        return dataclasses.replace(self, config_json=json.dumps(hf, sort_keys=True))

    def mistake(self) -> str | None:
        hf = self.hf_config()
        for key in ("vocab_size", self._depth(hf)):
            if type(value := hf.get(key)) is not int or value < 1:
                return f'its config.json has "{key}" {value!r}; an integer above 0 is needed'
        return None

    @staticmethod
    def _depth(hf: Mapping[str, Any]) -> str:
        return next((key for key in _DEPTHS if key in hf), _DEPTHS[0])
