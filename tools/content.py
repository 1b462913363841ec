"""What a tool has read (rows, pages, documents) is data: it goes to the model inside a fence that it cannot close.

The fence is one fixed tag, so that a prompt can speak of it and an equal result is an equal text. What could end the
fence, or what a chat template reads as the end of a message or as a call of a tool (a tokenizer makes special tokens of
such text wherever it stands), loses its first character to an entity; nothing else is changed. A fence tells a model
what is data and binds no model to heed it: what a tool may do is decided by its configuration, never by what it reads.
"""

import re

TAG = "content"
_SOURCE_CHARACTERS = 200

# Between the letters of a word a model does not see these.
_INVISIBLE = r"[\s\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]*"


def _disguised(word: str) -> str:
    """The word in letters of either case, full-width ones as well, with invisible characters between them."""
    return _INVISIBLE.join(f"[{letter}{chr(ord(letter) + 0xFEE0)}]" for letter in word)


_CLOSES_THE_FENCE = rf"[<\uff1c\ufe64](?={_INVISIBLE}(?:[/\uff0f\u2215\u2044]{_INVISIBLE})?{_disguised(TAG)})"
_SPEAKS_TO_THE_TEMPLATE = (
    r"<(?=[|\uff5c])"  # <|im_end|>, <|eot_id|>, and DeepSeek's full-width bars
    r"|<(?=/?(?:s|bos|eos|think|tools?|tool_call|tool_response|function|start_of_turn|end_of_turn)\b[^<]{0,80}>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID)\])"
)
_MARKS = re.compile(f"{_CLOSES_THE_FENCE}|{_SPEAKS_TO_THE_TEMPLATE}", re.IGNORECASE)
_NOT_IN_A_NAME = re.compile(r"[^\w .,:/#@()+-]+")


def as_content(text: str, source: str) -> str:
    """`text` as data out of `source`, which may itself be a name that somebody else has given (of a file, a table)."""
    name = _NOT_IN_A_NAME.sub("_", source)[:_SOURCE_CHARACTERS]
    return f'<{TAG} source="{name}">\n{_MARKS.sub(_as_entity, text)}\n</{TAG}>'


def without_middle(text: str, start: int, end: int, note: str) -> str:
    """`text` with `note` for what stands from `start` to `end`. A fence that is cut open is closed, and one in whose
    middle the rest begins is opened again.
    """
    before, after = _fence_around(text, start), _fence_around(text, end)
    head, tail = text[:start], text[end:]
    if before != after:
        head += f"\n</{TAG}>" if before is not None else ""
        tail = f"{text[after : text.index(chr(10), after)]}\n{tail}" if after is not None else tail
    return f"{head}\n{note}\n{tail}"


def _fence_around(text: str, place: int) -> int | None:
    """Where the fence begins in which a place is: nothing inside one can look like its beginning or its end."""
    begins = text.rfind(f'<{TAG} source="', 0, place)
    return None if begins < 0 or text.find(f"</{TAG}>", begins, place) >= 0 else begins


def _as_entity(mark: re.Match[str]) -> str:
    return f"&#{ord(mark[0])};"
