"""A machine for the front door: settings in a temporary folder, free ports, programs that only pretend."""

import json
import socket
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy import cli
from deploy.process import Program, at
from deploy.settings import Settings, load

FAKE_SERVER = Path(__file__).with_name("fake_server.py")


def free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def make_model(folder: Path) -> None:
    """Enough of a model folder to be told from none."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")


def settings_in(folder: Path, root: Path, start_seconds: int = 20) -> Settings:
    """Settings whose `var` and model are in `folder`, on free ports; agents and knowledge are the repository's."""
    file = folder / "flywheel.toml"
    file.write_text(
        f"""
        [gateway]
        port = {free_port()}
        [vllm]
        port = {free_port()}
        model = "model"
        start_seconds = {start_seconds}
        [agents]
        folders = [{json.dumps(str(root / "agents" / "sql_analyst"))}]
        [knowledge]
        file = {json.dumps(str(root / "domains" / "insurance" / "knowledge.toml"))}
        """
    )
    return load(file)


def fake_program(name: str, port: int, folder: Path, *words: str) -> Program:
    return Program(
        name=name,
        command=(sys.executable, str(FAKE_SERVER), str(port), str(folder / f"{name}.child"), *words),
        environment={},
        ready=at(f"http://127.0.0.1:{port}/"),
        log=folder / f"{name}.log",
        folder=folder,
        ready_seconds=20,
        mend="Do the right thing.",
    )


@pytest.fixture
def settings(tmp_path: Path, root: Path) -> Settings:
    make_model(tmp_path / "model")
    return settings_in(tmp_path, root)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    """A test that fails must not leave processes to the next one."""
    yield
    for process in of_folder(tmp_path):
        process.kill()


def of_folder(folder: Path) -> list[psutil.Process]:
    """Every living process that was started for this folder, the fake servers' own children included."""
    pids = {int(text) for file in folder.glob("*.child") if (text := file.read_text())}
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        named = any(str(folder) in word for word in process.info["cmdline"] or ())
        if (named or process.pid in pids) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings) -> Any:
    """`flywheel WORDS…` with these settings, in this process."""

    def run(*words: str) -> Result:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(
            sys, "argv", ["flywheel", "--config", str(settings.root / "flywheel.toml"), *words]
        )
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        code = end.value.code
        return Result(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@pytest.fixture
def piped(settings: Settings, kafka_broker: str, fresh_database: str) -> Settings:
    """The same settings with Kafka and PostgreSQL; topics and database are the test's own."""
    prefix = f"t{uuid.uuid4().hex}"
    file = settings.root / "flywheel.toml"
    kafka = f"bootstrap_servers = {json.dumps(kafka_broker.split(','))}\npartitions = 2"
    more = f"""
        [kafka]
        {kafka}
        prefix = "{prefix}"
        group = "{prefix}"
        [feedback]
        store_url = {json.dumps(fresh_database)}
        """
    file.write_text(file.read_text() + more)
    return load(file)
