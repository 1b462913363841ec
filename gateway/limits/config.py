"""What limits there are, where a key does not say otherwise."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from feedback.quota import Quota


class Price(BaseModel):
    """What a model costs, in the currency of the budgets, for a million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: float = Field(ge=0, le=1_000_000, allow_inf_nan=False)
    completion: float = Field(ge=0, le=1_000_000, allow_inf_nan=False)


class LimitsConfig(BaseModel):
    """Everything is off until it is configured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    redis_url: str | None = Field(
        None,
        pattern=r"^(rediss?|unix)://",
        description="Redis that all gateways share their rates in; None: each counts for itself, its workers together.",
    )
    redis_seconds: float = Field(
        0.25, gt=0, le=10, description="How long a request waits for Redis, then for 1 s none does."
    )
    key: Quota = Field(Quota(), description="What every key may use that has no limits of its own.")
    tenant: Quota = Field(Quota(), description="What all keys of a tenant may use together.")
    tenants: Mapping[str, Quota] = Field(
        {}, description="The same for single tenants, by name; what is left out is as in `tenant`."
    )
    prices: Mapping[str, Price] = Field(
        {}, description="By agent or model name. What has no price costs nothing."
    )

    @field_validator("redis_url")
    @classmethod
    def _has_a_port(cls, url: str | None) -> str | None:
        if url is not None:
            urlsplit(url).port  # noqa: B018  # raises ValueError for what is no port
        return url

    def of_tenant(self, name: str) -> Quota:
        """What the keys of this tenant may use together."""
        own = self.tenants.get(name)
        return self.tenant if own is None else own.over(self.tenant)
