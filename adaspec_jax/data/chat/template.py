"""Chat templates: conversations as the text that a server makes of them."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaspec_jax import files
from adaspec_jax.data.chat.conversation import Message
from adaspec_jax.data.tokenizer_files import quiet_transformers
from adaspec_jax.errors import UserError, first_line
from adaspec_jax.places import near_place

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a tokenizer trained here gets: the marks of ChatML, each turn closed by its own.
CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_TODAY = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
_SPECIAL = re.compile(r"<\|[^|<>\s'\"{}]+\|>")
_SECONDS = 20  # for one conversation: thousands of times what any template needs


class Refused(Exception):
    """A template's own refusal of a conversation, or its failure on it, as one line."""


class Endless(UserError):
    """A template that does not come to an end: what it does to one conversation it would do to all."""


@dataclass(frozen=True)
class Template:
    """A tokenizer's chat template, or another in its place, with the options that it is given."""

    tokenizer: PreTrainedTokenizerBase
    source: str | None = None  # in place of the tokenizer's own
    options: Mapping[str, Any] = field(default_factory=dict)  # as in {"enable_thinking": False}
    date: datetime.date | None = None  # what templates that ask for the date are told; None: the day they are rendered

    @property
    def marks_answers(self) -> bool:
        """Whether it has the generation marks by which transformers tells the assistant's tokens."""
        return _MARKS.search(self.jinja()) is not None

    @property
    def asks_for_the_date(self) -> bool:
        """Whether what it renders depends on the day; of several templates, whether any does."""
        source = self.source or self.tokenizer.chat_template
        return any("strftime_now" in each for each in (source.values() if isinstance(source, dict) else [source]))

    def text(self, messages: Sequence[Message], tools: Sequence[Mapping] = (), *, answer_follows: bool = False) -> str:
        """The conversation, or what precedes the assistant's next turn; `Refused` where the template fails."""
        asked = {"tokenize": False, "add_generation_prompt": answer_follows}
        text = self._applied(messages, tools, **asked)
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise Refused("it holds half of a surrogate pair, which is not text")
        return text

    def marked(self, messages: Sequence[Message], tools: Sequence[Mapping] = ()) -> tuple[list[int], list[int]]:
        """(ids, 1 for each of the assistant's), by transformers and the template's generation marks."""
        found = self._applied(messages, tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        return list(found["input_ids"]), list(found["assistant_masks"])

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Mapping] = ()) -> list[int]:
        """What a server reads before the assistant's next turn."""
        return self.ids(self.text(messages, tools, answer_follows=True))

    def ids(self, text: str) -> list[int]:
        """Of rendered text, to which nothing is added."""
        return self.tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]

    def jinja(self, tools: Sequence[Mapping] = ()) -> str:
        """Its text; where a tokenizer has several, that for conversations with such tools."""
        return self.tokenizer.get_chat_template(self.source, tools=list(tools) if tools else None)

    def _dated(self, tools: Sequence[Mapping]) -> str | None:
        """The template, with the date written where it asks for today's."""
        date = self.date
        if date is None or "strftime_now" not in (source := self.jinja(tools)):
            return self.source
        return _TODAY.sub(lambda asked: repr(date.strftime(asked[2])), source)

    def _applied(self, messages: Any, tools: Any, **asked: Any) -> Any:
        turns, schemas = [dict(turn) for turn in messages], [dict(tool) for tool in tools] or None
        with quiet_transformers(), _in_time(_SECONDS):
            try:
                return self.tokenizer.apply_chat_template(
                    turns, tools=schemas, chat_template=self._dated(tools), **asked, **self.options
                )
            except TimeoutError:
                raise Endless(
                    f"the chat template does not come to an end: nothing after {_SECONDS} seconds of one conversation"
                ) from None
            except RecursionError:
                raise Refused("it calls itself without end") from None
            except Exception as error:  # a template may fail in any way a program can
                raise Refused(first_line(error)) from None


def template_of(
    tokenizer: PreTrainedTokenizerBase,
    file: str | os.PathLike | None = None,
    options: str | Mapping | None = None,
    *,
    date: datetime.date | None = None,
) -> Template:
    """The template that this tokenizer's conversations are rendered by, tried once.

    `file`: a Jinja template in place of the tokenizer's. `options`: what it is given beside the turns, a mapping or
    JSON. `date`: today, for those that write it. UserError where there is none, or where it cannot be read.
    """
    source = None if file is None else read_template(file)
    if source is None and not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "the tokenizer has no chat template: give one as a file (--config.data.chat_template=FILE, or "
            "--chat_template FILE)"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise UserError("chat data needs a tokenizer with a tokenizer.json, which tells where in the text a token lies")
    template = Template(tokenizer, source, _options(options), date)
    try:
        text = template.jinja()
    except ValueError as error:
        raise UserError(f"of the tokenizer's chat templates none can be chosen ({first_line(error)})") from None
    _check_syntax(text, "the tokenizer's chat template" if file is None else str(file))
    return template


def special_tokens(source: str) -> list[str]:
    """The marks a template writes, as in "<|im_end|>": each becomes one token where a tokenizer is trained here."""
    return list(dict.fromkeys(_SPECIAL.findall(source)))


def read_template(file: str | os.PathLike) -> str:
    """A Jinja file's text; UserError where it cannot be read."""
    try:
        return files.ordinary(Path(file).expanduser()).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the chat template {file} cannot be read ({first_line(error)}){near_place(file)}") from None


def _options(options: str | Mapping | None) -> Mapping[str, Any]:
    if isinstance(options, str):
        try:
            options = files.parsed(options or "{}")
        except ValueError as error:
            raise UserError(f"data.chat.options is not JSON ({error}); write it as in '{{\"key\": true}}'") from None
    if options is not None and not isinstance(options, Mapping):
        raise UserError("data.chat.options must be a JSON object, as in '{\"enable_thinking\": false}'")
    return dict(options or {})


def _check_syntax(source: str, name: str) -> None:
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        with quiet_transformers():
            render_jinja_template(conversations=[], chat_template=source)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{name} is no Jinja template: line {error.lineno}: {error.message}") from None
    except (RecursionError, ValueError, OverflowError) as error:  # nested too deep, a number too long
        raise UserError(f"{name} is no Jinja template that can be read ({first_line(error)})") from None
    except ImportError as error:
        raise UserError(f"chat templates need jinja2 ({first_line(error)}); pip install jinja2") from None


@contextlib.contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    """TimeoutError after so long: a Jinja loop may run for ever. Only the main thread can be woken up so."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def late(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
