"""The LM head by parts: values and gradients are those of the whole softmax, under a grammar too."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.trainer import tiny  # noqa: F401  # quiets torch's import
from trainer.scoring import _TOKENS_AT_ONCE, from_states

VOCABULARY, WIDTH, TOKENS, TEMPERATURE = 96, 16, 2 * _TOKENS_AT_ONCE + 5, 0.8


def _base(head: torch.Tensor) -> Any:
    return SimpleNamespace(get_output_embeddings=lambda: SimpleNamespace(weight=head))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("grammar", [False, True])
def test_values_and_gradients_are_those_of_the_softmax_over_what_is_allowed(grammar: bool, device: str):
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(VOCABULARY, WIDTH, generator=generator)
    states = torch.randn(TOKENS, WIDTH, generator=generator, requires_grad=True)
    tokens = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    may = torch.rand(TOKENS, VOCABULARY, generator=generator) < (0.3 if grammar else 2)
    may[torch.arange(TOKENS), tokens] = True
    powers = 2 ** torch.arange(32, dtype=torch.int64)
    bits = (may.view(TOKENS, -1, 32).long() * powers).sum(-1).to(torch.int32)  # the highest bit is the sign

    whole = (states @ head.T / TEMPERATURE).masked_fill(~may, -torch.inf).log_softmax(dim=-1)
    expected = whole.gather(1, tokens[:, None])[:, 0]
    weights = torch.randn(TOKENS, generator=generator)
    (their_gradient,) = torch.autograd.grad((expected * weights).sum(), states)
    their_entropies = -(whole.exp() * whole.clamp(min=-1e9)).sum(dim=-1)

    moved = states.detach().to(device).requires_grad_()
    got, entropies = from_states(
        _base(head.to(device)),
        moved,
        tokens.to(device),
        temperature=TEMPERATURE,
        allowed=bits.to(device) if grammar else None,
    )
    (gradient,) = torch.autograd.grad((got * weights.to(device)).sum(), moved)
    torch.testing.assert_close(got.cpu(), expected)
    torch.testing.assert_close(gradient.cpu(), their_gradient)
    torch.testing.assert_close(entropies.cpu(), their_entropies)
    assert not entropies.requires_grad
