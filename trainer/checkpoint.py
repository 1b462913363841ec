"""Publish a policy: the artefact first, the marker last, so that a half-written checkpoint can never be seen.

A checkpoint is a folder named by the digest of its weights: a PEFT adapter (bfloat16), `manifest.json`, `probes.json`
(prompts and completions with the trainer's own log-probabilities, for whoever serves it to compare) and `COMPLETE`.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save_file

from feedback.events import ModelCall
from trainer.digest import base_digest
from trainer.sampler import left_padded
from trainer.scoring import token_logprobs

MARKER = "COMPLETE"


class Manifest(BaseModel):
    """What a checkpoint is and where it comes from; `parent` is the policy that training went on from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    agent: str
    base: str
    base_digest: str
    dataset: str
    stage: str
    parent: str | None
    run: dict[str, Any]
    created: str


def publish(
    model: PeftModel,
    folder: Path,
    *,
    agent: str,
    base: Path,
    dataset: str,
    stage: str,
    parent: str | None,
    run: dict[str, Any],
    probes: Sequence[ModelCall],
    pad: int,
) -> Manifest:
    """Write the adapter below `folder`; the same weights twice are one checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as name:
        work = Path(name) / "checkpoint"
        work.mkdir()
        state = {
            key: value.detach().to("cpu", torch.bfloat16)
            for key, value in get_peft_model_state_dict(model).items()
        }
        save_file(state, work / "adapter_model.safetensors", metadata={"format": "pt"})
        _write_config(model, base, work)
        digest = hashlib.sha256((work / "adapter_model.safetensors").read_bytes()).hexdigest()[:12]
        manifest = Manifest(
            policy=f"{agent}@{digest}",
            agent=agent,
            base=base.name,
            base_digest=base_digest(base),
            dataset=dataset,
            stage=stage,
            parent=parent,
            run=run,
            created=datetime.now(UTC).isoformat(),
        )
        (work / "manifest.json").write_text(manifest.model_dump_json(indent=2))
        scored = [
            {
                "prompt_token_ids": call.prompt_token_ids,
                "completion_token_ids": call.completion_token_ids,
                "logprobs": logprobs,
            }
            for call, logprobs in zip(probes, score(model, probes, pad), strict=True)
        ]
        (work / "probes.json").write_text(json.dumps(scored))
        (work / MARKER).touch()
        if not (folder / digest / MARKER).exists():
            shutil.rmtree(folder / digest, ignore_errors=True)
            work.rename(folder / digest)
    return manifest


def _write_config(model: PeftModel, base: Path, work: Path) -> None:
    config = model.peft_config["default"]
    text = config.to_dict() | {"base_model_name_or_path": base.name, "inference_mode": True}
    text["target_modules"] = sorted(text["target_modules"])
    (work / "adapter_config.json").write_text(json.dumps(text, indent=2, default=str))


@torch.no_grad()
def score(model: PeftModel, calls: Sequence[ModelCall], pad: int) -> list[list[float]]:
    """The log-probability of each completion token, over the whole vocabulary, at temperature 1."""
    if not calls:
        return []
    base = model.get_base_model()
    device = base.device
    prompts, prompt_mask = left_padded([list(call.prompt_token_ids) for call in calls], pad, device)
    rows = [list(call.completion_token_ids) for call in calls]
    longest = max(map(len, rows))
    completions = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=device)
    mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows], device=device)
    with torch.autocast(device.type, torch.bfloat16):
        logprobs, _ = token_logprobs(base, prompts, prompt_mask, completions, mask)
    values = iter(logprobs.tolist())
    return [[next(values) for _ in row] for row in rows]
