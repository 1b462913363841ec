"""Adapters in vLLM's CPU build: one matrix product for each adapter of a batch. vLLM loads this as a plugin.

vLLM 0.32 gathers an adapter's matrices, in float32, anew for every token, which costs several times what the model
itself does; and a token without an adapter (index -1) gets the adapter of the last slot, so that the base model, asked
beside an adapter once all `max_loras` slots are taken, answered as somebody else. With a GPU vLLM has kernels of its
own, and nothing is replaced.
"""

from collections.abc import Iterator
from typing import Any

import torch


def register() -> None:
    """Called in every process of vLLM's (entry point `vllm.general_plugins`)."""
    from vllm.platforms import current_platform  # noqa: PLC0415  # vLLM is optional, and slow to import

    if not current_platform.is_cpu():
        return
    from vllm.lora.punica_wrapper import punica_cpu  # noqa: PLC0415  # the same

    punica_cpu.sgmv_shrink = shrink
    punica_cpu.sgmv_expand_slice = expand_slice


def shrink(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    output: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    adapters: torch.Tensor,
    *rest: Any,
) -> None:
    """`output` (tokens, rank) = scaling · `inputs` (tokens, width) · Aᵀ, `weights` (adapters, 1, rank, width).

    Each run of tokens of one adapter begins at one of `starts`; rows without an adapter are left as they are.
    """
    *_, scaling = rest
    for rows, adapter in _runs(starts, lengths, adapters):
        a = weights[adapter].flatten(end_dim=-2)
        torch.mul(torch.nn.functional.linear(inputs[rows], a), scaling, out=output[rows, : len(a)])


def expand_slice(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    output: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    adapters: torch.Tensor,
    *rest: Any,
) -> None:
    """Some columns of `output` (tokens, width) += or = `inputs` (tokens, rank) · Bᵀ, `weights` (…, columns, rank)."""
    *_, offset, size, add_inputs = rest
    for rows, adapter in _runs(starts, lengths, adapters):
        b = weights[adapter].flatten(end_dim=-2)
        added = torch.nn.functional.linear(inputs[rows].to(b.dtype), b)
        if add_inputs:
            output[rows, offset : offset + size] += added
        else:
            output[rows, offset : offset + size] = added


def _runs(starts: torch.Tensor, lengths: torch.Tensor, adapters: torch.Tensor) -> Iterator[tuple[slice, int]]:
    """The rows and the adapter of every run of tokens that has one."""
    runs = zip(starts.tolist(), lengths.tolist(), adapters.tolist(), strict=True)
    return ((slice(start, start + length), adapter) for start, length, adapter in runs if adapter >= 0)
