"""The command line's way to a running gateway: one call, its JSON, or an error in one line."""

import asyncio
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from deploy.errors import FlywheelError
from deploy.settings import Settings

_SECONDS = 120.0  # a promotion waits for a load and for the probes


class AsyncClient:
    """Calls a gateway; an asynchronous context manager."""

    def __init__(self, base_url: str, key: str) -> None:
        self._url = base_url
        self._session = aiohttp.ClientSession(
            headers={"authorization": f"Bearer {key}"}, timeout=aiohttp.ClientTimeout(total=_SECONDS)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, path: str, **query: str) -> Any:
        """The JSON at `path`. Raises `FlywheelError`."""
        return await self._call("GET", path, params=query)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that comes back. Raises `FlywheelError`."""
        return await self._call("POST", path, json=body)

    async def delete(self, path: str) -> Any:
        """The JSON that comes back. Raises `FlywheelError`."""
        return await self._call("DELETE", path)

    async def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            async with self._session.request(method, self._url + path, **arguments) as response:
                answer = await response.json(content_type=None)
                if response.status >= 400:
                    raise FlywheelError(_message(answer, response.status))
                return answer
        except aiohttp.ClientConnectorError as error:
            raise FlywheelError(f"no gateway at {self._url}: start it with `flywheel up`") from error
        except TimeoutError as error:
            raise FlywheelError(
                f"the gateway did not answer within {_SECONDS:g} s; see var/log/gateway.log"
            ) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise FlywheelError(f"{self._url} does not answer as a gateway does: {error}") from error


class Client:
    """The same with the operator's key, one call at a time. Not for use inside an event loop."""

    def __init__(self, settings: Settings) -> None:
        """Raises `FlywheelError` when Flywheel has never been started here."""
        self.url = settings.base_url
        try:
            self.key = settings.key_file.read_text("utf-8").strip()
        except OSError as error:
            raise FlywheelError(
                f"no key in {settings.key_file}: start Flywheel once with `flywheel up`"
            ) from error

    def opened(self) -> AsyncClient:
        """For several calls inside an event loop."""
        return AsyncClient(self.url, self.key)

    def get(self, path: str, **query: str) -> Any:
        """The JSON at `path`. Raises `FlywheelError`."""

        async def call() -> Any:
            async with self.opened() as client:
                return await client.get(path, **query)

        return asyncio.run(call())

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that comes back. Raises `FlywheelError`."""

        async def call() -> Any:
            async with self.opened() as client:
                return await client.post(path, body)

        return asyncio.run(call())

    def delete(self, path: str) -> Any:
        """The JSON that comes back. Raises `FlywheelError`."""

        async def call() -> Any:
            async with self.opened() as client:
                return await client.delete(path)

        return asyncio.run(call())


def segment(name: str) -> str:
    """A name as one part of a URL's path."""
    return quote(name, safe="@")


def _message(answer: Any, status: int) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    return (
        error["message"]
        if isinstance(error, dict) and "message" in error
        else f"the gateway answered {status}"
    )
