"""Agents as folders: a new one is written, those that are there are checked without a gateway."""

import re
import tomllib
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import jinja2

from agents.loop import prompt
from agents.manifest import Agent, ManifestError
from deploy.errors import FlywheelError
from deploy.settings import Settings
from gateway import manifests
from tools.knowledge import Context, Item

_TEMPLATE = Path(__file__).with_name("templates") / "agent"
MANIFEST = "manifest.toml"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


def write(name: str, folder: Path) -> None:
    """A manifest and a prompt that can be served as they are. Raises `FlywheelError`."""
    if not _NAME.fullmatch(name):
        raise FlywheelError(
            f"{name!r} cannot be an agent's name: small letters, digits and hyphens, such as claims-clerk"
        )
    if folder.exists():
        raise FlywheelError(f"{folder} is there already: choose another name, or say --folder")
    try:
        folder.mkdir(parents=True)
        for file in sorted(_TEMPLATE.iterdir()):
            (folder / file.name).write_text(file.read_text("utf-8").replace("NAME", name), "utf-8")
    except OSError as error:
        raise FlywheelError(f"{folder} cannot be written: {error.strerror}") from error


def check(folders: Sequence[Path], settings: Settings) -> Iterator[tuple[Path, Agent | None, list[str]]]:
    """Each agent with what is wrong with it: file, line, and the mend. None: it cannot even be read."""
    names: dict[str, Path] = {}
    for folder in folders:
        if not (folder / MANIFEST).is_file():
            message = (
                f"{folder} has no {MANIFEST}: name an agent's folder, or make one with `flywheel agents new`"
            )
            yield folder, None, [message]
            continue
        try:
            agent = manifests.read(folder, settings.agents.turns, settings)
        except ManifestError as error:
            yield folder, None, str(error).splitlines()
            continue
        faults = list(_rendering(agent, folder))
        if agent.name in names:
            faults.append(
                f"{folder / MANIFEST}:1: {names[agent.name]} is called {agent.name} as well: rename one"
            )
        names[agent.name] = folder
        yield folder, agent, faults


def tools_of(agent: Agent) -> list[str]:
    """What it is offered, by kind, where that is used."""
    if agent.limits.turns == 1:
        return []
    own = agent.tools
    kinds = {"sql": own.sql, "documents": own.documents, "knowledge": own.knowledge}
    named = [
        f"{kind} ({used.source})" if used.source else kind for kind, used in kinds.items() if used is not None
    ]
    return [*named, *(f"mcp.{name}" for name in own.mcp)]


def _rendering(agent: Agent, folder: Path) -> Iterator[str]:
    """Whether the prompt can be made, with everything in it that it may be given."""
    item = Item("schemas", text="text", question="question", answer="answer")
    for context in (Context((item,), (item,), (item,)), Context((), (), ())):
        try:
            prompt(agent, (), context, ["tool"] if context.schemas else [])
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            frames = traceback.extract_tb(error.__traceback__)
            line = next((frame.lineno for frame in reversed(frames) if frame.filename == "<template>"), 1)
            named = tomllib.loads((folder / MANIFEST).read_text("utf-8"))["prompt"]
            yield f"{folder / named}:{line}: {error}"
            return
