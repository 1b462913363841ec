"""What happened: one episode per task, kept in a JSONL file as they end, so that a run can be interrupted."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluation.errors import EvaluationError
from feedback.events import Call, ModelCall, ToolCall


class EpisodeFileError(EvaluationError):
    """A file of episodes that cannot be gone on with. The message names the file, the fault and the mend."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(_Record):
    """One call, as a person reads it; without tokens, for what is learnt from is recorded elsewhere."""

    kind: Literal["model", "tool"]
    name: str = Field("", description="Of the tool.")
    asked: dict[str, Any] = Field(
        {}, description="A tool's arguments, or the model's calls of tools by their number."
    )
    said: str = Field("", description="The model's text, or what the tool returned.")
    error: str | None = None
    seconds: float = 0.0


class Episode(_Record):
    """One task, asked once.

    `answered`: `text` is the agent's answer. `failed`: it ended without one by its own fault, and that counts against
    it. `invalid`: something else failed (the model server, a tool, a time-out): nothing is known about the agent, so it
    is not scored, and is asked again when the run goes on.
    """

    task_id: str
    status: Literal["answered", "failed", "invalid"]
    text: str = ""
    error: str = Field("", description="Why there is no answer.")
    code: str = Field("", description="The same in one word, e.g. `upstream_unavailable`.")
    policy: str = ""
    steps: tuple[Step, ...] = ()
    turns: int = 0
    prompt_tokens: int = Field(0, description="Read, over all turns.")
    completion_tokens: int = Field(0, description="Written, over all turns.")
    seconds: float = 0.0
    pages_cut: int = Field(0, description="Of a contract given whole: pages that did not fit.")

    @property
    def tool_errors(self) -> int:
        """Calls of tools that came back with an error."""
        return sum(step.kind == "tool" and step.error is not None for step in self.steps)


def steps(calls: tuple[Call, ...]) -> tuple[Step, ...]:
    """What was done, in order."""
    return tuple(_step(call) for call in calls if isinstance(call, ModelCall | ToolCall))


def _step(call: ModelCall | ToolCall) -> Step:
    if isinstance(call, ModelCall):
        asked = {str(number): one.get("function", one) for number, one in enumerate(call.tool_calls, 1)}
        return Step(kind="model", asked=asked, said=call.text, seconds=call.latency)
    said = call.result if isinstance(call.result, str) else json.dumps(call.result, ensure_ascii=False)
    return Step(
        kind="tool",
        name=call.name,
        asked=call.arguments,
        said="" if call.result is None else said,
        error=call.error,
        seconds=call.latency,
    )


class Journal:
    """Open for writing: `add` returns when the episode is in the file. Made by `opened`."""

    def __init__(self, file: TextIO, done: Mapping[str, Episode]) -> None:
        self._file = file
        self.done = dict(done)  # by task, invalid ones among them

    def is_done(self, task_id: str) -> bool:
        """Whether a valid episode of the task is there."""
        return task_id in self.done and self.done[task_id].status != "invalid"

    def add(self, episode: Episode) -> None:
        """Write it; it replaces an earlier one of the task."""
        self._file.write(episode.model_dump_json(exclude_defaults=True) + "\n")
        self._file.flush()
        self.done[episode.task_id] = episode


@contextmanager
def opened(path: Path, run: Mapping[str, Any], *, fresh: bool) -> Iterator[Journal]:
    """The journal of a run, with what it holds already.

    `run` is what identifies it (JSON): another run's journal is not gone on with. `fresh` begins anew. A last line that
    was cut off is dropped. Raises `EpisodeFileError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if fresh:
        path.unlink(missing_ok=True)
    done, size = _read(path, run)
    with path.open("a", encoding="utf-8") as file:
        if size == 0:
            file.truncate(0)
            file.write(json.dumps({"run": run}) + "\n")
        else:
            file.truncate(size)
        yield Journal(file, done)


def _read(path: Path, run: Mapping[str, Any]) -> tuple[dict[str, Episode], int]:
    """The episodes of a file, and how many of its bytes are whole lines."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}, 0
    size = data.rfind(b"\n") + 1
    if size == 0:
        return {}, 0
    head, *lines = data[:size].decode("utf-8").split("\n")[:-1]
    if not lines:  # nothing was done: whose it was does not matter
        return {}, 0
    try:
        written = json.loads(head)["run"]
        episodes = [Episode.model_validate_json(line) for line in lines]
    except (ValueError, LookupError, TypeError, ValidationError) as error:
        raise EpisodeFileError(
            f"{path} holds no episodes of this version: --fresh starts anew ({error})"
        ) from error
    if changed := [name for name in run if written.get(name) != run[name]]:
        said = ", ".join(f"{name} was {written.get(name)!r} and is {run[name]!r}" for name in changed)
        raise EpisodeFileError(
            f"{path} is of another run ({said}): --fresh starts anew, or choose another --out"
        )
    return {episode.task_id: episode for episode in episodes}, size
