"""Which tasks are rolled out next: those whose samples differ in reward.

A group whose samples are all right, or all equally wrong, has no advantage and teaches nothing, yet it costs as much as
another to sample. DAPO (arXiv 2503.14476, dynamic sampling) samples until a batch is full of groups that teach; here a
task whose last group was all alike is mostly left out of the next passes, which costs nothing. What the supervised
start has learnt by heart counts as such.
"""

import random
from collections.abc import Collection, Iterator, Sequence

from torch.utils.data import Sampler

_REVISITED = (
    0.25  # of the settled tasks in every pass: what was solved may be forgotten, what was too hard come near
)
_STEADY_EVERY = 6  # one group in so many is of the steady tasks


class Curriculum(Sampler[int]):
    """Indices of tasks, each `generations` times in a row, `prompts` of them for each of `steps` steps.

    One group in six is of the `steady` tasks, in turn, as long as there are any: few, of a kind of their own, they
    would be forgotten among the others. They never rest. The order is drawn as training goes, from the outcomes told so
    far and `seed`: it is for one process, and a run that resumes draws the steps that it skips without outcomes.
    """

    def __init__(
        self,
        tasks: int,
        *,
        settled: Collection[int] = (),
        steady: Collection[int] = (),
        prompts: int,
        generations: int,
        steps: int,
        seed: int,
    ) -> None:
        if tasks < 1:
            raise ValueError("no tasks to draw from")
        self._tasks = tasks
        self._steady = frozenset(steady)
        self._settled = set(settled) - self._steady
        self._prompts = prompts
        self._generations = generations
        self._steps = steps
        self._seed = seed

    def __len__(self) -> int:
        """How many indices there are in all."""
        return self._steps * self._prompts * self._generations

    def __iter__(self) -> Iterator[int]:
        """Draw from the beginning."""
        generator = random.Random(self._seed)  # sampling, not secrets
        waiting: list[int] = []
        steady: list[int] = []
        for group in range(self._steps * self._prompts):
            if self._steady and group % _STEADY_EVERY == 0:
                steady = steady or generator.sample(sorted(self._steady), len(self._steady))
                task = steady.pop()
            else:
                waiting = waiting or self._pass(generator)
                task = waiting.pop()
            yield from [task] * self._generations

    def tell(self, index: int, rewards: Sequence[float]) -> None:
        """What the valid samples of a task's group were worth."""
        if len(set(rewards)) <= 1 and index not in self._steady:
            self._settled.add(index)
        else:
            self._settled.discard(index)

    def _pass(self, generator: random.Random) -> list[int]:
        """The tasks of the next pass, at least one, in the order in which they are popped from its end."""
        settled = sorted(self._settled)
        revisited = set(generator.sample(settled, round(_REVISITED * len(settled))))
        resting = self._settled - revisited | self._steady
        tasks = [index for index in range(self._tasks) if index not in resting]
        tasks = tasks or settled or sorted(self._steady)
        generator.shuffle(tasks)
        return tasks
