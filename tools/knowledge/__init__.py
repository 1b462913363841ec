"""What an agent looks up before it answers: schemas, example queries and heuristics, each with a quota.

Items come from files (`files`) and databases (`schema`), are kept in versions (`library`), searched in Qdrant
(`index`), served to each tenant as it may see them (`shelf`), and offered to a model as a tool (`tool`).
"""

from tools.knowledge.files import read
from tools.knowledge.index import Knowledge
from tools.knowledge.items import Context, Item, Kind, KnowledgeError
from tools.knowledge.schema import schema_cards
from tools.knowledge.tool import tools

__all__ = ["Context", "Item", "Kind", "Knowledge", "KnowledgeError", "read", "schema_cards", "tools"]
