"""How the front door fails: every expected failure is one of these, shown as one line and exit code 1."""


class FlywheelError(Exception):
    """Something that the person at the keyboard can mend. The message says what is wrong and what to do."""
