"""Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

import secrets
from typing import Any

import orjson

_BLOCK_BYTES = 64


def frame(data: dict[str, Any], *, event: str | None = None, obfuscate: bool = False) -> bytes:
    """One event. `obfuscate` fills it up to a multiple of 64 bytes with a field `obfuscation` of random characters.

    So whoever watches an encrypted connection cannot tell tokens by their length, as OpenAI's `include_obfuscation`
    promises.
    """
    body = orjson.dumps(data)
    if obfuscate:
        filling = secrets.token_hex(_BLOCK_BYTES)[: _BLOCK_BYTES - len(body) % _BLOCK_BYTES]
        body = b'%b,"obfuscation":"%b"}' % (body[:-1], filling.encode())
    return b"data: %b\n\n" % body if event is None else b"event: %b\ndata: %b\n\n" % (event.encode(), body)
