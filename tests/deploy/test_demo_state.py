"""An interrupted demo goes on where it stopped; any other begins clean, and says which."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy.demo import State


def opened(path: Path, seed: int) -> tuple[State, str]:
    out = io.StringIO()
    state = State.open(path, seed, Console(file=out, width=200))
    return state, out.getvalue()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "demo" / "state.json"


@pytest.fixture
def unfinished(path: Path) -> Path:
    state, _ = opened(path, 0)
    state.record("start", {}, 1.0)
    state.record("collect", {"asked": 25}, 2.25)
    (path.parent / "store.db").write_text("what was collected")
    return path


def test_the_first_demo_begins_clean(path: Path):
    state, said = opened(path, 0)
    assert "clean demo with seed 0" in said
    assert state.stages == {}
    assert path.parent.is_dir()


def test_an_unfinished_demo_with_the_same_seed_goes_on(unfinished: Path):
    state, said = opened(unfinished, 0)
    assert "Resuming the demo with seed 0" in said
    assert "collect" in said
    assert state["collect"] == {"asked": 25}
    assert state.seconds() == {"start": 1.0, "collect": 2.2}
    assert (unfinished.parent / "store.db").exists()


def test_another_seed_begins_clean_and_leaves_nothing_of_the_old_one(unfinished: Path):
    state, said = opened(unfinished, 1)
    assert "clean demo with seed 1" in said
    assert state.stages == {}
    assert list(unfinished.parent.iterdir()) == []


def test_a_finished_demo_is_not_resumed(unfinished: Path):
    state, _ = opened(unfinished, 0)
    state.record("report", {"html": "demo.html"}, 1.0)
    again, said = opened(unfinished, 0)
    assert "clean demo" in said
    assert again.stages == {}


@pytest.mark.parametrize("content", ["", "{", '{"seed": 0}', '{"seed": 0, "stages": {}}'])
def test_a_state_that_cannot_be_read_begins_clean(path: Path, content: str):
    path.parent.mkdir()
    path.write_text(content)
    state, said = opened(path, 0)
    assert "clean demo" in said
    assert state.stages == {}


def test_a_stage_is_written_whole_or_not_at_all(unfinished: Path):
    before = json.loads(unfinished.read_text())
    state, _ = opened(unfinished, 0)
    circular: dict[str, Any] = {}
    circular["itself"] = circular
    with pytest.raises(ValueError, match="Circular"):
        state.record("curate", circular, 1.0)
    assert json.loads(unfinished.read_text()) == before
    assert opened(unfinished, 0)[0]["collect"] == {"asked": 25}
