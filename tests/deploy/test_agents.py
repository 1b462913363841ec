"""Agents on the command line: a new one is sound at once, faults are told by their line, sources are looked at."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.manifest import Agent
from deploy import sources
from deploy.settings import Settings, load
from domains.insurance import database
from gateway.manifests import TOOLS
from tools import documents, knowledge, sql
from tools.documents.document import Document
from tools.documents.library import Library


def more(settings: Settings, text: str) -> Settings:
    """The same with more in the file that the commands read."""
    file = settings.root / "flywheel.toml"
    file.write_text(file.read_text() + text)
    return load(file)


@pytest.fixture
def clerk(run: Any, settings: Settings) -> Path:
    assert run("agents", "new", "claims-clerk").code == 0
    return settings.root / "agents" / "claims_clerk"


def test_a_new_agent_is_sound_and_the_next_step_is_told(run: Any, settings: Settings):
    made = run("agents", "new", "claims-clerk")
    assert "flywheel agents check agents/claims_clerk" in made.out and '"agents/claims_clerk"]' in made.out
    folder = settings.root / "agents" / "claims_clerk"
    assert Agent.load(folder).name == "claims-clerk"
    checked = run("agents", "check", str(folder))
    assert (checked.code, checked.out) == (
        0,
        "ok      claims-clerk in agents/claims_clerk: 1 turn, no tools\n",
    )


@pytest.mark.parametrize("name", ["Claims", "claims_clerk", "-x", "../x", ""])
def test_a_name_that_no_agent_can_have_is_refused(run: Any, settings: Settings, name: str):
    result = run("agents", "new", "--", name)
    assert (result.code, result.out) == (1, "") and "cannot be an agent's name" in result.err
    assert not (settings.root / "agents").exists()


def test_what_is_there_is_not_written_over(run: Any, clerk: Path):
    (clerk / "prompt.jinja").write_text("mine")
    result = run("agents", "new", "claims-clerk")
    assert result.code == 1 and "is there already" in result.err
    assert (clerk / "prompt.jinja").read_text() == "mine"


def test_each_fault_is_told_with_its_line_and_its_mend(run: Any, clerk: Path):
    manifest = clerk / "manifest.toml"
    text = manifest.read_text().replace("turns = 1 ", "turns = 4 ")
    sql = '[tools.sql]\nsource = "claims"'
    manifest.write_text(text.replace("# [tools.sql]", sql).replace("seconds = 60", "secnds = 60"))
    line = next(number for number, read in enumerate(manifest.read_text().split("\n"), 1) if "secnds" in read)
    result = run("agents", "check", str(manifest))  # the file will do
    assert result.code == 1
    assert f"{manifest}:{line}: limits.secnds: there is no such field: did you mean seconds?" in result.out
    manifest.write_text(manifest.read_text().replace("secnds", "seconds"))
    result = run("agents", "check", str(clerk))
    assert result.code == 1 and "tools.sql.source: there is no [databases.claims]" in result.out


def test_a_prompt_that_cannot_be_rendered_is_told_by_its_line(run: Any, clerk: Path):
    (clerk / "prompt.jinja").write_text("Answer.\n{% for item in schemas %}{{ item.txt }}{% endfor %}")
    result = run("agents", "check", str(clerk))
    assert result.code == 1 and f"{clerk}/prompt.jinja:2: " in result.out and "txt" in result.out


def test_a_folder_without_a_manifest_is_told_and_the_others_are_checked(
    run: Any, clerk: Path, settings: Settings
):
    result = run("agents", "check", str(settings.root), str(clerk))
    assert result.code == 1
    assert "has no manifest.toml" in result.out and "ok      claims-clerk" in result.out


def test_the_list_shows_agents_also_without_a_gateway(run: Any):
    result = run("agents", "list")
    assert result.code == 0
    assert "sql-analyst" in result.out and "64 tokens a turn" in result.out
    assert "policies are not shown: no key" in result.out


def test_what_manifests_may_offer_is_what_there_is(tmp_path: Path, settings: Settings):
    database.build(tmp_path / "i.db", 7)
    source = sql.Source("i", sql.DatabaseOptions(url=f"sqlite:///{tmp_path / 'i.db'}"))
    library = Library(tmp_path / "documents", Embeds())
    library.add(Document("a", "text", paged=False), "default")
    offered = {
        "sql": sql.tools(source),
        "documents": documents.tools(library, "a"),
        "knowledge": knowledge.tools(knowledge.Knowledge(knowledge.read(settings.knowledge.file))),
    }
    assert {kind: tuple(tool.name for tool in tools) for kind, tools in offered.items()} == dict(TOOLS)


class Embeds:
    name, dimensions = "constant", 2

    def embed(self, texts: Any) -> Any:
        import numpy as np

        return np.ones((len(texts), 2), np.float32) / np.sqrt(2)


def test_the_doctor_tells_which_databases_agents_can_read(settings: Settings):
    database.build(settings.root / "i.db", 7)
    settings = more(
        settings,
        '\n[databases.here]\nurl = "sqlite:///i.db"\n[databases.gone]\nurl = "sqlite:///gone.db"\n',
    )
    here, gone = sources.databases(settings)
    assert (here.verdict, "read-only" in here.what) == ("ok", True)
    assert gone.verdict == "broken" and "gone" in gone.what and "[databases.gone]" in gone.mend


def test_the_doctor_warns_of_a_role_that_may_write(settings: Settings, fresh_database: str):
    import sqlalchemy

    engine = sqlalchemy.create_engine(fresh_database.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE claims (claim_id integer PRIMARY KEY)"))
    engine.dispose()
    settings = more(settings, f"\n[databases.claims]\nurl = {json.dumps(fresh_database)}\n")
    [finding] = sources.databases(settings)
    assert finding.verdict == "warning" and "its role may write" in finding.what


def test_the_doctor_tells_of_manifests_and_mcp_servers(settings: Settings, run: Any, clerk: Path):
    manifest = clerk / "manifest.toml"
    text = manifest.read_text().replace("turns = 1 ", "turns = 4 ")
    manifest.write_text(
        text.replace("# [tools.mcp.crm]", "[tools.mcp.crm]").replace('# offer = ["find_c', 'offer = ["find_c')
    )
    file = settings.root / "flywheel.toml"
    file.write_text(
        file.read_text().replace("folders = [", 'folders = ["agents/claims_clerk", ')
        + '\n[mcp.crm]\ncommand = ["/no/such/server"]\n'
    )
    clerk_is, crm, analyst = sources.manifests(load(file))
    assert (clerk_is.verdict, clerk_is.what) == ("ok", "agent claims-clerk: mcp.crm")
    assert crm.verdict == "broken" and "mcp.crm" in crm.what and "[mcp.crm]" in crm.mend
    assert analyst.verdict == "ok"
