"""What can be learned from, and its file: JSONL, one header line, then one line per sample.

A data set's name is the hash of its content, so that a checkpoint which names it names exactly these samples.
"""

import hashlib
import json
import os
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from feedback.events import Message


class DatasetError(Exception):
    """A data set that cannot be used: unreadable, cut short, or changed after it was written."""


class Sample(BaseModel):
    """A task with a verified reference. `support` is how many people stand behind it: the length of `raters`.

    `reference` is an answer by the agent's response schema, or `{"rows": [[…], …]}`. `policy` gave the answer that
    `messages` come from; `request_ids` are all that agree. `corrected` tells a reference that somebody wrote from an
    answer that was only confirmed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: str
    question: str
    messages: tuple[Message, ...]
    reference: dict[str, Any]
    corrected: bool = False
    support: int
    raters: tuple[str, ...]
    request_ids: tuple[str, ...]
    policy: str


class Curated(NamedTuple):
    """Samples in the order of their task ids, and how many ratings became none, by reason."""

    samples: tuple[Sample, ...]
    rejected: Counter[str]

    @property
    def dataset_id(self) -> str:
        """SHA-256 of the sample lines: the same samples have the same id, whenever and wherever curated."""
        return hashlib.sha256(_lines(self.samples)).hexdigest()


class Header(BaseModel):
    """What the file holds; `policies` counts samples by policy, `time` is that of `save`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset_id: str
    time: AwareDatetime
    samples: int
    rejected: dict[str, int]
    policies: dict[str, int]


def save(curated: Curated, path: Path) -> Header:
    """Write the file whole or not at all. Raises `OSError`."""
    header = Header(
        dataset_id=curated.dataset_id,
        time=datetime.now(UTC),
        samples=len(curated.samples),
        rejected=dict(sorted(curated.rejected.items())),
        policies=dict(sorted(Counter(sample.policy for sample in curated.samples).items())),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        written = Path(folder) / path.name
        with written.open("wb") as file:
            file.write(header.model_dump_json().encode() + b"\n" + _lines(curated.samples))
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
    return header


def read_header(path: Path) -> Header:
    """What a file says of itself, unchecked. Raises `DatasetError`."""
    try:
        with path.open("rb") as file:
            return Header.model_validate_json(file.readline())
    except (OSError, ValidationError) as error:
        raise DatasetError(f"{path}: {error}") from error


def load(path: Path) -> Curated:
    """Read what `save` wrote. Raises `DatasetError`."""
    header = read_header(path)
    try:
        lines = path.read_bytes().partition(b"\n")[2]
        samples = tuple(Sample.model_validate_json(line) for line in lines.splitlines())
    except (OSError, ValidationError) as error:
        raise DatasetError(f"{path}: {error}") from error
    if hashlib.sha256(lines).hexdigest() != header.dataset_id:
        raise DatasetError(
            f"{path}: its samples are not those of {header.dataset_id[:12]}: it was changed or cut short"
        )
    return Curated(samples, Counter(header.rejected))


def _lines(samples: tuple[Sample, ...]) -> bytes:
    # Sorted keys: two references are equal, and must hash equally, in whatever order their keys were sent.
    records = (json.dumps(sample.model_dump(mode="json"), sort_keys=True) for sample in samples)
    return b"".join(record.encode() + b"\n" for record in records)
