"""The whole machine with the real vLLM: it comes up, answers, and leaves nothing behind even when it is killed."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deploy.settings import SMALL_MODEL
from tests.deploy.conftest import settings_in

FLYWHEEL = (sys.executable, "-c", "from deploy.cli import main; main()", "--config")


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.vllm
def test_up_answers_a_question_and_kill_9_leaves_nothing(tmp_path: Path, root: Path):
    (tmp_path / "model").symlink_to(root / SMALL_MODEL)
    settings_in(tmp_path, root, start_seconds=300)
    command = (*FLYWHEEL, str(tmp_path / "flywheel.toml"))
    with (tmp_path / "up.log").open("w") as log:
        up = subprocess.Popen((*command, "up"), cwd=root, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while "Flywheel is up" not in (tmp_path / "up.log").read_text():
            assert up.poll() is None, (tmp_path / "up.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        processes = descendants(up.pid)
        assert any("EngineCore" in process.name() for process in processes)
        asked = subprocess.run(
            (*command, "chat", "How many claims are there?"),
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert asked.returncode == 0, asked.stderr
        assert asked.stdout.startswith('{"')  # by the agent's schema, without blanks
        assert "policy sql-analyst@base-" in asked.stdout
    finally:
        up.kill()
        up.wait()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []
