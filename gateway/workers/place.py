"""Where one process stands among those of its gateway."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Worker `number` of `count`. Worker 0 leads: policies are changed, loaded, verified and unloaded there only.

    `folder` is private (mode 0700) and holds the socket of each worker; None: there is but one.
    `started` is the Unix time at which the whole was.
    """

    number: int = 0
    count: int = 1
    folder: Path | None = None
    started: int = 0

    @property
    def leads(self) -> bool:
        """Whether policies are this worker's to move."""
        return self.number == 0  # as `peers.LEADER`

    @property
    def others(self) -> tuple[int, ...]:
        """The numbers of the other workers."""
        return tuple(number for number in range(self.count) if number != self.number)

    def share(self, whole: int) -> int:
        """This worker's part of a limit that is meant for all of them; the parts add up."""
        return whole // self.count + (self.number < whole % self.count)

    def socket(self, number: int) -> Path:
        """The private socket of one of the workers."""
        assert self.folder is not None, "who is alone has nobody to speak to"
        return self.folder / f"{number}.sock"
