"""The doctor: finds what is broken, says how to mend it, and tells the shell."""

import asyncio
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from deploy import doctor
from deploy.doctor import examine
from deploy.finding import Finding
from deploy.settings import Settings
from domains.insurance import database
from feedback.redaction import RedactionOptions
from gateway.config import ExternalModel


def only(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> list[Finding]:
    return list(check(settings))


def verdicts(findings: list[Finding]) -> set[str]:
    assert all(finding.mend or finding.verdict == "ok" or "run" in finding.what for finding in findings)
    return {finding.verdict for finding in findings}


def test_this_python_will_do(settings: Settings):
    assert verdicts(only(doctor.python, settings)) == {"ok"}


def test_another_python_will_not(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert verdicts(only(doctor.python, settings)) == {"broken"}


def test_a_missing_package_and_one_of_a_wrong_version_are_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    wanted = [
        "pydantic>=99",
        "no-such-package>=1",
        "rich",
        "fast; extra == 'serve'",
        "slow; extra == 'serve-cpu'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    said = [finding.what for finding in only(doctor.packages, settings)]
    assert len(said) == 3
    assert said[0].startswith("pydantic is ")
    assert said[1:] == ["no-such-package is missing", "slow is missing"]


def test_a_library_that_does_not_load_is_broken(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        fails = "import vllm" in command[-1]
        return subprocess.CompletedProcess(
            command, int(fails), "2.0\n", "Traceback …\nImportError: libx.so\n"
        )

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    torch, vllm = only(doctor.imports, settings)
    assert torch == Finding("ok", "torch 2.0")
    assert (vllm.verdict, vllm.what) == ("broken", "vllm does not load: ImportError: libx.so")


def test_a_missing_model_is_broken_and_a_model_is_named_by_its_digest(settings: Settings):
    (finding,) = only(doctor.model, settings)
    assert finding.verdict == "ok"
    (settings.vllm.model / "config.json").unlink()
    (finding,) = only(doctor.model, settings)
    assert finding.verdict == "broken"
    assert "flywheel setup" in finding.what


def test_databases_must_be_there_and_be_databases(settings: Settings):
    settings.var.mkdir()
    production, shadow = settings.sql.databases
    database.build(production, 7)
    shadow.write_bytes(b"not a database, but long enough to be taken for one" * 40)
    assert [finding.verdict for finding in only(doctor.databases, settings)] == ["ok", "broken"]


def test_free_ports_are_well(settings: Settings):
    assert verdicts(only(doctor.services, settings)) == {"ok"}


async def test_a_port_that_somebody_else_has_is_broken(settings: Settings):
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", settings.gateway.port)
    async with server:
        findings = await asyncio.to_thread(only, doctor.services, settings)
    assert [finding.verdict for finding in findings] == ["broken", "ok"]


def test_little_disk_and_little_memory_are_warnings(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    class Little:
        free = available = 2**30

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Little)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    disk, memory, _ = only(doctor.resources, settings)
    assert (disk.verdict, memory.verdict) == ("warning", "warning")


def test_a_gpu_that_is_asked_for_must_be_there(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_has_cuda", lambda: False)
    section = settings.vllm.model_copy(update={"device": "cuda"})
    assert only(doctor.resources, settings.model_copy(update={"vllm": section}))[-1].verdict == "broken"


def test_warnings_are_no_failure_and_one_broken_thing_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def check(settings: Settings) -> Iterator[Finding]:
        yield from findings

    monkeypatch.setattr(doctor, "CHECKS", (check,))
    findings = [Finding("ok", "fine"), Finding("warning", "tight", "make room")]
    with (tmp_path / "out").open("w") as out:
        assert examine(settings, Console(file=out))
        findings.append(Finding("broken", "gone [x]", "bring it back"))
        assert not examine(settings, Console(file=out))
    said = (tmp_path / "out").read_text()
    assert "broken  gone [x]\n        bring it back\n" in said


def test_what_leaves_this_network_is_said_and_a_missing_key_is_broken(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    (nothing,) = only(doctor.external, settings)
    assert nothing.verdict == "ok" and "nothing" in nothing.what
    entry = ExternalModel(name="gpt", model="openai/gpt-5", key_variable="THEIR_KEY")
    configured = settings.model_copy(update={"external": (entry,)})
    (missing,) = only(doctor.external, configured)
    assert missing.verdict == "broken" and "THEIR_KEY" in missing.mend
    monkeypatch.setenv("THEIR_KEY", "secret")
    (found,) = only(doctor.external, configured)
    assert found.verdict == "ok" and "openai/gpt-5" in found.what and "secret" not in found.what


def test_rules_of_redaction_that_cannot_be_followed_here_are_broken(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    (nothing,) = only(doctor.redaction, settings)
    assert nothing.verdict == "ok" and "no redaction" in nothing.what
    rules = settings.model_copy(update={"redaction": RedactionOptions(rules=("email",))})
    (on,) = only(doctor.redaction, rules)
    assert on.verdict == "ok" and "before they are recorded" in on.what

    def cannot(_: RedactionOptions) -> None:
        raise ValueError("Presidio knows no SHOE_SIZE")

    monkeypatch.setattr(doctor, "Redactor", cannot)
    (broken,) = only(doctor.redaction, rules)
    assert broken.verdict == "broken" and "SHOE_SIZE" in broken.what
