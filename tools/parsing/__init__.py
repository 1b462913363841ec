"""Texts out of other people's files. Run as a program (`python -m tools.parsing KIND`), in a process with limits of its
own: parsers of PDF, Word and HTML crash, hang and fill the memory on what some files hold. `tools.documents.ingest`
starts it.
"""
