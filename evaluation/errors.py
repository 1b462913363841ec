"""What the person who started an evaluation can mend."""


class EvaluationError(Exception):
    """The message says what is wrong, where, and what to do."""
