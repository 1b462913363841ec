"""SQL: what a model may ask of a database, and when two results are the same.

`tools` are for agents: guarded, on any database, in processes of their own. `Database` is for scores and rewards, where
results on SQLite files are compared in the process, tens of thousands of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tools.sql.scoring import Database, Result, canonical, is_ordered, parse_select, same_rows

if TYPE_CHECKING:
    from tools.sql.options import DatabaseOptions
    from tools.sql.source import Source
    from tools.sql.toolset import tools

__all__ = [
    "Database",
    "DatabaseOptions",
    "Result",
    "Source",
    "canonical",
    "is_ordered",
    "parse_select",
    "same_rows",
    "tools",
]

_LATER = {"DatabaseOptions": "options", "Source": "source", "tools": "toolset"}


def __getattr__(name: str) -> Any:
    """What needs SQLAlchemy is loaded where it is used: the guard's process and the trainer do without."""
    if name not in _LATER:
        raise AttributeError(name)
    return getattr(import_module(f"tools.sql.{_LATER[name]}"), name)
