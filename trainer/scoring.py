"""Log-probabilities of completions under the weights in this process, computing each distinct prompt once."""

from typing import Any

import torch
import xgrammar

from trainer.shared_prefix import ATTENTION, SharedPrefix

_TOKENS_AT_ONCE = 64  # that meet the LM head: 12 MiB of logits at a vocabulary of 49,152


def hidden_states(
    decoder: torch.nn.Module,
    prompts: torch.Tensor,
    prompt_mask: torch.Tensor,
    completions: torch.Tensor,
) -> torch.Tensor:
    """States (rows, completion length, hidden) from which each completion token is predicted.

    `prompts` (rows, prompt length) is padded on the left, `completions` (rows, completion length) on the right. The
    decoder's attention must be `trainer.shared_prefix.ATTENTION`.
    """
    marked = torch.where(prompt_mask.bool(), prompts, -1)
    _, group = torch.unique(marked, dim=0, return_inverse=True)
    first = torch.stack([(group == index).nonzero()[0, 0] for index in range(int(group.max()) + 1)])
    mask = prompt_mask[first]
    output = decoder(
        input_ids=prompts[first],
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=True,
    )
    last: torch.Tensor = output.last_hidden_state[:, -1:][group]
    if completions.shape[1] == 1:
        return last
    prefix = SharedPrefix(output.past_key_values, mask, group)
    steps = torch.arange(completions.shape[1] - 1, device=prompts.device)
    output = decoder(
        input_ids=completions[:, :-1],
        position_ids=prefix.lengths[group][:, None] + steps,
        use_cache=False,
        prefix=prefix,
    )
    return torch.cat([last, output.last_hidden_state], dim=1)


def token_logprobs(
    base: Any,
    prompts: torch.Tensor,
    prompt_mask: torch.Tensor,
    completions: torch.Tensor,
    completion_mask: torch.Tensor,
    *,
    temperature: float = 1.0,
    allowed: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `from_states`: of the real completion tokens, row after row. Padding never meets the LM head."""
    if base.config._attn_implementation != ATTENTION:  # noqa: SLF001  # no other would see the prompts
        base.set_attn_implementation(ATTENTION)
    states = hidden_states(base.model, prompts, prompt_mask, completions)[completion_mask]
    return from_states(base, states, completions[completion_mask], temperature=temperature, allowed=allowed)


def from_states(
    base: Any,
    states: torch.Tensor,
    tokens: torch.Tensor,
    *,
    temperature: float = 1.0,
    allowed: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy (tokens,) of each of `tokens`, predicted from `states` (tokens, hidden).

    `allowed` are the bits of `Grammars.allowed` for these tokens: the policy is then what is left of the vocabulary.
    Entropies carry no gradient, nor does one reach the LM head: it is not trained.
    """
    head = base.get_output_embeddings().weight
    found: tuple[torch.Tensor, torch.Tensor] = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]  # torch's own
        states.to(head.dtype), head, tokens, temperature, allowed
    )
    return found


class _TokenLogprobs(torch.autograd.Function):
    """The LM head and the softmax behind it, some tokens at a time, computed again on the way back.

    Logits of a whole batch are hundreds of megabytes, of which autograd keeps several copies; every operation on them
    waits for fresh memory. Some tokens' logits stay in the cache.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        head: torch.Tensor,
        targets: torch.Tensor,
        temperature: float,
        allowed: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logprobs, entropies, normalisers = states.new_empty(3, len(states), dtype=torch.float32).unbind()
        for rows in _parts(len(states)):
            logits = _logits(states[rows], head, temperature, allowed, rows)
            normalisers[rows] = logits.logsumexp(dim=-1)
            logits -= normalisers[rows, None]
            logprobs[rows] = logits.gather(1, targets[rows, None])[:, 0]
            weighted = logits.exp().mul_(logits.clamp_(min=torch.finfo(logits.dtype).min))
            entropies[rows] = -weighted.sum(dim=-1)
        ctx.save_for_backward(states, head, targets, normalisers)
        ctx.temperature, ctx.allowed = temperature, allowed
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor, _: torch.Tensor
    ) -> tuple[torch.Tensor, None, None, None, None]:
        states, head, targets, normalisers = ctx.saved_tensors
        found = torch.empty_like(states)
        for rows in _parts(len(states)):
            logits = _logits(states[rows], head, ctx.temperature, ctx.allowed, rows)
            weights = logits.sub_(normalisers[rows, None]).exp_().neg_()
            weights.scatter_add_(1, targets[rows, None], torch.ones_like(weights[:, :1]))
            weights *= gradient[rows, None] / ctx.temperature
            found[rows] = weights.to(head.dtype) @ head
        return found, None, None, None, None


def _parts(tokens: int) -> list[slice]:
    return [slice(start, start + _TOKENS_AT_ONCE) for start in range(0, tokens, _TOKENS_AT_ONCE)]


def _logits(
    states: torch.Tensor, head: torch.Tensor, temperature: float, allowed: torch.Tensor | None, rows: slice
) -> torch.Tensor:
    with torch.amp.autocast(states.device.type, enabled=False):
        logits = torch.nn.functional.linear(states, head).float()
    logits /= temperature
    if allowed is not None:
        xgrammar.apply_token_bitmask_inplace(logits, allowed[rows].to(logits.device))
    return logits
