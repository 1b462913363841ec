"""A checkpoint is there whole or not at all, is named by its weights, and brings the proof of what it is."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.samples import model_call
from tests.trainer import tiny
from tests.trainer.tiny import torch
from trainer.digest import base_digest

pytestmark = [pytest.mark.filterwarnings(ignored) for ignored in tiny.IGNORED]

PROBES = [
    model_call(prompt_token_ids=prompt, completion_token_ids=completion, logprobs=[0.0] * len(completion))
    for prompt, completion in [((5, 6, 7), (11, 12)), ((5, 6, 7), (13,)), ((8,), (14, 15, 16, 17))]
]


@pytest.fixture
def model() -> Any:
    return tiny.adapted(tiny.model(tiny.tokenizer(), dtype=torch.bfloat16))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-base"
    folder.mkdir()
    (folder / "DIGEST").write_text("b0\n")
    return folder


def publish(model: Any, folder: Path, base: Path, **changes: Any) -> Any:
    told = {
        "agent": "sql-analyst",
        "base": base,
        "dataset": "d" * 64,
        "stage": "supervised",
        "parent": None,
        "run": {"seed": 0},
        "probes": PROBES,
        "pad": 2,
    }
    return tiny.checkpoint.publish(model, folder, **{**told, **changes})


def test_a_checkpoint_says_what_it_is_and_where_it_comes_from(model: Any, base: Path, tmp_path: Path):
    manifest = publish(model, tmp_path / "out", base, parent="sql-analyst@old")
    agent, _, digest = manifest.policy.partition("@")
    folder = tmp_path / "out" / digest
    assert sorted(file.name for file in folder.iterdir()) == [
        "COMPLETE",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
        "probes.json",
    ]
    assert json.loads((folder / "manifest.json").read_text()) == manifest.model_dump()
    assert (agent, manifest.base, manifest.base_digest, manifest.parent) == (
        "sql-analyst",
        "tiny-base",
        "b0",
        "sql-analyst@old",
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == [digest]


def test_the_name_is_the_digest_of_the_weights(model: Any, base: Path, tmp_path: Path):
    manifest = publish(model, tmp_path / "out", base)
    digest = manifest.policy.partition("@")[2]
    weights = (tmp_path / "out" / digest / "adapter_model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest().startswith(digest)


def test_the_same_weights_twice_are_one_policy_and_other_weights_another(
    model: Any, base: Path, tmp_path: Path
):
    first = publish(model, tmp_path / "out", base)
    folder = tmp_path / "out" / first.policy.partition("@")[2]
    written = (folder / "manifest.json").read_bytes()
    again = publish(model, tmp_path / "out", base)
    assert again.policy == first.policy
    assert (folder / "manifest.json").read_bytes() == written
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lora_B" in n).mul_(2)
    assert publish(model, tmp_path / "out", base).policy != first.policy
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_the_marker_comes_last_and_nothing_is_left_of_an_attempt_that_failed(
    model: Any, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        (work,) = (tmp_path / "out").glob(".unfinished-*/checkpoint")
        assert (work / "adapter_model.safetensors").is_file()
        assert not (work / "COMPLETE").exists()
        raise RuntimeError("killed while it scored its probes")

    with monkeypatch.context() as during:
        during.setattr(tiny.checkpoint, "score", fail)
        with pytest.raises(RuntimeError, match="killed"):
            publish(model, tmp_path / "out", base)
    assert list((tmp_path / "out").iterdir()) == []
    assert publish(model, tmp_path / "out", base).policy


def test_a_half_written_checkpoint_is_replaced_by_a_whole_one(model: Any, base: Path, tmp_path: Path):
    digest = publish(model, tmp_path / "out", base).policy.partition("@")[2]
    folder = tmp_path / "out" / digest
    (folder / "COMPLETE").unlink()
    (folder / "probes.json").write_text("[")
    publish(model, tmp_path / "out", base)
    assert (folder / "COMPLETE").exists()
    assert len(json.loads((folder / "probes.json").read_text())) == len(PROBES)


def test_the_probes_hold_the_models_own_logprobs(model: Any, base: Path, tmp_path: Path):
    """Over the whole vocabulary, whatever the grammar was: so a server reports the logprobs of a prompt."""
    digest = publish(model, tmp_path / "out", base).policy.partition("@")[2]
    probes = json.loads((tmp_path / "out" / digest / "probes.json").read_text())
    assert len(probes) == len(PROBES)
    for probe, call in zip(probes, PROBES, strict=True):
        assert tuple(probe["prompt_token_ids"]) == call.prompt_token_ids
        assert tuple(probe["completion_token_ids"]) == call.completion_token_ids
        with torch.autocast("cpu", torch.bfloat16):
            logits = tiny.teacher_forced(model, call.prompt_token_ids, call.completion_token_ids)
        chosen = torch.tensor(call.completion_token_ids)[:, None]
        expected = torch.log_softmax(logits, dim=-1).gather(1, chosen)[:, 0]
        assert torch.allclose(torch.tensor(probe["logprobs"]), expected, atol=0.2)


def test_scores_in_float32_are_exact_whatever_the_padding(monkeypatch: pytest.MonkeyPatch):
    model = tiny.adapted(tiny.model(tiny.tokenizer()))
    monkeypatch.setattr("trainer.checkpoint.torch.autocast", lambda *_: torch.inference_mode())
    scored = tiny.checkpoint.score(model, PROBES, 2)
    for logprobs, call in zip(scored, PROBES, strict=True):
        logits = tiny.teacher_forced(model, call.prompt_token_ids, call.completion_token_ids)
        chosen = torch.tensor(call.completion_token_ids)[:, None]
        expected = torch.log_softmax(logits, dim=-1).gather(1, chosen)[:, 0]
        assert torch.allclose(torch.tensor(logprobs), expected, atol=1e-4)


def test_a_published_adapter_loads_as_the_same_policy(model: Any, base: Path, tmp_path: Path):
    digest = publish(model, tmp_path / "out", base).policy.partition("@")[2]
    fresh = tiny.model(tiny.tokenizer(), dtype=torch.bfloat16)
    loaded = tiny.policy.load_adapter(fresh, tmp_path / "out" / digest, trainable=False)
    ours, theirs = tiny.checkpoint.score(model, PROBES, 2), tiny.checkpoint.score(loaded, PROBES, 2)
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, abs=0.2)
    assert publish(loaded, tmp_path / "again", base).policy.endswith(digest)


def test_the_base_is_named_by_its_weights_where_set_up_has_not_named_it(tmp_path: Path):
    for name, weights in (("one", b"w"), ("same", b"w"), ("other", b"v")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    one, same, other = (base_digest(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same != other
    assert len(one) == 12
    (tmp_path / "one" / "DIGEST").write_text("named\n")
    assert base_digest(tmp_path / "one") == "named"


def test_a_call_keeps_its_place_when_probes_are_scored_together(model: Any):
    together = tiny.checkpoint.score(model, PROBES, 2)
    alone: list[list[float]] = [tiny.checkpoint.score(model, [call], 2)[0] for call in PROBES]
    assert [len(row) for row in together] == [len(call.completion_token_ids) for call in PROBES]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=0.2)
