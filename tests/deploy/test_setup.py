"""Set-up: what is missing is made, whole or not at all, and what is there is left alone."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from deploy import models, setup
from deploy.errors import FlywheelError
from deploy.settings import SMALL_MODEL, Settings
from domains.insurance import database
from tests.deploy.conftest import make_model


def with_small_model(settings: Settings) -> Settings:
    section = settings.vllm.model_copy(update={"model": settings.root / SMALL_MODEL})
    return settings.model_copy(update={"vllm": section})


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model that is installed, and a conversion that takes no time."""
    path = tmp_path / "small.gguf"

    def convert(source: Path, folder: Path) -> None:
        folder.rmdir()
        make_model(folder)

    monkeypatch.setattr(setup, "_installed_gguf", lambda: path)
    monkeypatch.setattr(setup, "_convert", convert)
    return path


def test_it_makes_the_model_with_its_digest_and_two_different_databases(settings: Settings, gguf: Path):
    settings = with_small_model(settings)
    setup.setup(settings, Console(quiet=True))
    assert models.digest(settings.vllm.model) == (settings.vllm.model / "DIGEST").read_text().strip()
    rows = []
    for name in ("insurance.db", "insurance_shadow.db"):
        with closing(sqlite3.connect(settings.var / name)) as connection:
            rows.append(connection.execute("SELECT COUNT(*), SUM(amount) FROM payments").fetchone())
    assert rows[0] != rows[1]
    assert not list(settings.var.rglob(".*"))


def test_a_second_time_it_touches_nothing(settings: Settings, gguf: Path, monkeypatch: pytest.MonkeyPatch):
    settings = with_small_model(settings)
    setup.setup(settings, Console(quiet=True))
    before = {path: path.stat().st_mtime_ns for path in settings.var.rglob("*")}
    monkeypatch.setattr(setup, "_convert", None)
    monkeypatch.setattr(database, "build", None)
    setup.setup(settings, Console(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in settings.var.rglob("*")} == before


def test_a_model_of_before_gets_the_template_that_knows_tools(settings: Settings, gguf: Path):
    settings = with_small_model(settings)
    setup.setup(settings, Console(quiet=True))
    template = settings.vllm.model / "chat_template.jinja"
    assert "<tool_call>" in template.read_text()
    template.write_text("its own")
    setup.setup(settings, Console(quiet=True))
    assert "<tool_call>" in template.read_text()


def test_a_conversion_that_fails_leaves_no_half_model(
    settings: Settings, gguf: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(source: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise FlywheelError("out of memory")

    monkeypatch.setattr(setup, "_convert", fail)
    settings = with_small_model(settings)
    with pytest.raises(FlywheelError, match="out of memory"):
        setup.setup(settings, Console(quiet=True))
    assert list((settings.var / "models").iterdir()) == []


def test_where_the_small_model_is_not_installed_it_says_what_to_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(setup, "_GGUF", ("no-such-distribution", "x.gguf"))
    with pytest.raises(FlywheelError, match="make setup"):
        setup.setup(with_small_model(settings), Console(quiet=True))


def test_another_model_is_used_as_it_is(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(setup, "_installed_gguf", None)
    setup.setup(settings, Console(quiet=True))
    assert not (settings.var / "models" / SMALL_MODEL.name).exists()


def test_a_digest_names_the_weights_and_nothing_else(tmp_path: Path):
    for name in ("a", "b"):
        make_model(tmp_path / name)
    (tmp_path / "b" / "tokenizer_config.json").write_text('{"x": 1}')
    assert models.digest(tmp_path / "a") == models.digest(tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").write_bytes(b"other weights")
    assert models.digest(tmp_path / "a") != models.digest(tmp_path / "b")
