"""How a tool fails, so that the loop knows who can act on it."""


class ToolError(Exception):
    """The caller can mend this: the text goes back to the model (or person), in words to act on.

    Any other exception from a tool is a defect or an outage and ends the episode as invalid, never as reward 0.
    """


class ToolUnavailableError(Exception):
    """Nobody's fault and perhaps over soon: a server that does not answer, a full pool. It is tried again."""


class ToolDefectError(Exception):
    """A tool raised what no tool may: a defect in it, which was logged where it happened."""
