"""Plain models (what vLLM serves without an agent): requests pass through, bytes in, bytes out, and are captured.

Read `hot_path` (who answers), `fields` and `request` (what is asked), `exchange` (from one connection to the other),
`connections` (to vLLM), `capture` (what was generated), `record` (the event); `responding` is `/v1/responses`.
"""
