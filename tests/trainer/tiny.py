"""A random Llama of 3 million weights with the real tokenizer: everything of the real thing but knowledge.

Whoever imports this imports torch. The libraries warn of one another's versions, deprecations and missing GPUs while
they are imported; that is theirs to mend, so only our own code runs with warnings as errors.
"""

import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from trainer.config import Lora

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    import xgrammar
    from datasets import Dataset
    from peft import LoraConfig, PeftModel, get_peft_model
    from peft.tuners.lora import LoraLayer
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    from trainer import checkpoint, contest, grammar, grpo, merged, policy, sampler, supervised, train

__all__ = [
    "Dataset",
    "GRPOConfig",
    "GRPOTrainer",
    "LoraConfig",
    "PeftModel",
    "SFTConfig",
    "SFTTrainer",
    "checkpoint",
    "contest",
    "get_peft_model",
    "grammar",
    "grpo",
    "merged",
    "policy",
    "sampler",
    "supervised",
    "torch",
    "train",
    "xgrammar",
]

IGNORED = (
    "ignore::UserWarning",
    "ignore::FutureWarning",
    "ignore::DeprecationWarning",
    "ignore::PendingDeprecationWarning",
)  # what the libraries say while they run
MODEL = Path(__file__).parents[2] / "var" / "models" / "smollm2-135m"


@cache
def tokenizer() -> Any:
    """That of the real small model. Skips the test where it has not been made."""
    if not (MODEL / "tokenizer.json").is_file():
        pytest.skip(f"no tokenizer in {MODEL}: run `make setup`")
    return policy.load_tokenizer(MODEL)


def model(known: Any, *, seed: int = 0, dtype: Any = torch.float32, likely: str = "") -> Any:
    """A random model whose logits are spread far enough to have one largest. It says `likely` every now and then."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=49_152,
        initializer_range=0.3,
        max_position_embeddings=2_048,
        tie_word_embeddings=True,
        bos_token_id=known.bos_token_id,
        eos_token_id=known.eos_token_id,
        pad_token_id=known.pad_token_id,
    )
    made = LlamaForCausalLM(config).to(dtype).eval()
    if likely:
        head = torch.nn.Linear(64, 49_152, bias=True, dtype=dtype)
        head.weight = made.lm_head.weight
        with torch.no_grad():
            head.bias.zero_()
            head.bias[known.encode(likely)] = 20.0
        made.lm_head = head
    return made


def adapted(base: Any, *, seed: int = 1, rank: int = 4, scale: float = 0.05) -> Any:
    """An adapter that changes something: both of its matrices are random."""
    made = policy.new_adapter(base, Lora(rank=rank, alpha=32))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=scale)
    return made


def apart(model: Any) -> Any:
    """The model with its adapter computed beside the base, by PEFT's own code."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            del layer.forward
    return model


def teacher_forced(of: Any, prompt: Sequence[int], completion: Sequence[int]) -> Any:
    """Logits (completion length, vocabulary) from one plain forward pass over the whole sequence, in float32."""
    with torch.no_grad():
        logits = of(input_ids=torch.tensor([[*prompt, *completion]])).logits
    return logits[0, len(prompt) - 1 : -1].float()
