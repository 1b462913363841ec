"""Where events are kept and asked for: SQLAlchemy Core, on SQLite."""

from feedback.store.keys import Key, Keys
from feedback.store.store import DeadLetter, Store, StoreError
from feedback.store.usage import Slot, Spent, Usage

__all__ = ["DeadLetter", "Key", "Keys", "Slot", "Spent", "Store", "StoreError", "Usage"]
