"""`flywheel erase`: a person or a request is forgotten, and what was made of it is found.

The gateway is told, as by anybody who may erase; then the store is watched, and the files here are gone through.
A data set is named by the hash of its content, so one that holds what was erased cannot be mended: it is deleted, and a
small file says in its place that there was one, and who has learnt from it.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from deploy.client import Client
from deploy.errors import FlywheelError
from deploy.settings import Settings
from feedback import outboxes
from feedback.curation import DatasetError, load
from feedback.events import Erased
from feedback.outbox import OutboxError
from feedback.store import Erasures, Keys, Store, StoreError
from feedback.store.erasing import names_of

_LANDING_SECONDS, _LOOK_SECONDS = 60.0, 0.2


class Line(NamedTuple):
    """What was found in one place, what of it is left, and what is to be done about that."""

    where: str
    found: int
    left: int
    note: str = ""


@contextmanager
def opened(settings: Settings) -> Iterator[Store]:
    """The store. Raises `FlywheelError`, also for what fails within."""
    try:
        store = Store.open(settings.feedback.store_url)
        try:
            yield store
        finally:
            store.close()
    except (StoreError, OutboxError, ValueError, OSError) as error:
        raise FlywheelError(str(error)) from error


def wanted(
    settings: Settings, person: str | None, request_id: str | None, tenant: str | None, reason: str
) -> Erased:
    """What is asked for. Raises `FlywheelError` unless it is a person or a request."""
    if (person is None) == (request_id is None):
        raise FlywheelError("say --person or --request, one of them")
    of = tenant or settings.gateway.operator_tenant
    try:
        return Erased(person=person, request_id=request_id, tenant=of, reason=reason, by="operator")
    except ValueError as error:
        raise FlywheelError("a name has 1 to 200 characters, a reason at most 20,000") from error


def erase(settings: Settings, store: Store, asked: Erased) -> list[Line]:
    """Have it erased, and say what is left. Raises `FlywheelError`, `StoreError`, `OutboxError`, `OSError`."""
    known = Erasures(store)
    before = known.find(asked)
    body = asked.model_dump(include={"person", "request_id", "tenant", "reason"}, exclude_none=True)
    answer = Client(settings).post("/v1/erasures", body)
    if not _landed(known, answer["erasure_id"]):
        raise FlywheelError(
            f"the erasure {answer['erasure_id']} is on the disk, and has not come to the store within "
            f"{_LANDING_SECONDS:g} s; say the same again later, to see what is left"
        )
    after = known.find(asked.model_copy(update={"time": datetime.fromisoformat(answer["until"])}))
    lines = [Line(f"store: {name}", before[name], after[name]) for name in before]
    lines.append(Line("outboxes", *_waiting(settings, asked)))
    lines += _files(settings, known, asked)
    if settings.export.exists():
        shutil.rmtree(settings.export)
        lines.append(Line("export", 1, 0, "deleted: flywheel export makes another"))
    lines += _keys(store, asked)
    try:
        store.scrub()
    except StoreError:  # somebody reads it at this moment
        lines.append(Line("store: deleted pages", 1, 1, "the gateway overwrites them within an hour"))
    return lines


def _landed(known: Erasures, erasure_id: str) -> bool:
    until = time.monotonic() + _LANDING_SECONDS
    while not known.landed(erasure_id):
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _waiting(settings: Settings, asked: Erased) -> tuple[int, int, str]:
    """Events under way that name the person or the request: the store will not take what the erasure covers."""
    name = json.dumps(asked.person or asked.request_id, ensure_ascii=False).encode()
    first = settings.feedback.outbox
    files = [first, *outboxes.left_over(first, 1)]
    waiting = [
        body for file in files for body in outboxes.containing(file, name) if b'"type":"erased"' not in body
    ]
    return len(waiting), len(waiting), "not taken by the store when they come" if waiting else ""


def _files(settings: Settings, known: Erasures, asked: Erased) -> list[Line]:
    lines = []
    learnt: dict[str, list[str]] = {}
    for path in sorted((settings.var / "datasets").glob("*.jsonl")):
        try:
            dataset = load(path)
        except DatasetError as error:
            lines.append(Line(f"data set {path.stem}", 1, 1, f"cannot be read; look yourself: {error}"))
            continue
        raters = {rater for sample in dataset.samples for rater in sample.raters}
        ids = {request_id for sample in dataset.samples for request_id in sample.request_ids}
        by = asked.person is not None and any(asked.person in names_of(rater) for rater in raters)
        if not by and not known.erased(asked.tenant, ids):
            continue
        policies = _policies(settings, dataset.dataset_id)
        _tombstone(path, dataset.dataset_id, len(dataset.samples), policies)
        lines.append(Line(f"data set {path.stem}", 1, 0, "deleted: curate another"))
    for path in sorted((settings.var / "datasets").glob("*.erased.json")):
        learnt |= {policy: [path.name] for policy in json.loads(path.read_text("utf-8"))["policies"]}
        for run in sorted((settings.var / "runs").glob(f"{path.name.removesuffix('.erased.json')}-*")):
            shutil.rmtree(run)
            lines.append(Line(f"training run {run.name}", 1, 0, "deleted: its weights have learnt from it"))
    note = "learnt from a data set that is gone: train another, promote it, delete this folder (probes spell prompts)"
    left = [policy for policy in sorted(learnt) if _checkpoint(settings, policy).exists()]
    return [*lines, *(Line(f"policy {policy}", 1, 1, note) for policy in left)]


def _tombstone(path: Path, dataset_id: str, samples: int, policies: list[str]) -> None:
    """First what stays of it, then the deletion: what is interrupted in between is done again."""
    said = {
        "dataset_id": dataset_id,
        "samples": samples,
        "policies": policies,
        "deleted": datetime.now(UTC).isoformat(),
        "because": "it held what a person or a request was erased of",
    }
    stone = path.with_suffix(".erased.json")
    stone.with_suffix(".part").write_text(json.dumps(said, indent=2) + "\n", "utf-8")
    stone.with_suffix(".part").replace(stone)
    path.unlink()


def _policies(settings: Settings, dataset_id: str) -> list[str]:
    """Whoever has learnt from the data set, or went on from a policy that had."""
    manifests: list[dict[str, Any]] = [
        json.loads(path.read_text("utf-8"))
        for path in sorted((settings.var / "checkpoints").glob("*/manifest.json"))
    ]
    found: set[str] = set()
    while (
        more := {
            manifest["policy"]
            for manifest in manifests
            if manifest["dataset"] == dataset_id or manifest["parent"] in found
        }
        - found
    ):
        found |= more
    return sorted(found)


def _checkpoint(settings: Settings, policy: str) -> Path:
    return settings.var / "checkpoints" / policy.partition("@")[2]


def _keys(store: Store, asked: Erased) -> list[Line]:
    keys = [key for key in Keys(store).of_tenant(asked.tenant) if key.owner == asked.person]
    if not keys:
        return []
    live = [key.id for key in keys if key.revoked is None]
    todo = f"flywheel keys revoke {live[0]}" if live else "they are revoked, and bear its name"
    return [Line("keys", len(keys), len(keys), todo)]
