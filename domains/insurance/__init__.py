"""An insurer's demo world: read `schema.sql`, `database.py`, `templates.toml`, `questions.py`."""
