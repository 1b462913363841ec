"""What is said of a database that agents may ask."""

from pydantic import BaseModel, ConfigDict, Field


class DatabaseOptions(BaseModel):
    """A database by its URL, what of it may be read, and how much at a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(
        min_length=1,
        description="SQLAlchemy URL: sqlite:///FILE, duckdb:///FILE, postgresql://reader@host/database, or another.",
    )
    schemas: tuple[str, ...] = Field((), description="Schemas that may be read; none: the default one.")
    tables: tuple[str, ...] = Field(
        (), description="Tables and views that may be read, as TABLE or SCHEMA.TABLE; none: all of those schemas, but no views "
        "where there are hidden columns: a view could show them."
    )
    hidden_columns: tuple[str, ...] = Field(
        (), description="Columns that may not: TABLE.COLUMN, SCHEMA.TABLE.COLUMN, or COLUMN in every table."
    )
    max_rows: int = Field(1_000, ge=1, le=100_000, description="Rows that are read at most.")
    shown_rows: int = Field(50, ge=1, le=1_000, description="Rows that a model is shown of them.")
    max_bytes: int = Field(1_000_000, ge=1_000, le=100_000_000, description="Bytes of rows that are read at most.")
    max_cell: int = Field(500, ge=10, le=100_000, description="Characters of one cell that a model is shown.")
    seconds: float = Field(10.0, gt=0, le=600, description="A statement is stopped after so many.")
