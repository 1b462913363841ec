"""The address that clients reach: taken by one process, or reserved by one and shared by its workers."""

import socket

from gateway.config import ConfigError


def bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound socket; `shared`: beside others, where `reserve` has admitted it, and connections are spread over all.

    Raises `ConfigError` when the port is taken or the address is not ours.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another port."
        ) from error
    return listener


def reserve(listener: socket.socket) -> None:
    """Let this user's processes share the address of a bound socket, and nobody else take it for as long as it is open.

    Linux judges a bind by the options that earlier sockets have by then, not by those they were bound with: the address
    was taken as one that nobody else has, and only then is it opened to the workers.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
