"""What a request to an agent takes of its caller's limits: by estimate before, by the server's own token ids after."""

from collections.abc import Sequence
from typing import NamedTuple

from agents.manifest import Agent
from feedback.events import Call, Message, ModelCall, Sampling
from feedback.store import Key
from gateway.limits.limits import Admission, Limits, estimated_tokens


class AgentMeter(NamedTuple):
    """One admitted request. `settle` is told of its calls when it is over."""

    limits: Limits
    admission: Admission
    agent: str

    @classmethod
    async def admit(
        cls, limits: Limits, caller: Key, agent: Agent, messages: Sequence[Message], sampling: Sampling
    ) -> "AgentMeter":
        """Let the request in. Raises `ApiError` (429), `StoreError`.

        The prompt is taken for what the client sent. What is retrieved for it is not known yet, and settled.
        """
        prompt = estimated_tokens(sum(len(message.content) for message in messages))
        completion = min(sampling.max_tokens, agent.limits.max_tokens)
        money = limits.price(agent.name, prompt, completion)
        return cls(limits, await limits.admit(caller, prompt + completion, money), agent.name)

    @property
    def headers(self) -> dict[str, str]:
        """What goes out with the answer."""
        return {name.decode(): value.decode() for name, value in self.admission.headers}

    def settle(self, calls: Sequence[Call] | None) -> None:
        """Take what was used. Of an answer that was cancelled nobody knows it: the estimate stands."""
        if calls is None:
            self.limits.settle(self.admission, None)
            return
        made = [call for call in calls if isinstance(call, ModelCall)]
        prompt = sum(len(call.prompt_token_ids) for call in made)
        completion = sum(len(call.completion_token_ids) for call in made)
        money = self.limits.price(self.agent, prompt, completion)
        self.limits.settle(self.admission, prompt + completion, money)
