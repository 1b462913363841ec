"""The front door for clients: an OpenAI-compatible API that answers with agents, records, and swaps policies."""
