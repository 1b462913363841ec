"""The weights in the trainer's process: base model, LoRA adapter, tokenizer."""

import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trainer.config import Lora
from trainer.merged import merge


def prepare_process(*, seed: int, threads: int | None) -> None:
    """Seed torch and settle its threads."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    torch.manual_seed(seed)
    if threads is not None:
        torch.set_num_threads(threads)


def resolve_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The base model's tokenizer, padding on the left as generation needs it."""
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(path: Path, device: torch.device) -> PreTrainedModel:
    """The base model in bfloat16, as it is served."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    return model.to(device)


def new_adapter(base: PreTrainedModel, lora: Lora) -> PeftModel:
    """A fresh adapter on every linear layer; its matrices are float32 while they are trained."""
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        lora_dropout=0.0,
    )
    return _prepared(get_peft_model(base, config))


def load_adapter(base: PreTrainedModel, path: Path, *, trainable: bool) -> PeftModel:
    """An adapter from its folder, to be trained further or to be used."""
    return _prepared(PeftModel.from_pretrained(base, path, is_trainable=trainable))


def _prepared(model: Any) -> PeftModel:
    """The adapter's matrices in float32, for the optimiser; merged wherever they are computed with."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    merge(model)
    return model
