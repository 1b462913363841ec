"""`python -m gateway --config FILE.json`: the gateway. Exits with 2 when it cannot start as configured."""

import argparse
import logging
import socket
import sys
from pathlib import Path

from gateway.config import ConfigError, GatewayConfig
from gateway.workers.parent import oversee


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
    try:
        config = GatewayConfig.load(path)
        listener = _listen(config.host, config.port)
    except ConfigError as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    if config.processes > 1:
        return oversee(config, listener)
    from gateway.serve import serve

    return serve(config, listener)


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises `ConfigError` when the port is taken or the address is not ours."""
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
