"""`flywheel erase`: what is left of a person in the files of a machine, and what it says of the rest."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy.erase import Line, erase, wanted
from deploy.errors import FlywheelError
from deploy.settings import Settings
from feedback.events import Erased
from feedback.outbox import Outbox
from feedback.samples import Curated, Sample, save
from feedback.store import Keys, Store
from tests.contracts.samples import rating, request


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = Store.open(settings.feedback.store_url)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def gateway(settings: Settings, store: Store) -> Iterator[list[dict[str, Any]]]:
    """A gateway whose erasures are in the store at once; what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            event = Erased(by="operator", **asked[-1])
            store.write([event])
            answer = {"erasure_id": event.event_id, "until": event.time.isoformat()}
            data = json.dumps(answer).encode()
            self.send_response(202)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name for it
            pass

    settings.var.mkdir(exist_ok=True)
    settings.key_file.write_text("fw-secret\n")
    server = ThreadingHTTPServer(("127.0.0.1", settings.gateway.port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield asked
    server.shutdown()
    server.server_close()
    thread.join()


def dataset(settings: Settings, question: str, rater: str, request_id: str) -> tuple[Path, str]:
    sample = Sample(
        task_id="t",
        question=question,
        messages=(),
        reference={"sql": "SELECT 1"},
        support=1,
        raters=(rater,),
        request_ids=(request_id,),
        policy="p",
    )
    made = save(Curated((sample,), {}), settings.var / "datasets" / f"{question}.jsonl")  # type: ignore[arg-type]  # empty
    return settings.var / "datasets" / f"{question}.jsonl", made.dataset_id


def checkpoint(settings: Settings, digest: str, dataset_id: str, parent: str | None = None) -> str:
    folder = settings.var / "checkpoints" / digest
    folder.mkdir(parents=True)
    policy = f"sql-analyst@{digest}"
    manifest = {"policy": policy, "dataset": dataset_id, "parent": parent}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return policy


def carried_out(
    settings: Settings, store: Store, person: str | None = None, name: str | None = None
) -> list[Line]:
    return erase(settings, store, wanted(settings, person, name, None, "asked"))


def everything(settings: Settings) -> bytes:
    return b"".join(path.read_bytes() for path in settings.var.rglob("*") if path.is_file())


def test_of_a_person_nothing_is_left_in_store_data_sets_or_exports_and_who_learnt_of_it_is_named(
    settings: Settings, store: Store, gateway: list[dict[str, Any]]
) -> None:
    store.write([request("r1", "ANNS-WORDS", caller="ann"), rating("r1", rater="bob", comment="ANNS-WORDS")])
    store.write([request("r2", "BOBS-WORDS", caller="bob"), rating("r2", rater="crm/ann")])
    (settings.export / "x").mkdir(parents=True)
    (settings.export / "x" / "part.parquet").write_text("ANNS-WORDS")
    asked, by_asking = dataset(settings, "ANNS-WORDS", "bob", "r1")
    rated, by_rating = dataset(settings, "BOBS-WORDS", "crm/ann", "r2")
    kept, _ = dataset(settings, "others", "bob", "r2")
    start = checkpoint(settings, "a1", by_asking)
    last = checkpoint(settings, "a2", "another data set", parent=start)
    checkpoint(settings, "a3", "another data set")
    for run in ("ANNS-WORDS-0", "others-0"):
        (settings.var / "runs" / run / "reinforced").mkdir(parents=True)

    lines = {line.where: line for line in carried_out(settings, store, "ann")}

    assert gateway == [{"person": "ann", "tenant": "default", "reason": "asked"}]
    assert {where: (line.found, line.left) for where, line in lines.items()} == {
        "store: requests": (1, 0),
        "store: ratings": (2, 0),
        "store: kept answers": (0, 0),
        "store: dead letters": (0, 0),
        "outboxes": (0, 0),
        "data set ANNS-WORDS": (1, 0),
        "data set BOBS-WORDS": (1, 0),
        "training run ANNS-WORDS-0": (1, 0),
        f"policy {start}": (1, 1),
        f"policy {last}": (1, 1),
        "export": (1, 0),
    }
    assert [run.name for run in (settings.var / "runs").iterdir()] == ["others-0"]
    assert kept.exists() and not asked.exists() and not rated.exists()
    stone = json.loads(rated.with_suffix(".erased.json").read_text())
    assert (stone["dataset_id"], stone["samples"], stone["policies"]) == (by_rating, 1, [])
    assert b"ANNS-WORDS" not in everything(settings) and b"BOBS-WORDS" in everything(settings)


def test_a_data_set_made_before_an_erasure_that_was_asked_of_the_gateway_is_found_by_the_next(
    settings: Settings, store: Store
) -> None:
    store.write([request("r1", caller="ann"), Erased(person="ann", by="somebody")])
    path, _ = dataset(settings, "x", "bob", "r1")
    carried_out(settings, store, name="nothing")
    assert not path.exists()


def test_a_data_set_that_cannot_be_read_is_named_and_left(settings: Settings, store: Store) -> None:
    (settings.var / "datasets").mkdir()
    (settings.var / "datasets" / "odd.jsonl").write_text("no header")
    lines = carried_out(settings, store, "ann")
    assert [(line.left, line.note[:14]) for line in lines if line.where == "data set odd"] == [
        (1, "cannot be read")
    ]


def test_what_waits_and_which_keys_live_is_said(settings: Settings, store: Store) -> None:
    Keys(store).create("ann", ["invoke"])
    outbox = Outbox(settings.feedback.outbox)
    outbox.write(
        [request(caller="ann").model_dump_json().encode(), request(caller="bob").model_dump_json().encode()]
    )
    lines = {line.where: line for line in carried_out(settings, store, "ann")}
    outbox.close()
    assert lines["outboxes"][:3] == ("outboxes", 1, 1)
    assert lines["keys"].note.startswith("flywheel keys revoke ")


@pytest.mark.parametrize(("person", "name"), [(None, None), ("ann", "r1"), ("a" * 201, None)])
def test_an_erasure_is_of_a_person_or_of_a_request(
    settings: Settings, person: str | None, name: str | None
) -> None:
    with pytest.raises(FlywheelError):
        wanted(settings, person, name, None, "")
