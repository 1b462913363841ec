"""What an answer is worth, by rules alone: the same episode has the same verdict whenever it is scored again."""

from evaluation.scoring.verdict import CORRECT, BadTaskError, Outcome, Verdict

__all__ = ["CORRECT", "BadTaskError", "Outcome", "Verdict"]
