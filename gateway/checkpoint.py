"""What the gateway reads of a published checkpoint: marker, manifest, and the probes that say how it must score.

The trainer writes the artefact first and the marker last: a folder without `COMPLETE` is half written, and not touched.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

MARKER = "COMPLETE"


class CheckpointError(Exception):
    """A checkpoint that cannot be used. The message names the file and the fault."""


class Probe(BaseModel):
    """A prompt and completion as token ids, and the trainer's own logprob (nats) of each completion token."""

    prompt_token_ids: list[int] = Field(min_length=1)
    completion_token_ids: list[int] = Field(min_length=1)
    logprobs: list[float]

    @model_validator(mode="after")
    def _one_logprob_per_token(self) -> "Probe":
        if len(self.logprobs) != len(self.completion_token_ids):
            raise ValueError(
                f"{len(self.completion_token_ids)} completion tokens but {len(self.logprobs)} logprobs"
            )
        return self


class _Manifest(BaseModel):
    policy: str


_probes = TypeAdapter(Annotated[list[Probe], Field(min_length=1, max_length=256)])


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint of one policy."""

    policy: str
    path: Path
    probes: tuple[Probe, ...]

    @classmethod
    def read(cls, path: Path, policy: str) -> "Checkpoint":
        """Read the checkpoint of `policy` in the folder `path`. Raises `CheckpointError`."""
        if not path.is_absolute():
            raise CheckpointError(
                f"{path} is not absolute: gateway and vLLM must both find the checkpoint there"
            )
        if not (path / MARKER).is_file():
            raise CheckpointError(
                f"{path} has no file {MARKER}: wait until the checkpoint is completely written"
            )
        try:
            manifest = _Manifest.model_validate(_json(path / "manifest.json"))
            probes = _probes.validate_python(_json(path / "probes.json"))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise CheckpointError(f"{path}: {error.title} {where}: {first['msg']}") from error
        if manifest.policy != policy:
            raise CheckpointError(f"{path} holds {manifest.policy}, not {policy}")
        return cls(policy, path, tuple(probes))


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}") from error
