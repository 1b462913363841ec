"""Where events are kept and asked for: SQLAlchemy Core, on SQLite or PostgreSQL."""

from feedback.store.background import BackgroundResponses, Unfinished
from feedback.store.deletions import Deletions
from feedback.store.erasures import Erasures
from feedback.store.keys import Key, Keys
from feedback.store.ratings import Filter, Page, Ratings
from feedback.store.replies import Claim, Replies, Reply, Slip
from feedback.store.store import DeadLetter, Store, StoreError, UnstorableError
from feedback.store.usage import Slot, Spent, Usage

__all__ = [
    "BackgroundResponses",
    "Claim",
    "DeadLetter",
    "Deletions",
    "Erasures",
    "Filter",
    "Key",
    "Keys",
    "Page",
    "Ratings",
    "Replies",
    "Reply",
    "Slip",
    "Slot",
    "Spent",
    "Store",
    "StoreError",
    "Unfinished",
    "UnstorableError",
    "Usage",
]
