"""GRPO on replayed tasks: TRL's trainer, fed by the agent loop, with a loss that computes each prompt once.

The algorithm is TRL's, set as the literature recommends: `dr_grpo` (arXiv 2503.20783: no length or deviation
normalisation), clip-higher (DAPO, arXiv 2503.14476), no KL term. What is ours is the roll-out (`agents.loop`, the code
that production runs) and the way in which log-probabilities are computed: TRL runs the prompt once for every member of
a group and, without Triton, its LM head over every prompt position too, which costs a CPU four times as much.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import Sampler as IndexSampler
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer

from agents.manifest import Agent
from feedback.events import Message
from tools.knowledge import Knowledge
from trainer.config import Grpo
from trainer.curriculum import Curriculum
from trainer.dataset import demonstrations
from trainer.grammar import Grammars
from trainer.rehearsal import Demonstration, Rehearsal
from trainer.rewards import BadReferenceError, Scorer
from trainer.rollout import roll_out
from trainer.sampler import Sampler
from trainer.scoring import token_logprobs
from trainer.supervised import Chat, Log, Progress
from trainer.tasks import Task

_KNOWN = 0.5  # share of right answers above which a task needs no rehearsal

_PADDED = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")


class SharedPrefixGRPOTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL is untyped here
    """Overrides three private methods of TRL 1.16; `tests/trainer` holds them to the stock results.

    `schema` is the response schema whose grammar the completions were sampled under: the policy is what is sampled.
    Without the grammar in the loss, an answer that is pushed down pushes probability onto tokens that the grammar
    forbids, where it is never punished, until sampling draws from what little is left.
    """

    def __init__(
        self,
        *,
        grammars: Grammars,
        schema: dict[str, Any] | None,
        curriculum: Curriculum | None = None,
        rehearsal: Rehearsal | None = None,
        rows_at_once: int = 16,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._rows_at_once = rows_at_once
        self._grammars = grammars
        self._schema = schema
        self._curriculum = curriculum
        self._rehearsal = rehearsal

    def _get_train_sampler(self, dataset: Dataset | None = None) -> IndexSampler[int]:
        """The curriculum, where there is one; TRL's own order otherwise."""
        return self._curriculum or super()._get_train_sampler(dataset)

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """TRL's loss over the distinct rows with an advantage, part by part.

        Without a KL term the others add nothing but time; and a group often gives the same answer several times, which
        is one row with the advantages of all. All parts but the last go backward at once, which frees their
        activations: those of a whole batch take more memory than the model. The returned loss has the value of all,
        and the gradient of the last.
        """
        if self._rehearsal is not None and (drawn := self._rehearsal.draw()):
            inputs = _with(drawn, inputs, padding=int(self.processing_class.pad_token_id))
        inputs, distinct = _distinct(inputs)
        advantages = inputs["advantages"]
        kept = distinct[advantages[distinct] != 0]
        if len(kept) == 0:  # nothing to learn from this step; a zero that the optimiser can differentiate
            return sum(
                (p.sum() * 0.0 for p in model.parameters() if p.requires_grad), advantages.new_zeros(())
            )
        _, prompts = inputs["prompt_ids"][kept].unique(dim=0, return_inverse=True)
        *parts, last = torch.split(
            kept[prompts.argsort()], self._rows_at_once
        )  # rows of one prompt side by side
        done = advantages.new_zeros(())
        for part in parts:
            loss = self._part_of_loss(model, inputs, part)
            self.accelerator.backward(loss)
            done += loss.detach()
        total: torch.Tensor = self._part_of_loss(model, inputs, last) + done
        return total

    def _part_of_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], part: torch.Tensor
    ) -> torch.Tensor:
        batch = len(inputs["advantages"])
        rows = {
            key: value[part]
            if isinstance(value, torch.Tensor) and value.dim() and len(value) == batch
            else value
            for key, value in inputs.items()
        }
        prompt, answer = (int(rows[f"{name}_mask"].sum(dim=1).max()) for name in ("prompt", "completion"))
        for key in ("ids", "mask"):  # padded for the longest of this part, not of the batch
            rows[f"prompt_{key}"] = rows[f"prompt_{key}"][:, -prompt:]
            rows[f"completion_{key}"] = rows[f"completion_{key}"][:, :answer]
        loss: torch.Tensor = super()._compute_loss(model, rows) * (
            len(part) / batch
        )  # dr_grpo's is a mean of rows
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        compute_entropy: bool = False,  # noqa: FBT001, FBT002  # TRL's signature
        compute_aux_loss: bool = False,  # noqa: FBT001, FBT002  # TRL's signature
        **_: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Log-probabilities (rows, logits_to_keep) of the completions' tokens at the sampling temperature."""
        if compute_aux_loss:
            raise NotImplementedError("mixture-of-experts models need TRL's own loss")
        prompts, prompt_mask = input_ids[:, :-logits_to_keep], attention_mask[:, :-logits_to_keep]
        completions, mask = input_ids[:, -logits_to_keep:], attention_mask[:, -logits_to_keep:].bool()
        model = self.accelerator.unwrap_model(model)
        base = model.get_base_model() if isinstance(model, PeftModel) else model

        with self.accelerator.autocast():
            logprobs, entropies = token_logprobs(
                base,
                prompts,
                prompt_mask,
                completions,
                mask,
                temperature=self.temperature,
                allowed=self._allowed(completions, mask),
            )
        empty = torch.zeros(completions.shape, dtype=logprobs.dtype, device=logprobs.device)
        spread = empty.masked_scatter(mask, entropies) if compute_entropy else None
        return empty.masked_scatter(mask, logprobs), spread, None

    def _allowed(self, completions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
        """Bits of what the grammar allowed at the real completion tokens, row after row."""
        if self._schema is None:
            return None
        rows = [row[kept].tolist() for row, kept in zip(completions, mask, strict=True)]
        return torch.cat([self._grammars.allowed(self._schema, row) for row in rows])


def _with(demonstrations: Sequence[Demonstration], inputs: dict[str, Any], *, padding: int) -> dict[str, Any]:
    """The batch with `demonstrations` as further rows whose advantage is 1.

    Their ratio of new to old policy is 1, like that of every row in the only update of its batch, so what is added to
    the loss is the gradient of their negative log-likelihood, on the scale of the rest. One that is still known by
    heart adds nothing.
    """
    if "old_per_token_logps" in inputs:
        raise NotImplementedError("rehearsal with several updates of a batch: the first policy is not known")
    advantages = inputs["advantages"]
    extended = {"advantages": torch.cat([advantages, advantages.new_ones(len(demonstrations))])}
    for column, name in enumerate(("prompt", "completion")):
        ids = [torch.tensor(pair[column], device=advantages.device) for pair in demonstrations]
        masks = [torch.ones_like(row) for row in ids]
        for key, rows, filler in ((f"{name}_ids", ids, padding), (f"{name}_mask", masks, 0)):
            extended[key] = torch.nn.utils.rnn.pad_sequence(
                [*inputs[key], *rows],
                batch_first=True,
                padding_value=filler,
                padding_side="left" if name == "prompt" else "right",
            )
    return {"num_items_in_batch": inputs.get("num_items_in_batch"), **extended}


def _distinct(inputs: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor]:
    """The first of each set of equal rows, by index, with the advantages of the set in `inputs` summed there.

    Exact as long as equal rows have equal ratios of new to old policy, which they have, and advantages of one sign,
    which a reward of the text alone gives them.
    """
    rows: Any = torch.cat([inputs[name] for name in _PADDED], dim=1)  # Any: torch gives unique no types
    _, group = rows.unique(dim=0, return_inverse=True)
    index = torch.arange(len(rows), device=rows.device)
    first = torch.full_like(index, len(rows)).scatter_reduce(0, group, index, "amin")[group]
    advantages = torch.zeros_like(inputs["advantages"]).index_add(0, first, inputs["advantages"])
    return {**inputs, "advantages": advantages}, index[first == index]


def train(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Task],
    examples: Sequence[tuple[Chat, str]],
    config: Grpo,
    *,
    agent: Agent,
    knowledge: Knowledge,
    scorer: Scorer,
    policy: str,
    seed: int,
    run_dir: Path,
    use_cpu: bool,
    log: Log,
    note: Callable[[str], None] = lambda _: None,
) -> None:
    """Train `model`'s adapter in place; go on from the last checkpoint in `run_dir` if there is one."""
    sampler = Sampler(model, tokenizer, policy=policy)
    rows = [
        {"prompt": [message.model_dump() for message in task.messages], "index": index}
        for index, task in enumerate(tasks)
    ]
    imitated = {task.id for task in demonstrations(tasks)}
    curriculum = Curriculum(
        len(tasks),
        settled=[index for index, task in enumerate(tasks) if task.id in imitated],
        # Few tasks hold the policy back from answering what has no answer; resting or rare, they were forgotten.
        steady=[index for index, task in enumerate(tasks) if "refusal" in task.reference],
        prompts=config.prompts_per_step,
        generations=config.generations,
        steps=config.steps,
        seed=seed,
    )

    eos = int(tokenizer.eos_token_id)
    rehearsal = Rehearsal(
        [(sampler.encode(chat), [*tokenizer.encode(answer), eos]) for chat, answer in examples],
        demonstrated=config.rehearsed,
        replayed=config.replayed,
        seed=seed,
    )

    def roll(prompts: list[list[dict[str, str]]], _: GRPOTrainer) -> dict[str, list[Any]]:
        asked = [
            Task(id=str(index), messages=tuple(Message(**message) for message in prompt), reference={})
            for index, prompt in enumerate(prompts)
        ]
        rollouts = asyncio.run(
            roll_out(agent, asked, model=sampler, knowledge=knowledge, temperature=config.temperature)
        )
        for rollout in rollouts:
            if rollout.error:
                note(f"invalid episode, not scored: {rollout.error}")
        return {
            "prompt_ids": [list(r.call.prompt_token_ids) if r.call else [eos] for r in rollouts],
            "completion_ids": [list(r.call.completion_token_ids) if r.call else [eos] for r in rollouts],
            "logprobs": [list(r.call.logprobs) if r.call else [0.0] for r in rollouts],
            "text": [r.call.text if r.call else None for r in rollouts],
            "episode": [
                (r.call.prompt_token_ids, r.call.completion_token_ids) if r.call else ((), ())
                for r in rollouts
            ],
        }

    def execution_match(
        index: list[int], text: list[str | None], episode: list[Demonstration], **_: object
    ) -> list[float | None]:
        """None, not 0, for an invalid episode: TRL leaves it out."""
        rewards = [_reward(scorer, answer, tasks[i]) for i, answer in zip(index, text, strict=True)]
        for task in set(index):
            members = [
                (r, e) for i, r, e in zip(index, rewards, episode, strict=True) if i == task and r is not None
            ]
            curriculum.tell(task, [reward for reward, _ in members])
            right = [one for reward, one in members if reward > 1]
            if len(right) > _KNOWN * len(members):
                rehearsal.drop(task)
            elif right:
                rehearsal.keep(task, right[0])
        return rewards

    arguments = GRPOConfig(
        output_dir=str(run_dir),
        max_steps=config.steps,
        per_device_train_batch_size=config.prompts_per_step * config.generations,
        num_generations=config.generations,
        max_completion_length=agent.limits.max_tokens,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=2,
        temperature=config.temperature,
        loss_type="dr_grpo",
        scale_rewards="none",
        epsilon=config.epsilon_low,
        epsilon_high=config.epsilon_high,
        beta=0.0,
        bf16=True,
        use_cpu=use_cpu,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=2,
        report_to="none",
        seed=seed,
        data_seed=seed,
        disable_tqdm=True,
        weight_decay=0.0,
    )
    trainer = SharedPrefixGRPOTrainer(
        grammars=Grammars(tokenizer, int(model.get_base_model().config.vocab_size)),
        schema=agent.response_schema,
        curriculum=curriculum,
        rehearsal=rehearsal,
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        reward_funcs=execution_match,
        rollout_func=roll,
        callbacks=[Progress(log)],
    )
    trainer.train(resume_from_checkpoint=_last_checkpoint(run_dir))


def _last_checkpoint(run_dir: Path) -> str | None:
    """The newest whole one: its state is written last, so a folder without it was being written when the run died."""
    whole = [path.parent for path in run_dir.glob("checkpoint-*/trainer_state.json")]
    newest = max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)
    return str(newest) if newest else None


def _reward(scorer: Scorer, answer: str | None, task: Task) -> float | None:
    if answer is None:
        return None
    try:
        return scorer.score(answer, task.reference).reward
    except BadReferenceError:
        return None
