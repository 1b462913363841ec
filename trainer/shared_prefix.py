"""Attention of answers to prompts that several of them share: a prompt's keys and values are held and read once.

On a CPU, reading keys and values is most of the work of sampling, and copying them for each answer (and summing their
gradients) most of the work of the loss. A group of answers to one prompt reads the same ones, so that its queries are
one matrix product, as in cascade attention; only the answers' own keys and values are kept per row.
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "flywheel_shared_prefix"


class SharedPrefix:
    """The prompts' cache, layer by layer, and which row belongs to which prompt.

    `mask` (prompts, longest prompt) is 0 where the prompt is padded; `groups` (rows,) is the prompt of each row.
    """

    def __init__(self, cache: Any, mask: torch.Tensor, groups: torch.Tensor) -> None:
        self._layers = [(layer.keys, layer.values) for layer in cache.layers]
        self._padding = (mask == 0)[:, None, None]
        self.lengths = mask.sum(dim=1)
        self.select(groups)

    def select(self, groups: torch.Tensor) -> None:
        """Settle which rows there are. Each gets a seat beside the others of its prompt, up to the largest group."""
        self.groups = groups
        order = torch.argsort(groups, stable=True)
        counts = torch.bincount(groups, minlength=len(self._padding))
        first = counts.cumsum(dim=0) - counts
        seat = torch.empty_like(groups)
        seat[order] = torch.arange(len(groups), device=groups.device) - first[groups[order]]
        self._seats = int(counts.max())
        self._place = groups * self._seats + seat

    def scores(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """Products (rows, key heads, queries per key head, prompt) of `query` (rows, key heads, queries, width)."""
        keys = self._layers[layer][0]
        grouped = torch.matmul(self._seated(query, len(keys)), keys.transpose(-1, -2))
        grouped = grouped.masked_fill(self._padding, torch.finfo(grouped.dtype).min)
        return self._rows(grouped, query.shape[2])

    def mix(self, layer: int, weights: torch.Tensor) -> torch.Tensor:
        """Values (rows, key heads, queries, width) under `weights` (rows, key heads, queries, prompt)."""
        values = self._layers[layer][1]
        return self._rows(torch.matmul(self._seated(weights, len(values)), values), weights.shape[2])

    def _seated(self, rows: torch.Tensor, prompts: int) -> torch.Tensor:
        """(rows, heads, queries, n) → (prompts, heads, seats · queries, n), zeros where nobody sits."""
        _, heads, queries, n = rows.shape
        seated = rows.new_zeros(prompts * self._seats, heads, queries, n)
        seated[self._place] = rows
        seated = seated.view(prompts, self._seats, heads, queries, n).transpose(1, 2)
        return seated.reshape(prompts, heads, self._seats * queries, n)

    def _rows(self, seated: torch.Tensor, queries: int) -> torch.Tensor:
        """The reverse of `_seated`."""
        prompts, heads, _, n = seated.shape
        rows = seated.view(prompts, heads, self._seats, queries, n).transpose(1, 2)
        return rows.reshape(prompts * self._seats, heads, queries, n)[self._place]


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    prefix: SharedPrefix | None = None,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """The model's attention: stock without `prefix`; with it, each answer attends to its prompt and, causally, itself.

    `query` (rows, heads, new tokens, width); `key` and `value` (rows, key heads, answer, width): of the answer so far,
    padded on the right. `attention_mask` is not needed beside the causal one.
    """
    if prefix is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **arguments
        )
        return output, None
    rows, heads, length, width = query.shape
    layer = int(module.layer_idx)  # type: ignore[arg-type]  # every attention module of transformers has it
    grouped = query.reshape(rows, key.shape[1], -1, width)  # the query heads of a key head, token after token
    to_prompt = prefix.scores(layer, grouped)
    to_answer = torch.matmul(grouped, key.transpose(-1, -2))
    if length > 1:
        later = torch.ones(length, key.shape[2], dtype=torch.bool, device=key.device).triu(
            key.shape[2] - length + 1
        )
        later = later.repeat(heads // key.shape[1], 1)
        to_answer = to_answer.masked_fill(later, torch.finfo(to_answer.dtype).min)
    weights = torch.softmax(torch.cat([to_prompt, to_answer], dim=-1).float() * scaling, dim=-1)
    weights = weights.to(value.dtype)
    prompt = to_prompt.shape[-1]
    mixed = prefix.mix(layer, weights[..., :prompt]) + torch.matmul(weights[..., prompt:], value)
    return mixed.view(rows, heads, length, width).transpose(1, 2), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
