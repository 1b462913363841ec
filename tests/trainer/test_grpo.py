"""Our losses are TRL's, computed with less work; and the policy learns what the reward says."""

import math
from pathlib import Path
from typing import Any

import pytest

from agents.manifest import Agent
from agents.model import ModelRequest
from feedback.events import Message, Sampling
from tests.trainer import tiny
from tests.trainer.tiny import torch
from tools.knowledge import Item, Knowledge
from tools.sql import Database
from trainer.config import Grpo, Supervised
from trainer.rehearsal import Rehearsal
from trainer.rewards import FORMED, Scorer
from trainer.tasks import Task

pytestmark = [pytest.mark.filterwarnings(ignored) for ignored in tiny.IGNORED]

RIGHT, WRONG = "SELECT 7", "SELECT 8"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny.tokenizer()


@pytest.fixture
def grpo_arguments(tmp_path: Path) -> Any:
    return tiny.GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=6,
        num_generations=3,
        max_completion_length=7,
        temperature=0.8,
        loss_type="dr_grpo",
        scale_rewards="none",
        beta=0.0,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )


def grpo_trainer(
    kind: Any,
    arguments: Any,
    model: Any,
    tokenizer: Any,
    schema: dict[str, Any] | None = None,
    **ours: Any,
) -> Any:
    if kind is tiny.grpo.SharedPrefixGRPOTrainer:
        ours |= {"grammars": tiny.grammar.Grammars(tokenizer, model.config.vocab_size), "schema": schema}
    made = kind(
        **ours,
        model=model,
        args=arguments,
        train_dataset=tiny.Dataset.from_list([{"prompt": "x"}] * 6),
        processing_class=tokenizer,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
    )
    made.current_gradient_accumulation_steps = 1
    return made


def batch() -> dict[str, Any]:
    """Two groups of three: prompts of 9 and 4 tokens padded on the left, completions of 1 to 7 padded on the right."""
    generator = torch.Generator().manual_seed(3)

    def tokens(number: int) -> list[int]:
        return torch.randint(100, 40_000, (number,), generator=generator).tolist()

    prompts = [tokens(9)] * 3 + [tokens(4)] * 3
    completions = [tokens(length) for length in (7, 1, 3, 5, 2, 7)]
    prompt_ids, prompt_mask = tiny.sampler.left_padded(prompts, 2, torch.device("cpu"))
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": torch.tensor([row + [2] * (7 - len(row)) for row in completions]),
        "completion_mask": torch.tensor([[1] * len(row) + [0] * (7 - len(row)) for row in completions]),
        "advantages": torch.tensor([0.7, -0.7, 0.0, 0.0, 0.4, -0.4]),
        "num_items_in_batch": torch.tensor(25.0),
    }


def test_log_probabilities_and_entropies_are_those_of_the_stock_trainer(tokenizer: Any, grpo_arguments: Any):
    ours = grpo_trainer(tiny.grpo.SharedPrefixGRPOTrainer, grpo_arguments, tiny.model(tokenizer), tokenizer)
    stock = grpo_trainer(tiny.GRPOTrainer, grpo_arguments, tiny.model(tokenizer), tokenizer)
    rows = batch()
    ids = torch.cat([rows["prompt_ids"], rows["completion_ids"]], dim=1)
    mask = torch.cat([rows["prompt_mask"], rows["completion_mask"]], dim=1)
    real = rows["completion_mask"].bool()
    with torch.no_grad():
        got, entropies, _ = ours._get_per_token_logps_and_entropies(
            ours.model, ids, mask, 7, compute_entropy=True
        )
        expected, their_entropies, _ = stock._get_per_token_logps_and_entropies(
            stock.model, ids, mask, 7, compute_entropy=True
        )
    assert got.shape == expected.shape == (6, 7)
    assert expected[real].std() > 1
    assert torch.allclose(got[real], expected[real], atol=1e-4)
    assert torch.allclose(entropies[real], their_entropies[real], atol=1e-4)
    assert (got[~real] == 0).all()


def test_one_token_completions_need_no_second_pass_and_come_out_the_same(tokenizer: Any, grpo_arguments: Any):
    ours = grpo_trainer(tiny.grpo.SharedPrefixGRPOTrainer, grpo_arguments, tiny.model(tokenizer), tokenizer)
    rows = batch()
    ids = torch.cat([rows["prompt_ids"], rows["completion_ids"]], dim=1)
    mask = torch.cat([rows["prompt_mask"], rows["completion_mask"]], dim=1)
    with torch.no_grad():
        all_tokens, *_ = ours._get_per_token_logps_and_entropies(ours.model, ids, mask, 7)
        first, *_ = ours._get_per_token_logps_and_entropies(ours.model, ids[:, :-6], mask[:, :-6], 1)
    assert torch.allclose(first, all_tokens[:, :1], atol=1e-5)


def test_under_a_grammar_log_probabilities_are_those_that_the_sampler_reported(
    tokenizer: Any, grpo_arguments: Any, chooser: Agent
):
    """The policy is what is sampled: the loss must not move probability to where the grammar forbids it."""
    model = tiny.model(tokenizer)
    requests = [
        ModelRequest(
            (Message(role="user", content=text),),
            chooser.response_schema,
            Sampling(temperature=1.0, max_tokens=limit),
        )
        for text in ("How many?", "How many of all the claims?")
        for limit in (5, 40)
    ]
    torch.manual_seed(0)
    calls = tiny.sampler.Sampler(model, tokenizer, policy="x").generate(requests)
    assert {call.finish_reason for call in calls} == {"stop", "length"}
    grpo_arguments.temperature = 1.0
    trainer = grpo_trainer(
        tiny.grpo.SharedPrefixGRPOTrainer, grpo_arguments, model, tokenizer, chooser.response_schema
    )
    longest = max(len(call.completion_token_ids) for call in calls)
    completions = [list(call.completion_token_ids) for call in calls]
    prompts, prompt_mask = tiny.sampler.left_padded(
        [list(call.prompt_token_ids) for call in calls], 2, torch.device("cpu")
    )
    padded = torch.tensor([row + [2] * (longest - len(row)) for row in completions])
    real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in completions])
    with torch.no_grad():
        got, entropies, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([prompts, padded], dim=1),
            torch.cat([prompt_mask, real], dim=1),
            longest,
            compute_entropy=True,
        )
    expected = torch.tensor([logprob for call in calls for logprob in call.logprobs])
    assert torch.allclose(got[real.bool()], expected, atol=1e-4)
    assert torch.isfinite(entropies).all()
    assert entropies.min() >= -1e-4
    forced = expected.abs() < 1e-6
    assert forced.any()
    assert torch.allclose(entropies[real.bool()][forced], torch.zeros(int(forced.sum())), atol=1e-3)


def gradients(model: Any) -> dict[str, Any]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rows_at_once", [16, 2], ids=["whole", "in parts"])
@pytest.mark.parametrize(
    ("advantages", "repeated"),
    [
        ([0.7, -0.7, 0.0, 0.0, 0.4, -0.4], False),
        ([0.7, -0.7, 0.1, 0.2, 0.4, -0.4], False),
        ([0.7, -0.7, 0.0, -0.8, 0.4, 0.4], True),
    ],
    ids=["some zero", "none zero", "an answer twice"],
)
def test_neither_left_out_nor_repeated_rows_nor_parts_change_loss_or_gradients(
    tokenizer: Any, grpo_arguments: Any, advantages: list[float], rows_at_once: int, *, repeated: bool
):
    rows = batch()
    rows["advantages"] = torch.tensor(advantages)
    if repeated:
        for name in ("completion_ids", "completion_mask"):
            rows[name][5] = rows[name][4]
    found = []
    for kind in (tiny.grpo.SharedPrefixGRPOTrainer, tiny.GRPOTrainer):
        trainer = grpo_trainer(kind, grpo_arguments, tiny.adapted(tiny.model(tokenizer)), tokenizer)
        trainer._rows_at_once = rows_at_once
        trainer.model.train()
        loss = trainer._compute_loss(trainer.model, dict(rows))
        loss.backward()
        found.append((float(loss), gradients(trainer.model)))
    (ours, our_gradients), (theirs, their_gradients) = found
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert set(our_gradients) == set(their_gradients)
    largest = max(float(value.abs().max()) for value in their_gradients.values())
    assert largest > 1e-4
    for name, value in their_gradients.items():
        assert torch.allclose(our_gradients[name], value, atol=1e-3 * largest), name


def test_a_batch_without_any_advantage_has_no_gradient(tokenizer: Any, grpo_arguments: Any):
    trainer = grpo_trainer(
        tiny.grpo.SharedPrefixGRPOTrainer, grpo_arguments, tiny.adapted(tiny.model(tokenizer)), tokenizer
    )
    trainer.model.train()
    loss = trainer._compute_loss(trainer.model, {**batch(), "advantages": torch.zeros(6)})
    loss.backward()
    assert float(loss) == 0
    assert all(float(value.abs().max()) == 0 for value in gradients(trainer.model).values())


def test_what_is_rehearsed_adds_the_gradient_of_its_likelihood(tokenizer: Any, grpo_arguments: Any):
    known = [([5] * 11, [300, 301, 302, 303, 2]), ([6, 7], [400, 2])]
    rows = batch()
    rehearsing = grpo_trainer(
        tiny.grpo.SharedPrefixGRPOTrainer,
        grpo_arguments,
        tiny.adapted(tiny.model(tokenizer)),
        tokenizer,
        rehearsal=Rehearsal(known, demonstrated=2, replayed=0, seed=0),
    )
    rehearsing.model.train()
    rehearsing._compute_loss(rehearsing.model, dict(rows)).backward()
    stock = grpo_trainer(tiny.GRPOTrainer, grpo_arguments, tiny.adapted(tiny.model(tokenizer)), tokenizer)
    stock.model.train()
    (stock._compute_loss(stock.model, dict(rows)) * 6 / 8).backward()
    for prompt, answer in known:
        ids = torch.tensor([[*prompt, *answer]])
        logprobs, *_ = stock._get_per_token_logps_and_entropies(
            stock.model, ids, torch.ones_like(ids), len(answer)
        )
        (-logprobs.sum() / (8 * grpo_arguments.max_completion_length)).backward()
    ours, theirs = gradients(rehearsing.model), gradients(stock.model)
    largest = max(float(value.abs().max()) for value in theirs.values())
    assert largest > 1e-4
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, atol=1e-3 * largest), name


def sft_trainer(kind: Any, folder: Path, tokenizer: Any) -> Any:
    examples = [
        ([{"role": "user", "content": "How many claims?"}], '{"sql": "SELECT COUNT(*) FROM claims"}'),
        ([{"role": "user", "content": "Tell me, please, how the weather was."}], '{"refusal": "no weather"}'),
    ]
    arguments = tiny.SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        completion_only_loss=True,
        max_length=256,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    rows = [{"prompt": p, "completion": [{"role": "assistant", "content": text}]} for p, text in examples]
    made = kind(
        model=tiny.adapted(tiny.model(tokenizer)),
        args=arguments,
        train_dataset=tiny.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    made.current_gradient_accumulation_steps = 1
    return made


@pytest.mark.parametrize("items", [None, 50], ids=["own mean", "accumulated"])
def test_the_supervised_loss_is_that_of_the_stock_trainer(tokenizer: Any, tmp_path: Path, items: int | None):
    found = []
    for kind in (tiny.supervised.AnswerOnlySFTTrainer, tiny.SFTTrainer):
        trainer = sft_trainer(kind, tmp_path, tokenizer)
        trainer.model.train()
        inputs = next(iter(trainer.get_train_dataloader()))
        learnt = inputs["labels"][inputs["labels"] != -100]
        assert '{"sql": "SELECT COUNT(*) FROM claims"}' in tokenizer.decode(learnt)
        assert "How many" not in tokenizer.decode(learnt)
        number = None if items is None else torch.tensor(items)
        loss = trainer.compute_loss(trainer.model, dict(inputs), num_items_in_batch=number)
        loss.backward()
        found.append((float(loss), gradients(trainer.model)))
    (ours, our_gradients), (theirs, their_gradients) = found
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert ours > 1
    largest = max(float(value.abs().max()) for value in their_gradients.values())
    for name, value in their_gradients.items():
        assert torch.allclose(our_gradients[name], value, atol=1e-3 * largest), name


def test_supervised_tuning_learns_and_tells_every_step(tokenizer: Any, tmp_path: Path):
    chat = [{"role": "user", "content": "How many claims?"}]
    told: list[dict[str, float]] = []
    model = tiny.adapted(tiny.model(tokenizer, dtype=torch.bfloat16), scale=0.0)
    tiny.supervised.tune(
        model,
        tokenizer,
        [(chat, '{"sql": "SELECT 1"}')] * 4,
        Supervised(epochs=12, batch_size=4, learning_rate=2e-2),
        seed=0,
        run_dir=tmp_path,
        use_cpu=True,
        log=told.append,
    )
    losses = [numbers["loss"] for numbers in told if "loss" in numbers]
    assert len(losses) == 12
    assert losses[-1] < 0.6 * losses[0]
    assert {(numbers["step"], numbers["steps"]) for numbers in told} == {(step, 12) for step in range(1, 13)}


@pytest.fixture
def chooser(root: Path) -> Agent:
    """An agent whose grammar leaves it two answers, of which one is right."""
    agent = Agent.load(root / "agents" / "sql_analyst")
    schema = {
        "type": "object",
        "properties": {"sql": {"enum": [RIGHT, WRONG]}},
        "required": ["sql"],
        "additionalProperties": False,
    }
    return agent.model_copy(update={"response_schema": schema})


def task(name: str, reference: dict[str, Any]) -> Task:
    return Task(id=name, messages=(Message(role="user", content=f"{name} claims?"),), reference=reference)


def test_the_policy_learns_what_the_reward_says_and_an_invalid_episode_teaches_nothing(
    tokenizer: Any,
    tmp_path: Path,
    chooser: Agent,
    insurance: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
):
    """Of four tasks one has a reference that does not run: its answers must move nothing."""
    seen: list[tuple[str, float]] = []
    compute = tiny.grpo.SharedPrefixGRPOTrainer._compute_loss

    def watched(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        texts = tokenizer.batch_decode(inputs["prompt_ids"])
        seen.extend(zip(texts, inputs["advantages"].tolist(), strict=True))
        return compute(self, model, inputs)

    monkeypatch.setattr(tiny.grpo.SharedPrefixGRPOTrainer, "_compute_loss", watched)
    told: list[dict[str, float]] = []
    notes: list[str] = []
    broken = task("Broken", {"sql": "SELECT nothing FROM nowhere"})
    sound = [task(name, {"rows": [[7]]}) for name in ("Count", "Number of", "How many")]
    model = tiny.adapted(tiny.model(tokenizer, dtype=torch.bfloat16), scale=0.0)
    tiny.grpo.train(
        model,
        tokenizer,
        [*sound, broken],
        [],
        Grpo(steps=10, prompts_per_step=4, generations=4, learning_rate=5e-2, save_every=100),
        agent=chooser,
        knowledge=Knowledge([Item("schemas", text="claims(claim_id)")]),
        scorer=Scorer([Database(path) for path in insurance]),
        policy="sql-analyst@training",
        seed=0,
        run_dir=tmp_path,
        use_cpu=True,
        log=told.append,
        note=notes.append,
    )
    rewards = [numbers["reward"] for numbers in told if "reward" in numbers]
    assert len(rewards) == 10
    assert all(FORMED <= reward < 1.0001 + FORMED for reward in rewards)
    assert sum(rewards[-3:]) / 3 > sum(rewards[:2]) / 2 + 0.3
    advantages = {name: [a for text, a in seen if name in text] for name in ("Broken", "How many")}
    assert len(advantages["Broken"]) >= 4
    assert set(advantages["Broken"]) == {0.0}
    assert any(advantages["How many"])
    assert not any(math.isnan(advantage) for _, advantage in seen)


def test_an_episode_without_an_answer_is_noted_and_not_scored(
    tokenizer: Any, tmp_path: Path, chooser: Agent, insurance: tuple[Path, Path]
):
    notes: list[str] = []
    model = tiny.adapted(tiny.model(tokenizer, dtype=torch.bfloat16))
    before = {name: value.clone() for name, value in model.named_parameters() if "lora" in name}
    hurried = chooser.model_copy(update={"limits": chooser.limits.model_copy(update={"seconds": 1e-6})})
    told: list[dict[str, float]] = []
    tiny.grpo.train(
        model,
        tokenizer,
        [task("How many", {"sql": RIGHT})],
        [],
        Grpo(steps=3, prompts_per_step=1, generations=2, save_every=100),
        agent=hurried,
        knowledge=Knowledge([Item("schemas", text="claims(claim_id)")]),
        scorer=Scorer([Database(path) for path in insurance]),
        policy="sql-analyst@training",
        seed=0,
        run_dir=tmp_path,
        use_cpu=True,
        log=told.append,
        note=notes.append,
    )
    assert len(notes) == 6
    assert all("no answer within" in text for text in notes)
    assert not any(numbers.get("reward") == 0 for numbers in told)
    after = {name: value for name, value in model.named_parameters() if name in before}
    assert all(torch.equal(after[name], before[name]) for name in before)
