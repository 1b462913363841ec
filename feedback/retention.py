"""For how long requests and ratings are kept, as it is configured."""

from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field


class TenantRetention(BaseModel):
    """For how long what is of a tenant is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: float | None = Field(None, gt=0, le=36_500, description="None: for ever.")

    @property
    def age(self) -> timedelta | None:
        """How old it may become; None: as old as it will."""
        return None if self.days is None else timedelta(days=self.days)


class RetentionOptions(TenantRetention):
    """For tenants that are not named, and for those that are."""

    tenants: dict[str, TenantRetention] = Field(
        {}, description="By tenant, in place of the days of all others."
    )

    def of(self, tenant: str) -> timedelta | None:
        """How old what is this tenant's may become."""
        return self.tenants.get(tenant, self).age

    @property
    def shortest(self) -> timedelta | None:
        """The least of all: for what is nobody's as far as can be told."""
        ages = [given.age for given in (self, *self.tenants.values()) if given.age is not None]
        return min(ages, default=None)
