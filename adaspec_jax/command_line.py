"""Arguments of the command-line programs: every mistake in them is one line.

`--config FILE[:variant]` with overrides is read by ml_collections, plain options by argparse.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from adaspec_jax import voice
from adaspec_jax.config import CUT, RANDOM, Experiment, architecture_of, validate, with_cut
from adaspec_jax.config.remarks import keys_in_words
from adaspec_jax.config_files import LIST, listed, with_files
from adaspec_jax.errors import UserError, did_you_mean, nearest_of
from adaspec_jax.files import read_json
from adaspec_jax.options import number_of, one_of, spelt
from adaspec_jax.places import ADAPTER, file_of, find_local, only_an_adapter
from adaspec_jax.program import usage, versions

_KNOB = "--method."
_MODELS = ("target", "draft", "qualifier")
_ARCHITECTURES = tuple(f"--config.{name}.architecture" for name in _MODELS)
_SPEAKING = {"quiet": voice.QUIET_HELP, "log_format": voice.FORMAT_HELP}
_OPTIONS = ("config", "workdir", "print_config", "help", "version", *_SPEAKING)
_NEED_VALUES = ("--config", "--workdir", "--log_format")


class Options(NamedTuple):
    """What stands on the command line beside the config, and what the config was completed by."""

    workdir: str | None
    print_config: bool
    described: dict[str, dict[str, Any]]  # config.json of "target" and "draft", where that says their architecture
    command: tuple[str, ...]  # what --config was given, and the overrides


def parse_experiment(
    argv: list[str], *, description: str | None, others: Iterable[str] = ()
) -> tuple[Experiment, Options]:
    """The overridden, validated config, in which each model has its architecture, and the other options.

    `others`: options of this command that were taken out of `argv`. How it is to speak holds from here on.
    """
    from absl import flags
    from ml_collections import config_flags

    if "--version" in argv:
        print(versions())
        raise SystemExit(0)
    if _config_argument(argv) == LIST and not Path(LIST).is_file():
        print(f"Configs that come with the package:\n\n{listed()}")
        raise SystemExit(0)
    argv = _in_one_spelling(argv, (*_OPTIONS, *others))
    _speak(argv)
    argv, unsaid = _take_unsaid(with_files(argv))
    values = flags.FlagValues()
    flags.DEFINE_boolean("print_config", False, "Prints the resolved config and exits.", flag_values=values)
    flags.DEFINE_string("workdir", None, "Where stages, metrics and reports go.", flag_values=values)
    overrides = [argument for argument in argv if argument.startswith("--config.")]
    rest = [argument for argument in argv if argument not in overrides]
    config_flags.DEFINE_config_file(
        "config", None, "The experiment: FILE.py[:variant].", flag_values=values, sys_argv=argv
    )
    given = _config_argument(rest)
    if {"-h", "--help"} & set(argv):
        config = load_config(given) if given else Experiment()
        print(f"usage: {usage(description)}")
        print(f"\nA config goes by its file, or by the name of one that --config={LIST} shows.")
        print("Also, and - is as good as _ in the name of an option:")
        print("\n".join(f"  --{name}: {said}" for name, said in _SPEAKING.items()))
        print(f"\nKeys to override, with {given or 'their default'} values:")
        print("\n".join(keys_in_words(config)))
        raise SystemExit(0)
    if given:
        _check_keys(load_config(given), overrides)
    try:
        left = values(argv)
    except UserError:
        raise
    except (flags.Error, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{_plain(error)}; see --help") from error
    if len(left) > 1:
        raise UserError(f'unexpected argument "{left[1]}"; options start with -- and overrides with --config.')
    if values.config is None:
        raise UserError("--config is missing; for a first run: --config=quickstart")
    for option in unsaid:
        getattr(values.config, option.split(".")[1]).architecture = None
    config, described = _completed(values.config, overrides)
    validate(config)
    unset = [f"{option}=None" for option in unsaid]
    return config, Options(values.workdir, values.print_config, described, (str(given), *overrides, *unset))


def take_option(argv: list[str], name: str, *, flag: bool = False) -> str | None:
    """The value of --name, taken out of `argv` before the config's flags are parsed; "" for a flag that is there."""
    for index, argument in enumerate(map(spelt, argv)):
        if argument == f"--{name}":
            if flag:
                argv.pop(index)
                return ""
            if index + 1 == len(argv):
                raise UserError(f"--{name} needs a value; see --help")
            del argv[index]
            return argv.pop(index)
        if argument.startswith(f"--{name}=") and not flag:
            return argv.pop(index).partition("=")[2]
    return None


def _in_one_spelling(argv: list[str], known: Sequence[str]) -> list[str]:
    """With _ for every - in options' names; UserError for an option of none of the `known` names.

    What follows an option that needs a value, and has none, is that, and stays as it is.
    """
    found = argv[:1]
    for before, argument in pairwise(argv):
        if not argument.startswith("--") or spelt(before) in _NEED_VALUES:
            found.append(argument)
            continue
        found.append(spelt(argument))
        name = found[-1].removeprefix("--").partition("=")[0]
        if not name.startswith(("config.", "noconfig.")) and not {name, name.removeprefix("no")} & set(known):
            raise UserError(f"there is no option --{name}{_near_option(name, known) or '; see --help'}")
    return found


def _near_option(name: str, known: Sequence[str]) -> str:
    """That the nearest of these names was perhaps meant, or `config` where a key of it follows."""
    first, dot, key = name.partition(".")
    known = ("config",) if dot else known
    near = nearest_of(first, known)
    return f'; did you mean "--{near}{dot}{key}"?' if near else ""


def _speak(argv: list[str]) -> None:
    """Takes out how the command is to speak."""
    quiet = take_option(argv, "quiet", flag=True) is not None
    log_format = take_option(argv, "log_format") or voice.FORMATS[0]
    voice.speak(quiet=quiet, log_format=number_of("log_format", log_format, one_of(*voice.FORMATS)["type"]))


def take_knobs(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments without those that set a method's knobs (--method.NAME=VALUE), and these."""
    kept, knobs = [], {}
    for argument in argv:
        if not argument.startswith(_KNOB):
            kept.append(argument)
            continue
        name, equals, value = spelt(argument).removeprefix(_KNOB).partition("=")
        if not (name and equals):
            raise UserError(f"{argument}: give {_KNOB}NAME=VALUE")
        knobs[name] = value
    return kept, knobs


def say_notes(notes: Iterable[str]) -> None:
    """What the user should know beside the result, on standard error."""
    for line in notes:
        voice.say(f"note: {line}")


def print_config(config: Experiment) -> None:
    print(json.dumps(dataclasses.asdict(config), indent=2))


def _take_unsaid(argv: list[str]) -> tuple[list[str], list[str]]:
    """The arguments without those that leave an architecture to config.json, and the keys of these."""
    # The flags library can set no group of keys to None.
    unsaid = [option for option in _ARCHITECTURES if f"{option}=None" in argv]
    for option in unsaid:
        if set_too := [argument for argument in argv if argument.startswith(f"{option}.")]:
            raise UserError(f"{option}=None and {set_too[0]} contradict each other; leave one out")
    return [argument for argument in argv if argument.removesuffix("=None") not in unsaid], unsaid


def _completed(config: Experiment, overrides: list[str]) -> tuple[Experiment, dict[str, dict[str, Any]]]:
    """The config with every architecture that is left to a config.json, or to the target's layers; and the former."""
    described, models = {}, {}
    for name, option in zip(_MODELS, _ARCHITECTURES, strict=True):
        model = models[name] = getattr(config, name)
        given = [argument for argument in overrides if argument.startswith(f"{option}.")]
        if model.init == CUT and given:
            raise UserError(
                f'{given[0]} is given and {name}.init is "cut", which takes the target\'s architecture with fewer '
                f"layers; set {name}.layers"
            )
        planned = name != "qualifier" or model.epochs
        if planned and model.architecture is None and model.init not in (RANDOM, CUT):
            described[name], place = _config_json(model.init)
            architecture = architecture_of(described[name], origin=place)
            models[name] = dataclasses.replace(model, architecture=architecture)
    return with_cut(dataclasses.replace(config, **models)), described


def _config_json(init: str) -> tuple[dict[str, Any], str]:
    """The config.json of a directory or hub name, and what to call it; no other file is opened."""

    def reachable() -> bool:
        from adaspec_jax.data.network import hub_reachable

        return hub_reachable()

    file = file_of(init, "config.json", reachable=reachable, needed=True)
    if file is not None:
        return read_json(file), f"{init}: config.json"
    directory = find_local(init)
    if (directory / ADAPTER).is_file():
        raise only_an_adapter(directory, read_json(directory / ADAPTER))
    raise UserError(f"{directory} has no config.json: it is not a Hugging Face model directory")


def _config_argument(arguments: list[str]) -> str | None:
    for index, argument in enumerate(arguments):
        if argument in ("--config", "-config") and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith("--config="):
            return argument.removeprefix("--config=")
    return None


def _check_keys(config: Experiment, overrides: list[str]) -> None:
    """Names the nearest key for a misspelt one, before the flags library gets to say `KeyError`."""
    for override in overrides:
        at, path = config, []
        key = override.split("=", 1)[0]
        for name in key.removeprefix("--config.").split("."):
            fields = [f.name for f in dataclasses.fields(at)] if dataclasses.is_dataclass(at) else []
            where = f"config.{'.'.join(path)}".rstrip(".")
            if at is None and path[-1] == "architecture":
                raise UserError(
                    f"{where} is None, so that config.json says it, and has no {name} to set; give an architecture in "
                    "the config file, or leave the override out"
                )
            if name not in fields:
                raise UserError(f'unknown key "{name}" in {where}{did_you_mean(name, fields) if fields else ""}')
            at, path = getattr(at, name), [*path, name]
        if dataclasses.is_dataclass(at):
            whole = ", or =None to have it as config.json says" if key in _ARCHITECTURES else ""
            raise UserError(
                f"config.{'.'.join(path)} is a group of keys; set one of them, as in {key}.KEY=VALUE{whole}"
            )


def load_config(path_and_variant: str) -> Experiment:
    """The unmodified config of `FILE.py[:variant]`."""
    from ml_collections.config_flags import config_flags

    try:
        config = config_flags.ConfigFileFlagParser(name="config").parse(path_and_variant)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path_and_variant} does not load: {type(error).__name__}: {_plain(error)}") from error
    if not isinstance(config, Experiment):
        kind = type(config).__name__
        raise UserError(f"get_config of {path_and_variant} returned {kind}, not an adaspec_jax.config.Experiment")
    return config


def _plain(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
