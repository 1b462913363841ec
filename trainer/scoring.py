"""Log-probabilities of completions under the weights in this process, computing each distinct prompt once."""

from typing import Any

import torch


def hidden_states(
    decoder: torch.nn.Module,
    prompts: torch.Tensor,
    prompt_mask: torch.Tensor,
    completions: torch.Tensor,
    completion_mask: torch.Tensor,
) -> torch.Tensor:
    """States (rows, completion length, hidden) from which each completion token is predicted.

    `prompts` (rows, prompt length) is padded on the left, `completions` (rows, completion length) on the right.
    """
    marked = torch.where(prompt_mask.bool(), prompts, -1)
    _, group = torch.unique(marked, dim=0, return_inverse=True)
    first = torch.stack([(group == index).nonzero()[0, 0] for index in range(int(group.max()) + 1)])
    positions = (prompt_mask.cumsum(dim=1) - 1).clamp(min=0)
    output = decoder(
        input_ids=prompts[first],
        attention_mask=prompt_mask[first],
        position_ids=positions[first],
        use_cache=True,
    )
    last: torch.Tensor = output.last_hidden_state[:, -1:][group]
    if completions.shape[1] == 1:
        return last
    cache = output.past_key_values
    cache.batch_select_indices(group)
    following = positions[:, -1:] + torch.arange(1, completions.shape[1], device=prompts.device)
    output = decoder(
        input_ids=completions[:, :-1],
        attention_mask=torch.cat([prompt_mask, completion_mask[:, :-1].to(prompt_mask.dtype)], dim=1),
        position_ids=following,
        past_key_values=cache,
        use_cache=True,
    )
    return torch.cat([last, output.last_hidden_state], dim=1)


def token_logits(
    base: Any,
    prompts: torch.Tensor,
    prompt_mask: torch.Tensor,
    completions: torch.Tensor,
    completion_mask: torch.Tensor,
) -> torch.Tensor:
    """Logits (real completion tokens, vocabulary), row after row: padding never meets the LM head."""
    hidden = hidden_states(base.model, prompts, prompt_mask, completions, completion_mask)
    return base.get_output_embeddings()(hidden[completion_mask]).float()  # type: ignore[no-any-return]  # torch module
