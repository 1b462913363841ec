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
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            loop="uvloop",
            http="httptools",
            proxy_headers=False,  # nothing here asks for the client's address
            server_header=False,
            timeout_graceful_shutdown=max(1, round(config.drain_seconds)),
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)  # uvicorn raises the signal again when it has drained: that is a good end
    # What has been imported lives for ever: without this, each full collection walks all of it, some hundred times a
    # minute under load. Requests make few cycles, so that the young need not be looked through every few requests.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
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
