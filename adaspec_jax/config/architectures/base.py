"""What every family's dataclass offers, in Hugging Face's config.json keys."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from adaspec_jax.config.architectures.rotary import CONTEXT, ROPES, Rope

ROWS, WIDE, MANY = 2**24, 2**20, 2**16  # the most of a vocabulary, of features, and of layers or heads
FULL, SLIDING = "full_attention", "sliding_attention"  # kinds of layers in `layer_types`


@dataclasses.dataclass
class Architecture:
    """What a family's dataclass offers: its config.json, and what cannot work in it."""

    CLASS: ClassVar[str]  # as transformers calls it
    WIDTH: ClassVar[str] = "hidden_size"
    HEADS: ClassVar[str] = "num_attention_heads"
    DEPTH: ClassVar[str] = "num_hidden_layers"
    NULL: ClassVar[tuple[str, ...]] = ()  # keys that are written where they are None: there null says something
    # Of a config.json that lacks the key, where that is not the default here, which is a known model's.
    ABSENT: ClassVar[Mapping[str, Any]] = {}
    # A key of the new `rope_parameters`: where the old form has it.
    ROTARY: ClassVar[Mapping[str, str]] = {
        "rope_theta": "rope_theta",
        "partial_rotary_factor": "partial_rotary_factor",
    }
    LOCAL: ClassVar[Mapping[str, str]] = {}  # and of layers with a window, where these have a rotation of their own
    ALSO: ClassVar[Mapping[str, str]] = {}  # a key: its other name
    STRETCHES: ClassVar[Mapping[str, type[Rope]]] = ROPES  # what may stretch its rotation, as config.json calls it

    def hf_config(self) -> dict[str, Any]:
        """The config.json of this architecture; what is None follows from the rest, and is left out."""
        said = _plain(dataclasses.asdict(self))
        given = {key: value for key, value in said.items() if value is not None or key in self.NULL}
        if context := (given.get("rope_scaling") or {}).pop(CONTEXT, None):
            given[CONTEXT] = context
        return given | {"architectures": [self.CLASS]}

    @property
    def num_layers(self) -> int:
        return getattr(self, self.DEPTH)

    def by_number(self) -> dict[str, tuple[Any, ...]]:
        """What follows from a layer's number where config.json does not say it of each; {} where layers are alike."""
        return {}

    def by_layer(self) -> dict[str, tuple[Any, ...]]:
        """What config.json says of each layer, or would if it said it."""
        said = {key: getattr(self, key) for key in self.by_number()}
        return {key: rule if said[key] is None else said[key] for key, rule in self.by_number().items()}

    def of_layers(self, layers: Sequence[int]) -> "Architecture":
        """The same architecture with these layers alone, by number; those that it has not are for others to name."""
        said = self.by_layer()
        known = [layer for layer in layers if type(layer) is int and 0 <= layer < self.num_layers]
        left = {key: tuple(values[layer] for layer in known if layer < len(values)) for key, values in said.items()}
        return dataclasses.replace(self, **{self.DEPTH: len(layers)}, **left).in_short()

    def in_short(self) -> "Architecture":
        """The same, silent on what follows from a layer's number."""
        short = self
        for key in self.by_layer():
            silent = dataclasses.replace(short, **{key: None})
            short = silent if silent.by_layer() == short.by_layer() else short
        return short

    def mistake(self) -> str | None:
        """What cannot work, in a line that names the keys; None where all is well."""
        return self._not_multiple(self.WIDTH, self.HEADS) or self._not_by_layer()

    def _not_multiple(self, whole: str, part: str) -> str | None:
        a, b = getattr(self, whole), getattr(self, part)
        return f"{whole} {a} is not a multiple of {part} {b}" if a % b else None

    def _odd(self, share: str) -> str | None:
        """Of a head's features so many are turned, in pairs."""
        turned = int(getattr(self, self.WIDTH) // getattr(self, self.HEADS) * getattr(self, share))
        return f"{share} turns {turned} features of a head, and pairs are needed" if turned % 2 else None

    def _not_by_layer(self) -> str | None:
        for key in ("layer_types", "no_rope_layers"):
            said = getattr(self, key, None)
            if said is not None and len(said) != self.num_layers:
                return f"{key} says something of {len(said)} layers, and {self.DEPTH} is {self.num_layers}"
        if SLIDING in (getattr(self, "layer_types", None) or ()) and getattr(self, "sliding_window", None) is None:
            return f"layer_types has {SLIDING}, and sliding_window is None"
        return None


class Grouped(Architecture):
    """Query heads in groups that share keys and values; heads may have a size of their own."""

    def mistake(self) -> str | None:
        own_size = getattr(self, "head_dim", None) is not None
        groups = getattr(self, "num_key_value_heads")  # noqa: B009  (of the dataclasses that follow)
        grouped = self._not_multiple(self.HEADS, "num_key_value_heads") if groups else None
        return (self._not_by_layer() if own_size else super().mistake()) or grouped


def _plain(said: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it, without what is None inside of groups."""
    plain = {}
    for key, value in said.items():
        if isinstance(value, Mapping):
            value = {inside: found for inside, found in _plain(value).items() if found is not None}
        plain[key] = list(value) if isinstance(value, tuple) else value
    return plain
