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
        ('prompt = "prompt.jinja"', "prompt = 5", "should be a valid string"),
        ('response_schema = \'{"type": "object"}\'', "", "response_schema is missing"),
        ('\'{"type": "object"}\'', "'{broken'", "property name"),
        ('\'{"type": "object"}\'', "'[1]'", "response_schema"),
        ('\'{"type": "object"}\'', "5", "a text that holds a JSON schema"),
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


def test_every_fault_is_told_with_its_line_and_its_mend(folder: Path):
    broken = """# what is wrong is told all at once
name = "Helper"
prompt = "prompt.jinja"
response_schema = '''
{"type": "objekt"}
'''
[limits]
max_tokenz = 7
turns = [
  "many",
]
[tools.sql]
offer = []
[tools.mcp.crm]
second = 1
[metrics.correct]
type = "boolean"
[metrics.stars]
type = "float"
"""
    (folder / "manifest.toml").write_text(broken)
    (folder / "prompt.jinja").write_text("Help. {{ shemas }}")
    with pytest.raises(ManifestError) as refused:
        Agent.load(folder)
    path = folder / "manifest.toml"
    told = [line.removeprefix(f"{path}:") for line in str(refused.value).splitlines()]
    assert told == [
        "1: description: description is missing: add it",
        "2: name: String should match pattern '^[a-z0-9][a-z0-9-]{0,63}$' (it is 'Helper')",
        f"3: prompt: {folder / 'prompt.jinja'} uses shemas, which no prompt sees: did you mean schemas?",
        "4: response_schema: no JSON schema: $.type: 'objekt' is not valid under any of the given schemas",
        "8: limits.max_tokenz: there is no such field: did you mean max_tokens?",
        "9: limits.turns: Input should be a valid integer",
        "13: tools.sql.offer: Tuple should have at least 1 item after validation, not 0",
        "14: tools.mcp.crm.offer: offer is missing: add it",
        "15: tools.mcp.crm.second: there is no such field: did you mean seconds?",
        "18: metrics.stars: a float metric needs minimum and maximum",
    ]


def test_a_template_that_is_none_is_told_with_its_own_line(folder: Path):
    (folder / "prompt.jinja").write_text("Help.\n{% if schemas %}\n")
    with pytest.raises(
        ManifestError, match=re.escape(f"{folder / 'prompt.jinja'}:2: Unexpected end of template")
    ):
        Agent.load(folder)


def test_a_field_that_is_like_no_other_is_told_with_all_that_there_are(folder: Path):
    (folder / "manifest.toml").write_text(GOOD.replace("schemas = 1", "zzz = 1"))
    with pytest.raises(ManifestError, match="no such field; there are schemas, examples, heuristics"):
        Agent.load(folder)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("max_tokens = 64\ntotal_tokens = 63", r"limits: total_tokens must be at least max_tokens \(64\)"),
        (
            "max_tokens = 64\ncontext_tokens = 64",
            r"limits: context_tokens must be more than max_tokens \(64\)",
        ),
    ],
)
def test_limits_that_leave_no_room_for_an_answer_are_refused(folder: Path, limits: str, said: str):
    (folder / "manifest.toml").write_text(GOOD.replace("max_tokens = 7", limits))
    with pytest.raises(ManifestError, match=f":8: {said}"):
        Agent.load(folder)


def test_tools_are_declared_by_kind_and_those_of_an_mcp_server_one_by_one(folder: Path):
    more = """
[tools.sql]
source = "insurance"
offer = ["run_sql"]
seconds = 5
[tools.documents]
[tools.mcp.crm]
offer = ["find_customer"]
"""
    (folder / "manifest.toml").write_text(GOOD + more)
    tools = Agent.load(folder).tools
    assert tools.sql is not None and tools.documents is not None and tools.knowledge is None
    assert (tools.sql.source, tools.sql.offer, tools.sql.seconds, tools.sql.attempts) == (
        "insurance",
        ("run_sql",),
        5,
        2,
    )
    assert (tools.documents.source, tools.documents.offer) == (None, None)
    assert (tools.mcp["crm"].offer, tools.mcp["crm"].attempts) == (("find_customer",), 1)


def test_a_manifest_that_cannot_be_read_is_refused_with_its_name(folder: Path):
    (folder / "manifest.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError, match=re.escape(str(folder))):
        Agent.load(folder)
    with pytest.raises(ManifestError, match="nowhere"):
        Agent.load(folder / "nowhere")
