"""What applications of others tell by OpenTelemetry, as events like our own. Pure: an export in, events out.

By the semantic conventions for GenAI (https://github.com/open-telemetry/semantic-conventions-genai), and what the
usual instrumentations wrote before there were any. The rules:

- A span of a GenAI operation that has none above it is a request; so is every `invoke_agent`. All other GenAI spans
  below it, up to the next `invoke_agent`, are its calls, in the order in which they began. Spans between them that are
  not GenAI's are looked through, and otherwise ignored.
- Each export stands for itself: what came before is not waited for and not changed. A model or tool span whose agent
  comes in a later export is a request of its own, with the same trace and mostly the same episode. Nothing is lost, but
  the picture is better where a collector keeps the spans of a trace together (its processor `groupbytrace`).
- The event's id follows from tenant, trace and span: the same span again has no second effect.
- The request's id is the response's where one was given, else the event's. An id that this gateway could have given
  itself gets a prefix: what came from outside is never found under the id of a request of ours.
- The episode is the conversation, else the trace.
- `gen_ai.evaluation.result` is a rating: of the response that it names, else of the span that it is on, else of the
  conversation.
- An agent that recorded no messages itself has those of its first and its last model call.
"""

from feedback.otlp.evaluations import Known, aimed
from feedback.otlp.exports import Export, convert, size
from feedback.otlp.source import Converted, Source
from feedback.otlp.wire import OtlpError, either, from_json, from_protobuf

__all__ = [
    "Converted",
    "Export",
    "Known",
    "OtlpError",
    "Source",
    "aimed",
    "convert",
    "either",
    "from_json",
    "from_protobuf",
    "size",
]
