"""Where events are kept and asked for: SQLAlchemy Core, on SQLite."""

from feedback.store.deletions import Deletions
from feedback.store.keys import Key, Keys
from feedback.store.store import DeadLetter, Store, StoreError

__all__ = ["DeadLetter", "Deletions", "Key", "Keys", "Store", "StoreError"]
