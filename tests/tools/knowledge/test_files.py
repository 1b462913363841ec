"""Files: what is in them comes out whole, and what is wrong in them is named with its line."""

import re
from pathlib import Path

import pytest

from tools.knowledge import Item, Kind, KnowledgeError, read
from tools.knowledge.files import read_any


def test_a_file_is_read_whole(tmp_path: Path):
    path = tmp_path / "knowledge.toml"
    path.write_text(
        "heuristics = []\n"
        '[[schemas]]\ntext = "claims(claim_id)"\nkeywords = "loss"\n'
        '[[examples]]\nquestion = "How many?"\nsql = "SELECT 1"\n'
        '[[examples]]\nquestion = "Weather?"\nrefusal = "no weather"\n'
    )
    assert read(path) == [
        Item("schemas", text="claims(claim_id)", keywords="loss"),
        Item("examples", question="How many?", answer='{"sql":"SELECT 1"}'),
        Item("examples", question="Weather?", answer='{"refusal":"no weather"}'),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not toml",
        b"\xff\xfe",
        b"schemas = []\nexamples = []",
        b"schemas = 1\nexamples = []\nheuristics = []",
        b"schemas = ['claims']\nexamples = []\nheuristics = []",
        b"schemas = [{text = 5}]\nexamples = []\nheuristics = []",
    ],
)
def test_a_broken_file_is_named_in_the_error(tmp_path: Path, content: bytes):
    path = tmp_path / "knowledge.toml"
    path.write_bytes(content)
    with pytest.raises(KnowledgeError, match=re.escape(str(path))):
        read(path)


def test_a_file_that_cannot_be_read_is_named_in_the_error(tmp_path: Path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(KnowledgeError, match=re.escape(str(path))):
            read(path)


def test_json_lines_say_their_kind_or_are_told_it(tmp_path: Path):
    path = tmp_path / "rules.jsonl"
    path.write_text(
        '{"text": "A loss is a claim."}\n\n{"kind": "examples", "question": "Weather?", "refusal": "no"}\n'
    )
    assert read_any(path, kind="heuristics") == [
        Item("heuristics", text="A loss is a claim."),
        Item("examples", question="Weather?", answer='{"refusal":"no"}'),
    ]


def test_csv_holds_questions_and_their_sql_over_several_lines(tmp_path: Path):
    path = tmp_path / "examples.csv"
    path.write_bytes(
        '\ufeffquestion,sql,refusal\r\n"How many, in all?","SELECT\n1",\r\nWeather?,,no\r\n'.encode()
    )
    assert read_any(path) == [
        Item("examples", question="How many, in all?", answer='{"sql":"SELECT\\n1"}'),
        Item("examples", question="Weather?", answer='{"refusal":"no"}'),
    ]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.jsonl", "{}\n", "line 1: kind Field required"),
        ("a.jsonl", '{"kind": "heuristics", "text": "x"}\n{', "line 2: not JSON"),
        ("a.jsonl", "\n[1]\n", "line 2: "),
        ("a.jsonl", '{"kind": "heuristics", "text": " "}', "line 1: .*need text"),
        ("a.jsonl", '{"kind": "heuristics", "txet": "x"}', "line 1: .*txet"),
        ("a.jsonl", '{"kind": "examples", "question": "q"}', "either sql or refusal"),
        ("a.csv", "question,sql\nq,SELECT 1\nq\n", "line 3: as many cells"),
        ("a.csv", "question,sql\nq,1,2\n", "line 2: as many cells"),
        ("a.csv", "frage,sql\nq,1\n", "line 2: .*frage"),
        ("a.csv", 'question,sql\nq,"1\n', "line 2: "),
        ("a.sql", "CREATE TABLE t (\n a int\n b text\n);", "line 3: "),
        ("a.sql", "SELECT 1", "creates no table"),
        ("a.txt", "x", "must end in one of .toml"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_file_and_line(
    tmp_path: Path, name: str, content: str, fault: str
):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(
        KnowledgeError, match=f"{re.escape(str(path))}: .*{fault}|{re.escape(str(path))}: {fault}"
    ):
        read_any(path)


def test_bytes_that_are_no_text_are_told_with_the_file(tmp_path: Path):
    for name in ("a.csv", "a.jsonl", "a.sql"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
        with pytest.raises(KnowledgeError, match=name):
            read_any(tmp_path / name)


@pytest.mark.parametrize("kind", ["schemas", "heuristics"])
def test_csv_of_texts_is_of_the_kind_that_is_told(tmp_path: Path, kind: Kind):
    path = tmp_path / "a.csv"
    path.write_text("text,keywords\nA rule.,words\n")
    assert read_any(path, kind=kind) == [Item(kind, text="A rule.", keywords="words")]
