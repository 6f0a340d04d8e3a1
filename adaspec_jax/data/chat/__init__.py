"""Conversations: rows as files have them, the text a template makes of them, and which of its tokens are labels."""

from adaspec_jax.data.chat.conversation import ASSISTANT, ROLES, Conversation, Tokenised, form_of, is_in_words, read_row
from adaspec_jax.data.chat.encoding import Chat, Tally, numbered_prompts, numbered_rows, rows_of_answers
from adaspec_jax.data.chat.labels import Labels, notes_on, opened_reasoning
from adaspec_jax.data.chat.template import CHATML, Endless, Refused, Template, read_template, template_of

__all__ = [
    "ASSISTANT",
    "CHATML",
    "ROLES",
    "Chat",
    "Conversation",
    "Endless",
    "Labels",
    "Refused",
    "Tally",
    "Template",
    "Tokenised",
    "form_of",
    "is_in_words",
    "notes_on",
    "numbered_prompts",
    "numbered_rows",
    "opened_reasoning",
    "read_row",
    "read_template",
    "rows_of_answers",
    "template_of",
]
