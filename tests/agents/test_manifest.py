"""A manifest is data: it loads, or says what is wrong with it and where."""

import re
from pathlib import Path

import pytest

from agents.manifest import Agent, ManifestError

GOOD = """
name = "helper"
description = "Helps."
prompt = "prompt.jinja"
response_schema = '{"type": "object"}'
[quotas]
schemas = 1
[limits]
max_tokens = 7
[metrics.correct]
type = "boolean"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "manifest.toml").write_text(GOOD)
    (tmp_path / "prompt.jinja").write_text("Help. {{ schemas }}")
    return tmp_path


def test_a_manifest_and_its_prompt_become_an_agent(folder: Path):
    agent = Agent.load(folder)
    assert (agent.name, agent.prompt, agent.response_schema) == (
        "helper",
        "Help. {{ schemas }}",
        {"type": "object"},
    )
    assert (agent.quotas.schemas, agent.quotas.examples, agent.limits.max_tokens) == (1, 2, 7)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "helper"', 'name = "Not A Name"', "name"),
        ('description = "Helps."', "", "description"),
        ('prompt = "prompt.jinja"', "", "prompt is missing"),
        ('prompt = "prompt.jinja"', 'prompt = "none.jinja"', r"none\.jinja"),
        ('prompt = "prompt.jinja"', "prompt = 5", "unsupported operand"),
        ('response_schema = \'{"type": "object"}\'', "", "response_schema is missing"),
        ('\'{"type": "object"}\'', "'{broken'", "property name"),
        ('\'{"type": "object"}\'', "'[1]'", "response_schema"),
        ('\'{"type": "object"}\'', "5", "JSON object must be str"),
        ("schemas = 1", "schemas = -1", r"quotas\.schemas"),
        ("schemas = 1", "skemas = 1", r"quotas\.skemas"),
        ("max_tokens = 7", "max_tokens = 0", r"limits\.max_tokens"),
        ("max_tokens = 7", "seconds = 0", r"limits\.seconds"),
        ('type = "boolean"', 'type = "float"', "needs minimum and maximum"),
        ('type = "boolean"', 'type = "categorical"\ncategories = ["a"]', "at least two categories"),
        ('type = "boolean"', 'type = "stars"', r"metrics\.correct\.type"),
        ("[quotas]", "[quotas", "Expected"),
        ("[metrics.correct]", "[unknown]", "unknown"),
    ],
)
def test_a_broken_manifest_is_refused_with_file_and_field(folder: Path, old: str, new: str, said: str):
    assert GOOD.count(old) == 1
    (folder / "manifest.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(ManifestError, match=re.escape(str(folder / "manifest.toml"))) as refused:
        Agent.load(folder)
    assert re.search(said, str(refused.value)), refused.value


def test_a_manifest_that_cannot_be_read_is_refused_with_its_name(folder: Path):
    (folder / "manifest.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError, match=re.escape(str(folder))):
        Agent.load(folder)
    with pytest.raises(ManifestError, match="nowhere"):
        Agent.load(folder / "nowhere")
