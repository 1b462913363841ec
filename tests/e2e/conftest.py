"""The whole system, once for all end-to-end tests: real vLLM, real gateway, real trainer, a small real model."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from deploy import setup
from deploy.settings import Settings, load
from deploy.supervisor import System, running
from tests.conftest import ROOT


def _free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass(frozen=True)
class Live:
    """A running system and the settings that it runs with."""

    settings: Settings
    system: System


def settings_in(folder: Path) -> Settings:
    """The shipped settings with everything that is written in `folder`, and training cut to a few steps."""
    file = folder / "flywheel.toml"
    model = ROOT / "var" / "models" / "smollm2-135m"
    file.write_text(
        f"""
        [gateway]
        port = {_free_port()}
        [vllm]
        port = {_free_port()}
        model = {json.dumps(str(model))}
        kv_cache_gib = 1
        [agents]
        folders = [{json.dumps(str(ROOT / "agents" / "sql_analyst"))}]
        [knowledge]
        file = {json.dumps(str(ROOT / "domains" / "insurance" / "knowledge.toml"))}
        [trainer.supervised]
        epochs = 1
        [trainer.grpo]
        steps = 2
        prompts_per_step = 2
        generations = 4
        """
    )
    return load(file)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    """Starts in about a minute."""
    from rich.console import Console

    settings = settings_in(tmp_path_factory.mktemp("flywheel"))
    setup.setup(settings, Console(quiet=True))
    async with running(settings, Console(quiet=True)) as system:
        yield Live(settings, replace(system))
