"""Where the answers are in a conversation as a chat template renders it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import TaskError, first_line

ANSWERS = "assistant"
"""Who gives them, in every chat format that transformers knows."""

_OTHERS = "\ue000", "\ue001"  # of no script

Messages = Sequence[Mapping[str, str]]


class Answer(NamedTuple):
    """An answer in a rendered conversation, in characters.

    Attributes:
        start: where what the model is to write begins.
        said: where the message begins; later than `start` where the template opens an answer with more.
        through: where it ends.
        end: where what ends the answer ends.
    """

    start: int
    said: int
    through: int
    end: int


def render(tokenizer: Any, messages: Messages, asks: bool = False) -> str:
    """Render a conversation.

    Args:
        tokenizer: has the template.
        messages: the conversation.
        asks: whether an answer is asked for in the end.

    Raises:
        TaskError: the template refuses it.
    """
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asks))
    except Exception as error:  # those of jinja, and whatever a template calls
        raise TaskError(
            "the chat template refuses a conversation of the roles "
            f"{', '.join(message['role'] for message in messages)}: {first_line(error)}"
        ) from error


def find_answers(tokenizer: Any, messages: Messages) -> tuple[str, list[Answer]]:
    """Render a conversation and find its answers; no template has to mark them.

    An answer is what changes where another is said in its place. It begins earlier where the rendering of what precedes
    it, asking for an answer, is how the whole begins; and it goes on as the conversation does that ends with it.

    Returns:
        The text, and its answers in order.

    Raises:
        TaskError: the template refuses the conversation, or leaves an answer out.
    """
    whole, answers = render(tokenizer, messages), []
    for turn, message in enumerate(messages):
        if message["role"] != ANSWERS:
            continue
        said, through = _place(tokenizer, messages, turn, whole)
        asked = render(tokenizer, messages[:turn], asks=True) if turn else ""
        start = len(asked) if asked and whole.startswith(asked) and len(asked) <= said else said
        end = len(whole)
        if turn + 1 < len(messages):
            ends = messages[: turn + 1]
            alone = render(tokenizer, ends)
            end = through + _shared(whole[through:], alone[_place(tokenizer, ends, turn, alone)[1] :])
        answers.append(Answer(start, said, through, end))
    return whole, answers


def _place(tokenizer: Any, messages: Messages, turn: int, rendered: str) -> tuple[int, int]:
    """Find a message in a rendered conversation: what changes where something else is said."""
    content = messages[turn]["content"]
    another = next(sign for sign in _OTHERS if sign not in content)
    other = render(tokenizer, [*messages[:turn], {**messages[turn], "content": another}, *messages[turn + 1 :]])
    start = _shared(rendered, other)
    end = len(rendered) - _shared(rendered[start:][::-1], other[start:][::-1])
    if end == start:
        raise TaskError(f"the chat template leaves an answer out, such as {content[:40]!r}; leave it out of the data")
    return start, end


def _shared(text: str, other: str) -> int:
    """Count the characters that two texts begin with alike."""
    return next(
        (at for at, (mine, its) in enumerate(zip(text, other, strict=False)) if mine != its),
        min(len(text), len(other)),
    )
