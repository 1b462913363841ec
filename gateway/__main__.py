"""`python -m gateway --config FILE.json`: one gateway process. Exits with 2 when it cannot start as configured."""

import argparse
import gc
import logging
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from agents.manifest import ManifestError
from gateway.app import create_app
from gateway.config import ConfigError, GatewayConfig
from gateway.http_server import bounded_http
from gateway.server import Server


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then drain."""
    parser = argparse.ArgumentParser(
        prog="python -m gateway", description="The OpenAI-compatible gateway to agents."
    )
    parser.add_argument(
        "--config", type=Path, required=True, help="JSON file with the fields of GatewayConfig"
    )
    path = parser.parse_args(arguments).config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        config = GatewayConfig.load(path)
        app = create_app(config)
        listener = _listen(config.host, config.port)
    except (ConfigError, ManifestError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    server = Server(
        uvicorn.Config(
            app,
            http=bounded_http(config.bounds.max_header_bytes),
            access_log=False,
            log_config=None,
            loop="uvloop",
            proxy_headers=False,  # nothing here believes what a client says about its address
            server_header=False,
            # Longer than clients keep a connection (httpx 5 s, aiohttp 15 s): who closes first must be the client, or a
            # request that is just being sent on an idle connection is cut.
            timeout_keep_alive=75,
        ),
        drain=lambda: app.state.gateway.drain(config.drain_seconds),
        drain_seconds=config.drain_seconds,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)  # uvicorn raises the signal again when it has drained: that is a good end
    # What has been imported lives for ever: without this, each full collection walks all of it, some hundred times a
    # minute under load. Requests make few cycles, so that the young need not be looked through every few requests.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    # So long the outbox's writer may have to wait for the interpreter, several times a group: answers wait for it.
    sys.setswitchinterval(0.0005)
    with listener:
        server.run(sockets=[listener])
    return 0 if server.started else 1


def _end(*_: object) -> None:
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `ConfigError` when the port is taken or the address is not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another port."
        ) from error
    return listener


if __name__ == "__main__":
    sys.exit(main())
