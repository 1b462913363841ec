"""Documents that an agent reads: files become pages, pages are searched, quotations are checked."""

from tools.documents.toolset import tools

__all__ = ["tools"]
