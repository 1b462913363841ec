"""What a request takes of its caller's limits: by estimate before, by the tokens that were used after."""

from collections.abc import Iterable
from typing import NamedTuple

from feedback.events import Call, ModelCall
from feedback.store import Key
from gateway.limits.limits import Admission, Limits, estimated_tokens

UNSAID_TOKENS = 1_024  # taken for an answer of which nobody has said how long it may be


class Used(NamedTuple):
    """Tokens that were read and written, and what that cost in millionths of the currency; None: by our prices."""

    prompt: int
    completion: int
    money: int | None = None


class Meter(NamedTuple):
    """One admitted request to `model`. `settle` is told what it used when it is over."""

    limits: Limits
    admission: Admission
    model: str

    @classmethod
    async def admit(
        cls, limits: Limits, caller: Key, model: str, *, characters: int, completion: int
    ) -> "Meter":
        """Let the request in. Raises `ApiError` (429), `StoreError`.

        The prompt is taken for what the client sent. What an agent retrieves for it is not known yet, and settled.
        """
        prompt = estimated_tokens(characters)
        money = limits.price(model, prompt, completion)
        return cls(limits, await limits.admit(caller, prompt + completion, money), model)

    @property
    def headers(self) -> dict[str, str]:
        """What goes out with the answer."""
        return {name.decode(): value.decode() for name, value in self.admission.headers}

    def settle(self, used: Used | None) -> None:
        """Take what was used. Of an answer that was cancelled nobody knows it (None): the estimate stands."""
        if used is None:
            self.limits.settle(self.admission, None)
            return
        money = used.money
        if money is None:
            money = self.limits.price(self.model, used.prompt, used.completion)
        self.limits.settle(self.admission, used.prompt + used.completion, money)


def used_by(calls: Iterable[Call]) -> Used:
    """By the model server's own token ids."""
    made = [call for call in calls if isinstance(call, ModelCall)]
    return Used(
        sum(len(call.prompt_token_ids) for call in made), sum(len(call.completion_token_ids) for call in made)
    )
