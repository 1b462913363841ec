"""An agent that is tried out: one question through the gateway, with each step on the screen as it happens."""

from collections.abc import Mapping
from typing import Any

from openai import APIConnectionError, APIError, OpenAI
from openai.types.responses import ResponseStreamEvent
from rich.console import Console

from deploy.errors import FlywheelError

_LINES, _CHARACTERS = 12, 1_500  # of what a tool answers


def ask(base_url: str, key: str, agent: str, question: str, metadata: Mapping[str, str]) -> None:
    """Raises `FlywheelError`."""
    shown = _Shown()
    try:
        with OpenAI(base_url=f"{base_url}/v1", api_key=key, max_retries=0) as client:
            create = client.responses.with_streaming_response.create
            with create(model=agent, input=question, metadata=dict(metadata), stream=True) as response:
                policy = response.headers.get("x-policy", "unknown")
                for event in response.parse():
                    shown.take(event)
    except APIConnectionError as error:
        raise FlywheelError(f"no gateway at {base_url}: start it with `flywheel up`") from error
    except APIError as error:
        body = error.body
        raise FlywheelError(str(body["message"] if isinstance(body, dict) else error.message)) from error
    Console().print(f"[dim]request {shown.request}  policy {policy}[/]", highlight=False, soft_wrap=True)


class _Shown:
    """What is on the screen already."""

    def __init__(self) -> None:
        self.request = ""
        self._name = ""  # of the tool that was announced last
        self._console = Console(soft_wrap=True, markup=False, highlight=False)

    def take(self, event: ResponseStreamEvent) -> None:
        """Show what has happened. Raises `FlywheelError` where there will be no answer."""
        match event.type:
            case "response.created":
                self.request = event.response.id
            case "response.mcp_call_arguments.done":
                self._console.print(f"→ {self._name} {event.arguments}", style="cyan")
            case "response.output_item.added" if event.item.type == "mcp_call":
                self._name = event.item.name
            case "response.output_item.done":
                self._done(event.item)
            case "response.output_text.delta":
                self._console.print(event.delta, end="", style="bold")
            case "response.output_text.done":
                self._console.print()
            case "response.failed":
                reason = event.response.error
                raise FlywheelError("no answer" if reason is None else f"no answer: {reason.message}")

    def _done(self, item: Any) -> None:
        if item.type == "file_search_call":
            self._console.print("  retrieved what may help", style="dim")
        elif item.type == "reasoning":
            for part in item.content or ():
                self._console.print(part.text.strip(), style="italic")
        elif item.type == "mcp_call" and item.status == "failed":
            reasons = item.error["content"] if isinstance(item.error, dict) else [{"text": str(item.error)}]
            self._console.print(f"✗ {item.name}: {_cut(reasons[0]['text'])}", style="red")
        elif item.type == "mcp_call":
            self._console.print(f"← {item.name}: {_cut(item.output or '')}", style="green")


def _cut(text: str) -> str:
    lines = text[:_CHARACTERS].splitlines()
    shown = "\n  ".join(lines[:_LINES])
    return shown if len(text) <= _CHARACTERS and len(lines) <= _LINES else f"{shown}\n  …"
