"""What must not be kept is replaced before an event is: `rules` find it, `redactor` goes through an event with them."""

from feedback.redaction.delivery import redacting
from feedback.redaction.options import RedactionOptions
from feedback.redaction.redactor import Redactor

__all__ = ["RedactionOptions", "Redactor", "redacting"]
