"""What replaces vLLM's operators for adapters on a CPU, beside the formula that they stand for."""

import pytest
import torch

from deploy.vllm_plugin import expand_slice, shrink

_TOKENS = ([2, 0, 1, -1], [3, 1, 2, 2])  # runs of tokens: whose adapter, how many
_WIDTH, _RANK, _ADAPTERS = 12, 4, 4


@pytest.fixture(params=[_TOKENS, ([-1, 3], [4, 4]), ([1], [8]), ([-1], [8])])
def runs(request: pytest.FixtureRequest) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Starts, lengths and adapters as vLLM hands them over."""
    adapters, lengths = (torch.tensor(part) for part in request.param)
    return lengths.cumsum(0) - lengths, lengths, adapters


def _matrices(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(_ADAPTERS, 1, rows, columns, generator=torch.Generator().manual_seed(1))


def _inputs(columns: int) -> torch.Tensor:
    return torch.randn(8, columns, generator=torch.Generator().manual_seed(2))


def test_each_token_is_shrunk_by_its_own_adapter_and_left_alone_without_one(
    runs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
):
    starts, lengths, adapters = runs
    inputs, weights, output = _inputs(_WIDTH), _matrices(_RANK, _WIDTH), torch.zeros(8, _RANK)
    shrink(inputs, weights, output, starts, lengths, adapters, len(starts), int(lengths.max()), 8, 2.0)
    for token, adapter in enumerate(torch.repeat_interleave(adapters, lengths).tolist()):
        expected = 2 * weights[adapter, 0] @ inputs[token] if adapter >= 0 else torch.zeros(_RANK)
        torch.testing.assert_close(output[token], expected)


@pytest.mark.parametrize("add", [True, False])
def test_each_token_is_expanded_into_its_columns_by_its_own_adapter(
    runs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], add: bool
):
    starts, lengths, adapters = runs
    inputs, weights, before = _inputs(_RANK), _matrices(5, _RANK), _inputs(_WIDTH)
    output = before.clone()
    expand_slice(
        inputs, weights, output, starts, lengths, adapters, len(starts), int(lengths.max()), 8, 6, 5, add
    )
    for token, adapter in enumerate(torch.repeat_interleave(adapters, lengths).tolist()):
        expected = before[token].clone()
        if adapter >= 0:
            expected[6:11] = weights[adapter, 0] @ inputs[token] + (before[token, 6:11] if add else 0)
        torch.testing.assert_close(output[token], expected)
