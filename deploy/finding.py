"""What was found in looking at something, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

from rich.console import Console

Verdict = Literal["ok", "warning", "broken"]
_STYLES: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "broken": "red"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `mend` says what to do unless it is ok."""

    verdict: Verdict
    what: str
    mend: str = ""

    def print(self, console: Console) -> None:
        """A line, and one more with the mend."""
        console.print(f"{self.verdict:8}", style=_STYLES[self.verdict], end="")
        console.print(self.what, markup=False, highlight=False)
        if self.mend:
            console.print(f"        {self.mend}", markup=False, highlight=False)
