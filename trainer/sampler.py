"""A `Model` in the trainer's own process: the agent loop samples from the weights that are being trained.

Concurrent calls are answered as one batch. Each distinct prompt is computed once and its keys and values are shared by
the group; finished rows leave the batch; the adapter is merged (`trainer/merged.py`). On two CPU cores this gives
about four times the tokens of a server holding the adapter apart. The grammar of the response schema is enforced
by xgrammar, as in vLLM, so that training meets the answers that production allows.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import torch
import xgrammar
from peft import PeftModel
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from agents.model import Delta, ModelRequest
from feedback.events import ModelCall
from trainer.grammar import Grammars
from trainer.shared_prefix import ATTENTION, SharedPrefix

_GATHER_SECONDS = 0.005  # how long a batch waits for one more call
_MIN_TEMPERATURE = 1e-4
_BELOW_ONE = 1 - 1e-6  # a draw of exactly the whole mass would point behind the last token


@dataclass
class _Waiting:
    request: ModelRequest
    answer: "asyncio.Future[ModelCall]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def length(self) -> int:
        """Of the prompt, in characters."""
        return sum(len(message.text) for message in self.request.messages)


class Sampler:
    """Samples from `model`, as its adapter is at that moment.

    Sampling draws from torch's global generator (seed the process); `Sampling.seed` of a request is not honoured,
    nor are `top_p`, `stop` and tools: a request that sets one is refused with ValueError.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        policy: str,
        max_batch: int = 64,
    ) -> None:
        self.policy = policy
        self._tokenizer = tokenizer
        self._max_batch = max_batch
        self._model = model.get_base_model() if isinstance(model, PeftModel) else model
        self._model.set_attn_implementation(ATTENTION)
        self._grammars = Grammars(tokenizer, int(self._model.config.vocab_size))
        self._waiting: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        """See `agents.model.Model.stream`; the text comes in one piece."""
        sampling = request.sampling
        if (sampling.seed, sampling.top_p, sampling.stop) != (None, 1, ()) or sampling.max_tokens is None:
            raise ValueError("the in-process sampler honours temperature and max_tokens only")
        if request.tools:
            raise ValueError(
                "the in-process sampler offers no tools yet: roll such agents out on a model server"
            )
        waiting = _Waiting(request)
        self._waiting.append(waiting)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._answer)
        call = await waiting.answer
        yield Delta(call.text)
        yield call

    def _answer(self) -> None:
        """Answer all that wait. It runs on the event loop's thread: the trainer has nothing else to do meanwhile."""
        self._waiting.sort(key=_Waiting.length)  # a batch is padded to its longest prompt
        batch, self._waiting = self._waiting[: self._max_batch], self._waiting[self._max_batch :]
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(0, self._answer)
        try:
            calls = self.generate([waiting.request for waiting in batch])
        except (
            RuntimeError,
            ValueError,
        ) as error:  # torch's and xgrammar's own failures belong to the callers
            for waiting in batch:
                waiting.answer.set_exception(error)
            return
        for waiting, call in zip(batch, calls, strict=True):
            if not waiting.answer.cancelled():
                waiting.answer.set_result(call)

    def encode(self, chat: list[dict[str, str]]) -> list[int]:
        """The prompt's token ids, by the model's own chat template."""
        ids = self._tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True
        )
        return list(ids["input_ids"])

    @torch.no_grad()
    def generate(self, requests: Sequence[ModelRequest]) -> list[ModelCall]:
        """One completion for each request, sampled as one batch."""
        started = time.perf_counter()
        encoded = {
            request.messages: self.encode([message.model_dump() for message in request.messages])
            for request in requests
        }
        prompts = [encoded[request.messages] for request in requests]
        rows = _Rows(requests, self._tokenizer, self._grammars)
        logits, prefix = self._prefill(prompts)
        answers = DynamicCache(config=self._model.config)
        active = torch.arange(len(requests), device=logits.device)  # original index of each row of the cache
        length = 0
        while True:
            tokens = rows.sample(logits, active.tolist())
            keep = torch.tensor(rows.unfinished(active.tolist()), device=logits.device, dtype=torch.long)
            if len(keep) == 0:
                break
            if len(keep) < len(active):
                if length:
                    answers.batch_select_indices(keep)
                active, tokens = active[keep], tokens[keep]
                prefix.select(prefix.groups[keep])
            output = self._model(
                input_ids=tokens[:, None],
                position_ids=(prefix.lengths[prefix.groups] + length)[:, None],
                past_key_values=answers,
                use_cache=True,
                prefix=prefix,
            )
            logits = output.logits[:, -1]
            length += 1
        latency = time.perf_counter() - started
        return [rows.call(i, prompts[i], self.policy, latency) for i in range(len(requests))]

    def _prefill(self, prompts: list[list[int]]) -> tuple[torch.Tensor, SharedPrefix]:
        """Logits (rows, vocabulary) after each prompt, and the prompts' cache; equal prompts are computed once."""
        unique = list(dict.fromkeys(map(tuple, prompts)))
        place = {prompt: index for index, prompt in enumerate(unique)}
        ids, mask = left_padded([list(prompt) for prompt in unique], self._pad, self._model.device)
        output = self._model.base_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            use_cache=True,
        )
        # As a matrix: given (prompts, 1, width) cut from a longer tensor, torch copies the LM head for every prompt.
        logits = self._model.get_output_embeddings()(output.last_hidden_state[:, -1])
        groups = torch.tensor([place[tuple(prompt)] for prompt in prompts], device=ids.device)
        return logits[groups], SharedPrefix(output.past_key_values, mask, groups)

    @property
    def _pad(self) -> int:
        return int(self._tokenizer.pad_token_id)


class _Rows:
    """The completions under way: what was drawn, and what the grammar allows next."""

    def __init__(
        self, requests: Sequence[ModelRequest], tokenizer: PreTrainedTokenizerBase, grammars: Grammars
    ) -> None:
        self._requests = requests
        self._tokenizer = tokenizer
        self._eos = int(tokenizer.eos_token_id)
        self._tokens: list[list[int]] = [[] for _ in requests]
        self._logprobs: list[list[float]] = [[] for _ in requests]
        self._matchers = [
            grammars.matcher(request.response_schema) if request.response_schema else None
            for request in requests
        ]
        self._bitmask = grammars.bitmask(len(requests))

    def sample(self, logits: torch.Tensor, active: list[int]) -> torch.Tensor:
        """Draw one token for each active row; `logits` (rows, vocabulary)."""
        logits = logits.float()
        bitmask = self._bitmask[: len(active)]
        bitmask.fill_(-1)
        for position, row in enumerate(active):
            matcher = self._matchers[row]
            if matcher is not None:
                matcher.fill_next_token_bitmask(bitmask, position)
        xgrammar.apply_token_bitmask_inplace(logits, bitmask.to(logits.device))
        temperatures = [self._requests[row].sampling.temperature for row in active]
        scale = torch.tensor(temperatures, device=logits.device).clamp(min=_MIN_TEMPERATURE)[:, None]
        cumulative = torch.softmax(logits / scale, dim=-1).cumsum(dim=-1)
        point = torch.rand(len(active), 1, device=logits.device) * cumulative[:, -1:] * _BELOW_ONE
        drawn = torch.searchsorted(cumulative, point, right=True)[:, 0]
        greedy = torch.tensor([t == 0 for t in temperatures], device=logits.device)
        tokens = torch.where(greedy, logits.argmax(dim=-1), drawn)
        chosen = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=-1)
        for row, token, logprob in zip(active, tokens.tolist(), chosen.tolist(), strict=True):
            self._tokens[row].append(token)
            self._logprobs[row].append(logprob)
            matcher = self._matchers[row]
            if matcher is not None and not matcher.is_terminated():
                matcher.accept_token(token)
        return tokens

    def unfinished(self, active: list[int]) -> list[int]:
        """Positions within `active` of the rows that go on."""
        return [
            position
            for position, row in enumerate(active)
            if self._tokens[row][-1] != self._eos
            and len(self._tokens[row]) < (self._requests[row].sampling.max_tokens or 0)  # checked by `stream`
        ]

    def call(self, row: int, prompt: list[int], policy: str, latency: float) -> ModelCall:
        tokens, request = self._tokens[row], self._requests[row]
        return ModelCall(
            policy=policy,
            messages=request.messages,
            response_schema=request.response_schema,
            sampling=request.sampling,
            text=self._tokenizer.decode(tokens, skip_special_tokens=True),
            prompt_token_ids=tuple(prompt),
            completion_token_ids=tuple(tokens),
            logprobs=tuple(self._logprobs[row]),
            finish_reason="stop" if tokens[-1] == self._eos else "length",
            time_to_first_token=latency,
            latency=latency,
        )


def left_padded(rows: list[list[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both (rows, longest), padded on the left."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask
