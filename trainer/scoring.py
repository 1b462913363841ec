"""Log-probabilities of completions under the weights in this process, computing each distinct prompt once."""

from typing import Any

import torch

from trainer.shared_prefix import ATTENTION, SharedPrefix


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


def token_logits(
    base: Any,
    prompts: torch.Tensor,
    prompt_mask: torch.Tensor,
    completions: torch.Tensor,
    completion_mask: torch.Tensor,
) -> torch.Tensor:
    """Logits (real completion tokens, vocabulary), row after row: padding never meets the LM head."""
    if base.config._attn_implementation != ATTENTION:  # noqa: SLF001  # no other would see the prompts
        base.set_attn_implementation(ATTENTION)
    hidden = hidden_states(base.model, prompts, prompt_mask, completions)
    return base.get_output_embeddings()(hidden[completion_mask]).float()  # type: ignore[no-any-return]  # torch module
