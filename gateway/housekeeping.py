"""What nobody waits for: what has been kept long enough goes, and what was erased leaves the store's file."""

import asyncio
import logging
from collections import Counter

from feedback.store import Store, StoreError
from feedback.store.retention import Retention

_FIRST_SECONDS, _SECONDS = 60.0, 3_600.0

_log = logging.getLogger(__name__)


class Housekeeping:
    """One for a store; several do no harm."""

    def __init__(self, store: Store, retention: Retention) -> None:
        self._store = store
        self._retention = retention

    async def run(self) -> None:
        """A round every hour, until cancelled. One that fails is logged, and made up for by the next."""
        await asyncio.sleep(_FIRST_SECONDS)
        while True:
            try:
                await self.round()
            except StoreError as error:
                _log.warning("housekeeping ended early, and goes on in an hour: %s", error)
            await asyncio.sleep(_SECONDS)

    async def round(self) -> Counter[str]:
        """How many rows were deleted, by table. Raises `StoreError`."""
        steps = self._retention.steps()
        deleted: Counter[str] = Counter()
        by_tenant: Counter[tuple[str, str]] = Counter()
        while (step := await asyncio.to_thread(next, steps, None)) is not None:
            deleted[step.table] += step.rows
            by_tenant[step.tenant or "of nobody known", step.table] += step.rows
        for (tenant, table), rows in sorted(by_tenant.items()):
            _log.info("retention: deleted %d %s of tenant %s", rows, table, tenant)
        if await asyncio.to_thread(self._store.scrub):
            _log.info("what was erased has been overwritten in the store's file")
        return deleted
