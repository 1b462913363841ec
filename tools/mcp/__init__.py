"""Tools of MCP servers: what a server offers becomes `tools.tool.Tool`s, by configuration.

The protocol (https://modelcontextprotocol.io/specification) is spoken by its official SDK, imported with the first
connection; what a server may cost in time, memory and characters, and what of it a model gets to read, is decided here.
"""
