"""One process that serves: the application under uvicorn, on a socket that is bound already."""

import gc
import signal
import socket
import sys

import uvicorn

from agents.manifest import ManifestError
from gateway.app import create_app
from gateway.config import ConfigError, GatewayConfig
from gateway.http_server import bounded_http
from gateway.server import Server
from gateway.workers.place import Place


def serve(config: GatewayConfig, listener: socket.socket, place: Place | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then drain. Returns the exit status: 2 when it cannot start as configured."""
    try:
        app = create_app(config, place)
    except (ConfigError, ManifestError) as error:
        listener.close()
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
    # So long the event loop may have to wait for the interpreter while a thread searches or looks something up.
    sys.setswitchinterval(0.0005)
    with listener:
        server.run(sockets=[listener])
    return 0 if server.started else 1


def _end(*_: object) -> None:
    raise SystemExit(0)
