"""What reinforcement imitates again while it explores: demonstrations, and its own rare successes.

Demonstrations that the supervised start knows by heart are forgotten otherwise. And a group in which one answer of
eight is right teaches that answer one small step, and does not come back before every other task had its turn: the
answer is kept and imitated again, as in self-imitation learning (arXiv 1806.05514) and RLEP (arXiv 2507.07451).
"""

import random
from collections.abc import Hashable, Iterator, Sequence

Demonstration = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt and of the answer to imitate, its end mark included."""


class Rehearsal:
    """Draws `demonstrated` of the demonstrations and up to `replayed` of the kept successes for each step.

    Each kind is drawn in turn, every pass in an order of its own. What is kept lives as long as the process: a run that
    resumes begins to keep anew.
    """

    def __init__(
        self, demonstrations: Sequence[Demonstration], *, demonstrated: int, replayed: int, seed: int
    ) -> None:
        self._demonstrations: dict[Hashable, Demonstration] = dict(enumerate(demonstrations))
        self._successes: dict[Hashable, Demonstration] = {}
        generator = random.Random(seed)  # sampling, not secrets
        self._turns = (
            _Turns(self._demonstrations, min(demonstrated, len(demonstrations)), generator),
            _Turns(self._successes, replayed, generator),
        )

    def keep(self, task: Hashable, success: Demonstration) -> None:
        """Imitate this answer from now on, in place of an older one to the same task."""
        self._successes[task] = success

    def drop(self, task: Hashable) -> None:
        """The policy answers the task by itself now."""
        self._successes.pop(task, None)

    def draw(self) -> list[Demonstration]:
        """For one step; empty where there is nothing to rehearse."""
        return [one for turns in self._turns for one in turns.draw()]


class _Turns:
    """`at_once` different values of a mapping that others change, each in its turn."""

    def __init__(
        self,
        known: dict[Hashable, Demonstration],
        at_once: int,
        generator: random.Random,
    ) -> None:
        self._known = known
        self._at_once = at_once
        self._generator = generator
        self._waiting: list[Hashable] = []

    def draw(self) -> Iterator[Demonstration]:
        drawn: list[Hashable] = []
        while len(drawn) < min(self._at_once, len(self._known)):
            self._waiting = self._waiting or self._generator.sample(list(self._known), len(self._known))
            key = self._waiting.pop()
            if key in self._known and key not in drawn:
                drawn.append(key)
        return (self._known[key] for key in drawn)
