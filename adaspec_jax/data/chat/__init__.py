"""Conversations: rows as files have them, the text a template makes of them, and which of its tokens are labels."""

from adaspec_jax.data.chat.conversation import ASSISTANT, ROLES, Conversation, Tokenised, form_of, read_row
from adaspec_jax.data.chat.encoding import Chat, encode_prompts, encode_rows, rows_of_answers
from adaspec_jax.data.chat.labels import Labels, notes_on, opened_reasoning
from adaspec_jax.data.chat.template import CHATML, Refused, Template, read_template, template_of

__all__ = [
    "ASSISTANT",
    "CHATML",
    "ROLES",
    "Chat",
    "Conversation",
    "Labels",
    "Refused",
    "Template",
    "Tokenised",
    "encode_prompts",
    "encode_rows",
    "form_of",
    "notes_on",
    "opened_reasoning",
    "read_row",
    "read_template",
    "rows_of_answers",
    "template_of",
]
