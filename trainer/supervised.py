"""Supervised tuning on corrections: the warm start of reinforcement learning and, by itself, its control."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from trainer.config import Supervised
from trainer.scoring import from_states

Chat = list[dict[str, str]]
Log = Callable[[dict[str, float]], None]


class Progress(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Hands every logged step to `log` as plain numbers."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002  # transformers' signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002  # transformers' signature
        logs: dict[str, Any],
        **_: object,
    ) -> None:
        """Called by transformers' Trainer."""
        numbers = {key: value for key, value in logs.items() if isinstance(value, int | float)}
        self._log({"step": state.global_step, "steps": state.max_steps, **numbers})


class AnswerOnlySFTTrainer(SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
    """TRL's trainer with a loss whose LM head meets the answer's tokens only; over whole prompts a CPU spends most of
    its time there.
    """

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,  # noqa: ARG002, FBT001, FBT002  # transformers' signature
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean cross-entropy over the labelled tokens of the (accumulated) batch."""
        base = self.accelerator.unwrap_model(model).get_base_model()
        labels = inputs["labels"][:, 1:]
        learnt = labels != -100
        with self.accelerator.autocast():
            states = base.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            logprobs, _ = from_states(base, states.last_hidden_state[:, :-1][learnt], labels[learnt])
        return -logprobs.sum() / (num_items_in_batch if num_items_in_batch is not None else learnt.sum())


def tune(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[tuple[Chat, str]],
    config: Supervised,
    *,
    seed: int,
    run_dir: Path,
    use_cpu: bool,
    log: Log,
) -> None:
    """Train `model`'s adapter in place on (prompt, answer) pairs; only the answer's tokens are learnt."""
    rows = [
        {"prompt": prompt, "completion": [{"role": "assistant", "content": answer}]}
        for prompt, answer in examples
    ]
    arguments = SFTConfig(
        output_dir=str(run_dir),
        per_device_train_batch_size=config.batch_size,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=2,
        max_length=config.max_tokens,
        completion_only_loss=True,
        train_sampling_strategy="group_by_length",
        bf16=True,
        use_cpu=use_cpu,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        seed=seed,
        data_seed=seed,
        disable_tqdm=True,
        weight_decay=0.0,
    )
    trainer = AnswerOnlySFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Progress(log)],
    )
    trainer.train()
