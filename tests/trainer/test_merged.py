"""An adapter that is merged computes what PEFT computes apart."""

from typing import Any

import pytest

from tests.trainer import tiny
from tests.trainer.tiny import torch

pytestmark = [pytest.mark.filterwarnings(ignored) for ignored in tiny.IGNORED]

IDS = [[5, 600, 7_000, 20_000, 11], [9, 9, 800, 41_000, 2]]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny.tokenizer()


def step(model: Any, optimizer: Any) -> tuple[float, dict[str, Any]]:
    loss = model(input_ids=torch.tensor(IDS)).logits.log_softmax(dim=-1)[..., :50].square().mean()
    optimizer.zero_grad()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    optimizer.step()
    return float(loss), gradients


def test_outputs_and_gradients_are_those_of_peft_step_after_step(tokenizer: Any):
    merged = tiny.adapted(tiny.model(tokenizer))
    apart = tiny.apart(tiny.adapted(tiny.model(tokenizer)))
    losses = []
    optimizers = [
        torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=0.01, fused=True)
        for m in (merged, apart)
    ]
    for _ in range(3):
        (ours, our_gradients), (theirs, their_gradients) = map(step, (merged, apart), optimizers)
        assert ours == pytest.approx(theirs, rel=1e-4)
        assert our_gradients.keys() == their_gradients.keys()
        for name, value in their_gradients.items():
            assert torch.allclose(our_gradients[name], value, atol=1e-3 * float(value.abs().max())), name
        losses.append(ours)
    assert len({round(loss, 3) for loss in losses}) == 3


def test_without_its_adapter_the_model_is_the_base(tokenizer: Any):
    base = tiny.model(tokenizer)
    with torch.no_grad():
        before = base(input_ids=torch.tensor(IDS)).logits
        adapted = tiny.adapted(base)
        assert not torch.allclose(adapted(input_ids=torch.tensor(IDS)).logits, before, atol=0.1)
        with adapted.disable_adapter():
            assert torch.equal(adapted(input_ids=torch.tensor(IDS)).logits, before)


def test_dropout_cannot_be_merged(tokenizer: Any):
    config = tiny.LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.1, task_type="CAUSAL_LM")
    with pytest.raises(ValueError, match="cannot be merged"):
        tiny.merged.merge(tiny.get_peft_model(tiny.model(tokenizer), config))
