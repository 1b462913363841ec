"""Who is calling, while the store is away."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.store import Key, Keys, Store, StoreError
from gateway.auth import Auth
from gateway.errors import ApiError


class _Keys(Keys):
    away = False

    def find(self, secret: str) -> Key | None:
        if self.away:
            raise StoreError("the store is away")
        return super().find(secret)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Keys]:
    monkeypatch.setattr("gateway.auth._CACHE_SECONDS", 0.0)
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    yield _Keys(store)
    store.close()


async def test_a_key_that_was_known_goes_on_working_while_the_store_is_away(keys: _Keys) -> None:
    auth = Auth(keys)
    header = f"Bearer {keys.create('ann', ['invoke'])}".encode()
    known = await auth.admit(header, "invoke")
    keys.away = True
    assert await auth.admit(header, "invoke") == known
    with pytest.raises(ApiError, match="scope"):
        await auth.admit(header, "rate")


async def test_a_key_that_was_never_seen_is_not_let_in_while_the_store_is_away(keys: _Keys) -> None:
    header = f"Bearer {keys.create('ann', ['invoke'])}".encode()
    keys.away = True
    with pytest.raises(StoreError):
        await Auth(keys).admit(header, "invoke")


async def test_a_key_that_was_revoked_is_refused_when_the_store_is_back(keys: _Keys) -> None:
    auth = Auth(keys)
    secret = keys.create("ann", ["invoke"])
    header = f"Bearer {secret}".encode()
    key = await auth.admit(header, "invoke")
    keys.away = True
    await auth.admit(header, "invoke")
    keys.away = False
    keys.revoke(key.id, tenant=key.tenant)
    with pytest.raises(ApiError, match="revoked"):
        await auth.admit(header, "invoke")
