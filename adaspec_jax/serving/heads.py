"""Which servers take a trained head beside a target, and with which config.json: what `head_servers` says, judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaspec_jax.drafter_file import LAYOUT
from adaspec_jax.serving import commands
from adaspec_jax.serving.engines import ENGINES, heads_in_vllm
from adaspec_jax.serving.head_servers import SERVERS, SGLANG_CLASSES, TPU_SERVERS, VLLM_CLASSES, Server
from adaspec_jax.serving.published import head_size
from adaspec_jax.serving.verdicts import ANY, Verdict, asked_about

_SPECULATORS = ("eagle3", "llama")  # the kind and the layer of which vLLM makes its own class


def takers(kind: str, family: str | None = None) -> list[str]:
    """The servers of heads of a kind, beside targets of a family or of any."""
    return [
        name for name, server in SERVERS.items() if kind in server.families and family in (None, *server.families[kind])
    ]


def warnings_for(kind: str, family: str) -> list[str]:
    """What should be known before a head is trained: that no server takes it, and what is taken instead."""
    if takers(kind, family):
        return []
    if not takers(kind):
        return [f"no server takes a head of the kind {kind}: it is decoded here alone; {_instead(family)}"]
    reasons = "; ".join(f"{name}: {_family_reason(name, kind, family)}" for name in takers(kind))
    return [f"no server takes {kind} beside a {family} target ({reasons}); {_instead(family)}"]


def config_for(layout: str, kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A saved head's config.json as the servers of a `layout` read it, "vllm" or "sglang"."""
    config, own = dict(config), dict(config.get("eagle_config") or {})
    classes = {"vllm": VLLM_CLASSES, "sglang": SGLANG_CLASSES}[layout]
    config[LAYOUT] = layout
    if kind in classes:
        config["architectures"] = [classes[kind][0]]
    if layout == "sglang" and (ids := own.get("eagle_aux_hidden_state_layer_ids")):
        config["eagle_config"] = own | {"eagle_aux_hidden_state_layer_ids": [each - 1 for each in ids]}
    return config


def judge_head(
    target: str,
    target_config: Mapping[str, Any],
    head: str,
    kind: str,
    config: Mapping[str, Any],
    draft_length: int,
    device: str = ANY,
) -> dict[str, Verdict]:
    """Each server's verdict on a head beside a target, of their names and their config.json, by the server's name."""
    family, verdicts = str(target_config.get("model_type")), {}
    for name, server in SERVERS.items():
        devices = () if device == ANY and name in TPU_SERVERS else asked_about(device)
        read = _read(config, server)
        reasons = _sizes_reasons(target_config, read)
        if not is_known(kind, config):
            reasons.append(f"heads of the kind {kind} are not known here: look for it in {name}'s own documentation")
        elif kind not in server.families:
            reasons.append(f"it takes no {kind} heads, only {', '.join(server.families)}")
        elif family not in server.families[kind]:
            reasons.append(f"{_family_reason(name, kind, family)}; {_instead(family)}")
        else:
            reasons += _config_reasons(server, kind, read, target_config)
        command = _COMMANDS[name](target, head, kind, in_a_row(kind, config, draft_length))
        on = {each: _on(name, each, kind, target_config, read) for each in devices}
        verdicts[name] = Verdict(reasons, command, _notes(name, kind, read, family), on)
    return verdicts


def _on(name: str, device: str, kind: str, target: Mapping[str, Any], head: Mapping[str, Any]) -> list[str]:
    """What is against a head on one device alone."""
    if (device == "tpu") != (name in TPU_SERVERS):
        return [f"it does not run there; {' and '.join(TPU_SERVERS) if device == 'tpu' else 'vLLM and SGLang'} do"]
    if name == "SGLang" and device == "cpu":
        return [ENGINES[name].elsewhere[device]]
    if name != "vLLM":
        return []
    sizes = {"target": head_size(target)} | ({} if kind == "medusa" else {"head": head.get("head_dim")})
    mends = {"target": "use another engine", "head": "train one with head_dim 32 or 64"}
    return [said for role, size in sizes.items() for said in heads_in_vllm(device, role, size, mends[role])]


def is_known(kind: str, config: Mapping[str, Any]) -> bool:
    """Whether it is known here who takes heads of the kind, or that nobody does: it is one of this project's."""
    return bool(takers(kind)) or config.get("model_type") == f"adaspec_{kind}"


def in_a_row(kind: str, config: Mapping[str, Any], draft_length: int) -> int:
    """How many guesses a server should be asked for: vLLM does not start where Medusa's heads are fewer.

    A block that was trained whole is guessed whole.
    """
    if kind == "dflash" and isinstance(config.get("block_size"), int):
        return config["block_size"] - 1
    heads = config.get("num_heads", config.get("medusa_num_heads")) if kind == "medusa" else None
    return min(draft_length, heads) if heads else draft_length


def refusal(kind: str, target: Mapping[str, Any], config: Mapping[str, Any], layout: str) -> str | None:
    """Why no server of a layout takes a head of this config.json beside a target of that one; None where one does."""
    family = str(target.get("model_type"))
    if said := warnings_for(kind, family):
        return said[0]
    served = [name for name in takers(kind, family) if SERVERS[name].layout == layout]
    if not served:
        others = ", ".join(takers(kind, family))
        return f"{' and '.join(_of(layout))} take no {kind} beside a {family} target; {others} does"
    reasons = {name: _config_reasons(SERVERS[name], kind, config, target) for name in served}
    return None if not all(reasons.values()) else "; ".join(f"{name}: {said[0]}" for name, said in reasons.items())


def _read(config: Mapping[str, Any], server: Server) -> Mapping[str, Any]:
    """A config.json as a server sees it; vLLM knows EAGLE-3 in the speculators library's, whose layer lies apart."""
    layer = config.get("transformer_layer_config")
    if not isinstance(layer, Mapping):
        return config
    read = {**layer, "norm_before_residual": True, **config}
    if server.layout == "vllm" and (config.get("speculators_model_type"), layer.get("model_type")) == _SPECULATORS:
        read["architectures"] = [VLLM_CLASSES["eagle3"][0]]
    return read


def _of(layout: str) -> list[str]:
    return [name for name, server in SERVERS.items() if server.layout == layout]


def _instead(family: str) -> str:
    kinds = [kind for kind in ("eagle3", "eagle", "medusa") if takers(kind, family)]
    if not kinds:
        return f"none takes any head beside {family}: train a plain draft"
    return f"beside {family}: " + ", ".join(f"{kind} ({', '.join(takers(kind, family))})" for kind in kinds)


def _family_reason(name: str, kind: str, family: str) -> str:
    server = SERVERS[name]
    why = server.why.get(family)
    known = ", ".join(server.families[kind])
    return f"{why}" if why else f"it takes {kind} beside {known}, not beside {family}"


def _sizes_reasons(target: Mapping[str, Any], head: Mapping[str, Any]) -> list[str]:
    hidden = target.get("hidden_size") or target.get("n_embd")
    sizes = {"hidden_size": (hidden, head.get("target_hidden_size") or head.get("hidden_size"))}
    sizes["vocab_size"] = (target.get("vocab_size"), head.get("vocab_size"))
    return [
        f"{key} is {theirs} in the head and {own} in the target: it belongs to another"
        for key, (own, theirs) in sizes.items()
        if None not in (own, theirs) and own != theirs
    ]


def _config_reasons(server: Server, kind: str, config: Mapping[str, Any], target: Mapping[str, Any]) -> list[str]:
    own, reasons = _own(config), []
    for key, why in server.switches.items():
        if config.get(key) or own.get(key):
            reasons.append(f'"{key}" is set in config.json, and {why}')
    known, classes = server.classes.get(kind, ()), config.get("architectures") or ["none"]
    if known and (len(classes) != 1 or classes[0] not in known):
        reasons.append(
            f"config.json has the class {', '.join(map(str, classes))} and it knows {known[0]}: that is what "
            f"adaspec_jax.export --for {server.layout} writes of a run's stage; in another's file change the name"
        )
    return reasons + (_layers_reasons(server, config, target) if kind in ("eagle3", "p_eagle") else [])


def _layers_reasons(server: Server, config: Mapping[str, Any], target: Mapping[str, Any]) -> list[str]:
    """What is wrong with the layers that EAGLE-3's config.json names."""
    ids = _ids(config)
    count = target.get("num_hidden_layers") or target.get("n_layer") or 0
    if not ids:
        return [f"config.json names no layers, and of {count} those it reads are not three"] if count < 7 else []
    if server.own_layers:
        own = [2, count // 2, count - 3] == [each + (config.get(LAYOUT) == "sglang") for each in ids]
        return [] if own else [f"config.json names the layers {ids}, and it reads 2, L / 2 and L - 3 whatever is there"]
    if config.get(LAYOUT) not in (None, server.layout):
        whose = " and ".join(_of(config[LAYOUT]))
        return [f"config.json numbers layers as {whose} do: use adaspec_jax.export --for {server.layout}"]
    if max(ids) > count + server.last:
        return [
            f"config.json names the layer {max(ids)}, and it reads none above {count + server.last} of {count}: give "
            "the head other taps"
        ]
    return []


def _ids(config: Mapping[str, Any]) -> list[int] | None:
    """The layers that EAGLE-3's config.json names, by its own numbers; None where it names none."""
    key = "eagle_aux_hidden_state_layer_ids"
    ids = config.get(key) or _own(config).get(key)
    return ids if isinstance(ids, list) and all(isinstance(each, int) for each in ids) else None


def _own(config: Mapping[str, Any]) -> Mapping[str, Any]:
    own = config.get("eagle_config")
    return own if isinstance(own, Mapping) else {}


def _notes(name: str, kind: str, config: Mapping[str, Any], family: str) -> list[str]:
    notes = []
    if name == "vLLM" and kind == "medusa":
        notes.append("its heads guess one chain of their likeliest tokens, no tree")
    if (ids := _ids(config)) and config.get(LAYOUT) is None and SERVERS[name].layout == "sglang":
        notes.append(f"it adds one to the layers {ids} of config.json: adaspec_jax.export --for sglang has them so")
    if name == "vLLM" and kind == "p_eagle":
        notes.append("its model runner V2 has no such heads; where it would take that: VLLM_USE_V2_MODEL_RUNNER=0")
    if name == "vLLM" and kind == "eagle" and config.get("bias"):
        notes.append("it leaves the bias of fc out, so that fewer guesses are right")
    if name == "vLLM" and kind == "eagle" and family == "phi":
        notes.append(
            "it leaves the bias of Phi's output matrix out, so that fewer guesses are right: an eagle3 head has a "
            "matrix of its own"
        )
    if kind == "eagle3" and name == "tpu-inference" and config.get("draft_vocab_size") == config.get("vocab_size"):
        notes.append("it may want a d2t, which a head over all tokens has not: give the head a vocabulary of its own")
    if name in TPU_SERVERS:
        notes.append("it computes in bfloat16; not run here")
    return notes


def vllm_method(kind: str) -> tuple[str, bool]:
    """(the method by which vLLM serves heads of a kind, whether it must be told that they guess in one pass)."""
    return ("eagle3", True) if kind == "p_eagle" else (kind, False)


def _vllm(target: str, head: str, kind: str, length: int) -> str:
    method, in_one_pass = vllm_method(kind)
    return commands.vllm(target, commands.vllm_draft(head, length, method, in_one_pass=in_one_pass))


def _sglang(program: str):
    def command(target: str, head: str, kind: str, length: int) -> str:
        return commands.sglang(target, head, length, algorithm=kind.upper(), program=program)

    return command


_COMMANDS = {"vLLM": _vllm, "tpu-inference": _vllm, "SGLang": _sglang("sglang"), "sglang-jax": _sglang("sgl_jax")}
