"""The in-process sampler is exact: what it draws, and the log-probabilities it reports, are the model's own."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from agents.loop import parse_answer
from agents.manifest import Agent
from agents.model import Delta, ModelRequest
from feedback.events import Message, ModelCall, Sampling
from tests.trainer import tiny
from tests.trainer.tiny import torch, xgrammar
from tools.tool import ToolSpec

pytestmark = [pytest.mark.filterwarnings(ignored) for ignored in tiny.IGNORED]

QUESTIONS = ("How many?", "What is the average premium of the active auto policies started in 2021?", "Why?")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return tiny.model(tokenizer)


@pytest.fixture(scope="module")
def plain(model: Any, tokenizer: Any) -> tiny.sampler.Sampler:
    return sampler_of(model, tokenizer)


@pytest.fixture(scope="module")
def schema(pytestconfig: pytest.Config) -> dict[str, Any]:
    return Agent.load(pytestconfig.rootpath / "agents" / "sql_analyst").response_schema


def asked(question: str, schema: dict[str, Any] | None = None, **sampling: Any) -> ModelRequest:
    return ModelRequest(
        (Message(role="user", content=question),), schema, Sampling(**{"max_tokens": 12, **sampling})
    )


def sampler_of(model: Any, tokenizer: Any, **options: Any) -> tiny.sampler.Sampler:
    return tiny.sampler.Sampler(model, tokenizer, policy="sql-analyst@tiny", **options)


def argmax_loop(model: Any, prompt: tuple[int, ...], eos: int, limit: int) -> list[int]:
    """Greedy decoding without batch, padding or cache."""
    tokens: list[int] = []
    while len(tokens) < limit and (not tokens or tokens[-1] != eos):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits
        tokens.append(int(logits[0, -1].argmax()))
    return tokens


def test_greedy_answers_are_those_of_a_plain_loop_whatever_else_is_in_the_batch(
    model: Any, tokenizer: Any, plain: tiny.sampler.Sampler
):
    requests = [asked(question, max_tokens=limit) for question in QUESTIONS for limit in (3, 12, 12)]
    calls = plain.generate(requests)
    assert len({call.prompt_token_ids for call in calls}) == 3
    for request, call in zip(requests, calls, strict=True):
        limit = request.sampling.max_tokens
        assert limit is not None
        greedy = argmax_loop(model, call.prompt_token_ids, tokenizer.eos_token_id, limit)
        assert list(call.completion_token_ids) == greedy
        assert call.text == tokenizer.decode(greedy, skip_special_tokens=True)
        assert call.messages == request.messages


def test_the_prompt_is_made_by_the_models_own_chat_template(plain: tiny.sampler.Sampler, tokenizer: Any):
    (call,) = plain.generate([asked("How many?")])
    text = tokenizer.decode(call.prompt_token_ids)
    assert text.endswith("<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n")


def test_logprobs_are_the_teacher_forced_log_softmax_at_temperature_one(
    model: Any, plain: tiny.sampler.Sampler
):
    torch.manual_seed(0)
    requests = [asked(question, temperature=t) for question in QUESTIONS for t in (0.0, 0.7, 1.5)]
    for call in plain.generate(requests):
        logits = tiny.teacher_forced(model, call.prompt_token_ids, call.completion_token_ids)
        tokens = torch.tensor(call.completion_token_ids)
        expected = torch.log_softmax(logits, dim=-1).gather(1, tokens[:, None])[:, 0]
        assert torch.allclose(torch.tensor(call.logprobs), expected, atol=1e-4)


def test_samples_follow_the_models_distribution(model: Any, plain: tiny.sampler.Sampler):
    """One token drawn 400 times: its frequencies are the probabilities, sharper at a lower temperature."""
    torch.manual_seed(0)
    (prompt,) = {call.prompt_token_ids for call in plain.generate([asked("Why?", max_tokens=1)])}
    logits = tiny.teacher_forced(model, prompt, [0])[0]
    for temperature in (0.6, 0.3):
        probabilities = torch.softmax(logits / temperature, dim=-1)
        likeliest = int(probabilities.argmax())
        calls = plain.generate([asked("Why?", max_tokens=1, temperature=temperature)] * 400)
        share = sum(call.completion_token_ids == (likeliest,) for call in calls) / 400
        expected = float(probabilities[likeliest])
        assert 0.02 < expected < 0.98
        assert abs(share - expected) < 4 * (expected * (1 - expected) / 400) ** 0.5


def test_an_answer_that_stops_is_in_the_agents_form_and_one_that_is_cut_has_all_its_tokens(
    tokenizer: Any, schema: dict[str, Any]
):
    torch.manual_seed(0)
    talker = tiny.model(tokenizer, likely='"}')
    requests = [
        asked(question, schema, temperature=1.0, max_tokens=24) for question in QUESTIONS for _ in range(8)
    ]
    calls = sampler_of(talker, tokenizer).generate(requests)
    stopped = [call for call in calls if call.finish_reason == "stop"]
    assert len(stopped) >= 5
    for call in stopped:
        answer = parse_answer(call.text)
        assert answer is not None, call.text
        jsonschema.validate(answer, schema)
        assert call.completion_token_ids[-1] == tokenizer.eos_token_id
    for call in calls:
        if call.finish_reason == "length":
            assert len(call.completion_token_ids) == 24
            assert call.text.startswith(('{"sql": "', '{"refusal": "'))


def test_logprobs_are_taken_after_the_grammar_has_masked(
    model: Any, tokenizer: Any, plain: tiny.sampler.Sampler
):
    """As vLLM reports them: a token that the grammar forces has log-probability 0."""
    schema = {"enum": ["SELECT 1", "SELECT 2", "no"]}
    torch.manual_seed(0)
    (call,) = plain.generate([asked("How many?", schema, temperature=1.0)])
    assert json.loads(call.text) in schema["enum"]
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=model.config.vocab_size)
    matcher = xgrammar.GrammarMatcher(
        xgrammar.GrammarCompiler(info).compile_json_schema(json.dumps(schema), any_whitespace=False)
    )
    logits = tiny.teacher_forced(model, call.prompt_token_ids, call.completion_token_ids)
    mask = xgrammar.allocate_token_bitmask(1, model.config.vocab_size)
    for position, (token, logprob) in enumerate(zip(call.completion_token_ids, call.logprobs, strict=True)):
        matcher.fill_next_token_bitmask(mask, 0)
        row = logits[position : position + 1].clone()
        xgrammar.apply_token_bitmask_inplace(row, mask)
        assert float(torch.log_softmax(row, dim=-1)[0, token]) == pytest.approx(logprob, abs=1e-4)
        matcher.accept_token(token)
    assert call.logprobs[-1] == pytest.approx(0, abs=1e-6)


def test_with_an_adapter_it_samples_from_the_adapted_model(tokenizer: Any):
    """Within bfloat16: here the adapter is merged, PEFT computes it apart."""
    base = tiny.model(tokenizer, dtype=torch.bfloat16)
    before = [call.logprobs for call in sampler_of(base, tokenizer).generate([asked("Why?")])]
    adapted = tiny.adapted(base)
    sampler = sampler_of(adapted, tokenizer)
    torch.manual_seed(0)
    calls = sampler.generate([asked(question, temperature=1.0) for question in QUESTIONS])
    tiny.apart(adapted)
    for call in calls:
        with torch.autocast("cpu", torch.bfloat16):
            logits = tiny.teacher_forced(adapted, call.prompt_token_ids, call.completion_token_ids)
        with torch.autocast("cpu", torch.bfloat16), adapted.disable_adapter():
            unadapted = tiny.teacher_forced(adapted, call.prompt_token_ids, call.completion_token_ids)
        tokens = torch.tensor(call.completion_token_ids)[:, None]
        ours = torch.tensor(call.logprobs)
        theirs, without = (torch.log_softmax(x, dim=-1).gather(1, tokens)[:, 0] for x in (logits, unadapted))
        assert (ours - theirs).abs().mean() < 0.2
        assert (ours - theirs).abs().mean() < 0.2 * (ours - without).abs().mean()
    assert [call.logprobs for call in sampler.generate([asked("Why?")])] != before


def test_a_changed_adapter_is_sampled_from_at_once(tokenizer: Any):
    adapted = tiny.adapted(tiny.model(tokenizer, dtype=torch.bfloat16))
    sampler = sampler_of(adapted, tokenizer)
    first = sampler.generate([asked("Why?")])[0].logprobs
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.mul_(-2)
    assert sampler.generate([asked("Why?")])[0].logprobs != first


def test_the_trained_model_is_left_as_it_was(tokenizer: Any):
    adapted = tiny.adapted(tiny.model(tokenizer, dtype=torch.bfloat16))
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    sampler_of(adapted, tokenizer).generate([asked("Why?")])
    assert all(torch.equal(value, before[name]) for name, value in adapted.state_dict().items())


async def stream(sampler: tiny.sampler.Sampler, request: ModelRequest) -> ModelCall:
    *texts, call = [part async for part in sampler.stream(request)]
    assert isinstance(call, ModelCall)
    assert texts == [Delta(call.text)]
    return call


async def test_concurrent_calls_are_answered_in_batches_each_with_its_own_answer(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
):
    sampler = sampler_of(model, tokenizer, max_batch=4)
    sizes: list[int] = []
    generate = sampler.generate

    def counted(requests: list[ModelRequest]) -> list[ModelCall]:
        sizes.append(len(requests))
        return generate(requests)

    monkeypatch.setattr(sampler, "generate", counted)
    questions = [f"How many of {number}?" for number in range(6)]
    calls = await asyncio.gather(*(stream(sampler, asked(question)) for question in questions))
    assert [call.messages[0].content for call in calls] == questions
    assert sizes == [4, 2]
    alone = generate([asked(questions[5])])[0]
    assert calls[5].completion_token_ids == alone.completion_token_ids


async def test_a_failure_of_the_model_reaches_everyone_who_waits(
    plain: tiny.sampler.Sampler, monkeypatch: pytest.MonkeyPatch
):

    def fail(_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(plain, "generate", fail)
    calls = [stream(plain, asked(question)) for question in QUESTIONS]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(result) for result in results] == ["out of memory"] * 3


async def test_one_who_gave_up_does_not_keep_the_others_from_their_answers(plain: tiny.sampler.Sampler):
    impatient, patient = (asyncio.create_task(stream(plain, asked(q))) for q in QUESTIONS[:2])
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).messages[0].content == QUESTIONS[1]
    assert impatient.cancelled()


@pytest.mark.parametrize("wish", [{"seed": 1}, {"top_p": 0.9}, {"stop": ("x",)}])
async def test_what_it_does_not_honour_it_refuses(plain: tiny.sampler.Sampler, wish: dict[str, Any]):
    with pytest.raises(ValueError, match="temperature and max_tokens only"):
        await stream(plain, asked("Why?", **wish))


async def test_it_offers_no_tools_and_says_so(plain: tiny.sampler.Sampler):
    request = replace(asked("Why?"), tools=(ToolSpec("run_sql", "Runs.", {}),))
    with pytest.raises(ValueError, match="no tools yet: roll such agents out on a model server"):
        await stream(plain, request)


def test_left_padding_puts_the_last_token_last_and_marks_what_is_real():
    ids, mask = tiny.sampler.left_padded([[1, 2, 3], [4]], 9, torch.device("cpu"))
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
