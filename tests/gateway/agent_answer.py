"""The form in which the shipped agent answers, as a client would write it."""

from pydantic import BaseModel, ConfigDict, RootModel


class Sql(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sql: str


class Refusal(BaseModel):
    model_config = ConfigDict(extra="forbid")
    refusal: str


class Answer(RootModel[Sql | Refusal]):
    """Either of them."""
