"""From the store's ratings to a data set: `feedback.curation`, told how to find out what a reference evaluates to."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.errors import FlywheelError
from deploy.settings import Settings
from deploy.store import opened
from feedback.curation import Curated, Resolve, curate, save
from feedback.episodes import build
from tools.errors import ToolError
from tools.sql import Database, canonical


@dataclass(frozen=True)
class Dataset:
    """What was made, where it lies, and the requests and ratings that are not in it, by reason."""

    curated: Curated
    path: Path
    excluded: Counter[str]


def make(settings: Settings, agent: str, *, tenant: str = "default") -> Dataset:
    """Curate everything in the store into `var/datasets/<id>.jsonl`. Raises `FlywheelError`."""
    try:
        production = Database(settings.sql.databases[0])
    except (OSError, ValueError) as error:
        raise FlywheelError(str(error)) from error
    with opened(settings) as store:
        requests = list(store.requests(tenant=tenant, agent=agent))
        built = build(requests, store.current_ratings(tenant=tenant, agent=agent))
    curated = curate(built.episodes, resolver(production))
    path = settings.var / "datasets" / f"{curated.dataset_id[:12]}.jsonl"
    save(curated, path)
    return Dataset(curated, path, built.excluded)


def resolver(production: Database) -> Resolve:
    """The fingerprint of a reference: its rows on the production database, in any order.

    People who correct with rows have seen production and nothing else, so the other instances say nothing here.
    """

    def resolve(reference: dict[str, Any]) -> str | None:
        if "refusal" in reference:
            return "refusal"
        if "rows" in reference:
            return canonical(reference["rows"])
        sql = reference.get("sql")
        if not isinstance(sql, str):
            raise ValueError(f"neither sql, rows nor refusal in {sorted(reference)}")  # noqa: TRY004  # curation's contract
        try:
            result = production.query(sql)
        except ToolError as error:
            raise ValueError(str(error)) from error
        return None if result.truncated else canonical(result.rows)

    return resolve
