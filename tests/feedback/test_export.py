"""What an export holds, and how it takes the place of the one before."""

import fcntl
import json

import pytest
from pyarrow import parquet

from feedback import export as module
from feedback.columns import SCHEMAS
from feedback.export import ExportError, export
from feedback.store.snapshot import Extent
from tests.contracts.samples import at, change, model_call, rating, request

ALL = Extent()
TOOL = {"kind": "tool", "name": "search", "arguments": {"q": "ä"}, "result": [1], "latency": 0.5}
EXTERNAL = {
    "kind": "external",
    "model": "gpt",
    "provider_model": "gpt-5",
    "request": {"n": 1},
    "response": {"id": "x"},
    "finish_reason": "stop",
    "latency": 1.0,
}


def rows(folder, table):
    return parquet.read_table(folder / "latest" / table).to_pylist()


def test_events_become_rows_on_every_store(any_store, tmp_path):
    asked = request(calls=(model_call(started=at(0)), TOOL, EXTERNAL), metadata={"a": "b"}, cost=0.5)
    said = rating(value=False, correction={"sql": "SELECT 1"}, tags={"k": "v"}, call=0)
    any_store.write([asked, said, change("p", "active", evidence={"n": 1})])
    assert export(any_store, tmp_path, ALL) == {
        "requests": 1,
        "calls": 3,
        "ratings": 1,
        "policy_changes": 1,
    }
    [row] = rows(tmp_path, "requests")
    assert (row["request_id"], row["question"], row["calls"]) == ("r1", "How many?", 3)
    assert (row["time"], row["metadata"], row["cost"]) == (asked.time, [("a", "b")], 0.5)
    model, tool, external = rows(tmp_path, "calls")
    assert (model["prompt_token_ids"], model["completion_token_ids"]) == ([1, 2, 3], [4, 5])
    assert (model["logprobs"], model["started"], model["name"]) == ([-0.1, -0.2], at(0), "sql-analyst@base")
    assert json.loads(model["parameters"])["temperature"] == 0.0
    assert (tool["name"], tool["call"], json.loads(tool["input"])) == ("search", 1, {"q": "ä"})
    assert (tool["prompt_token_ids"], json.loads(tool["output"])) == (None, [1])
    assert (external["name"], external["latency"]) == ("gpt", 1.0)
    [row] = rows(tmp_path, "ratings")
    assert (row["value"], row["number"], row["label"], row["call"]) == ("false", 0.0, None, 0)
    assert (json.loads(row["correction"]), row["tags"]) == ({"sql": "SELECT 1"}, [("k", "v")])
    [row] = rows(tmp_path, "policy_changes")
    assert (row["state"], json.loads(row["evidence"])) == ("active", {"n": 1})


def test_what_stands_is_marked_also_when_what_supersedes_it_is_out_of_the_extent(any_store, tmp_path):
    old, new = rating(value=True, time=at(1)), rating(value=False, time=at(2))
    back = rating("r2", time=at(3)).model_copy(update={"value": None})
    elsewhere = rating("r1", tenant="b", time=at(9))
    any_store.write([old, new, rating("r2", time=at(1)), back, elsewhere])
    export(any_store, tmp_path, ALL)
    found = {(row["tenant"], row["request_id"], row["time"]): row for row in rows(tmp_path, "ratings")}
    assert sorted(key for key, row in found.items() if row["current"]) == [
        ("b", "r1", at(9)),
        ("default", "r1", at(2)),
    ]
    assert found["default", "r2", at(3)]["withdrawn"]
    export(any_store, tmp_path, Extent(tenant="default", until=at(2)))
    assert [row["current"] for row in rows(tmp_path, "ratings")] == [False, False]


def test_an_export_is_narrowed_by_tenant_and_time(any_store, tmp_path):
    any_store.write(
        [request(f"r{n}", tenant=tenant, time=at(n), calls=()) for n in range(5) for tenant in ("a", "b")]
    )
    export(any_store, tmp_path, Extent("a", at(1), at(4)))
    assert [(row["tenant"], row["request_id"]) for row in rows(tmp_path, "requests")] == [
        ("a", "r1"),
        ("a", "r2"),
        ("a", "r3"),
    ]


def test_what_comes_meanwhile_is_in_no_table(any_store, tmp_path):
    any_store.write([request(f"r{n}", calls=()) for n in range(300)])

    def write_more(kind, done, total):
        if kind == "requests":
            any_store.write([request(f"later{done}", calls=()), rating(f"later{done}")])

    written = export(any_store, tmp_path, ALL, write_more)
    assert (written["requests"], written["ratings"]) == (300, 0)


def test_an_empty_store_has_every_table_with_its_columns(store, tmp_path):
    export(store, tmp_path, ALL)
    for name, schema in SCHEMAS.items():
        table = parquet.read_table(tmp_path / "latest" / name)
        assert (table.schema.names, table.num_rows) == (schema.names, 0)


def test_large_tables_are_written_in_groups_and_parts(store, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_BYTES", 1)
    monkeypatch.setattr(module, "_PART_BYTES", 10_000)
    store.write([request(f"r{n}", time=at(n), calls=()) for n in range(1_100)])
    export(store, tmp_path, ALL)
    parts = sorted((tmp_path / "latest" / "requests").iterdir())
    assert len(parts) > 1
    assert parquet.ParquetFile(parts[0]).metadata.num_row_groups > 1
    assert [row["request_id"] for row in rows(tmp_path, "requests")] == [f"r{n}" for n in range(1_100)]


def test_the_next_export_takes_the_place_of_the_one_before_and_nothing_of_that_is_left(store, tmp_path):
    store.write([request()])
    export(store, tmp_path, ALL)
    before = (tmp_path / "latest").resolve()
    (tmp_path / "notes.txt").write_text("mine")
    store.write([request("r2")])
    export(store, tmp_path, ALL)
    assert len(rows(tmp_path, "requests")) == 2
    assert not before.exists()
    after = (tmp_path / "latest").resolve()
    assert {path.name for path in tmp_path.iterdir()} == {
        "latest",
        after.name,
        "notes.txt",
        ".lock",
        "store.db",
    } | {path.name for path in tmp_path.glob("store.db-*")}


def test_an_export_that_fails_leaves_the_one_before(store, tmp_path):
    store.write([request()])
    export(store, tmp_path, ALL)
    store.write([request("r2", calls=(model_call(prompt_token_ids=(2**64,)),))])
    with pytest.raises(ExportError, match="calls have a value"):
        export(store, tmp_path, ALL)
    assert len(rows(tmp_path, "requests")) == 1
    assert len([path for path in tmp_path.iterdir() if path.is_dir() and not path.is_symlink()]) == 1


def test_what_an_export_that_was_killed_has_left_is_removed_by_the_next(store, tmp_path):
    left = tmp_path / "20260101T000000000000Z"
    left.mkdir()
    export(store, tmp_path, ALL)
    assert not left.exists()


def test_two_exports_to_one_folder_do_not_meet(store, tmp_path):
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ExportError, match="under way"):
            export(store, tmp_path, ALL)


def test_a_folder_that_is_called_latest_is_not_removed(store, tmp_path):
    (tmp_path / "latest").mkdir()
    with pytest.raises(ExportError, match="no export of ours"):
        export(store, tmp_path, ALL)
