"""What a call has brought, in words that a model reads."""

import json

from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
)

from tools.content import as_content


def told(result: CallToolResult, source: str, characters: int) -> str:
    """All text, fenced as content of `source`; what is no text by its kind. Cut after so many characters, and said."""
    text = "\n".join(_block(block) for block in result.content)
    if not result.content and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False, separators=(",", ":"))
    if not text:
        return "The tool has answered, with nothing."
    return fenced(text, source, characters)


def fenced(text: str, source: str, characters: int) -> str:
    """Of a text of the server's, the beginning as content of `source`."""
    content = as_content(text[:characters], source)
    if len(text) <= characters:
        return content
    return f"{content}\nOf {len(text)} characters only the first {characters} are shown: ask for less."


def _block(block: ContentBlock) -> str:
    match block:
        case TextContent():
            return block.text
        case ImageContent():
            return f"(an image, {block.mime_type}, which cannot be shown here)"
        case AudioContent():
            return f"(a recording, {block.mime_type}, which cannot be played here)"
        case EmbeddedResource(resource=TextResourceContents() as resource):
            return resource.text
        case EmbeddedResource():
            return f"(a resource that is no text: {block.resource.uri})"
        case _:
            return f"(a link to a resource, which is not followed: {block.name}, {block.uri})"
