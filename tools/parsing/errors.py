"""How a file fails to be read."""


class ParseError(Exception):
    """The file is broken, locked or too large. The message says so in words for whoever has it."""
