"""`python -m gateway.workers.worker CONFIG NUMBER COUNT STARTED PARENT`: one worker, started by the parent."""

import ctypes
import logging
import os
import shutil
import signal
import sys
from pathlib import Path

from gateway.config import GatewayConfig
from gateway.listener import bound
from gateway.serve import serve
from gateway.workers.place import Place

_PR_SET_PDEATHSIG = 1


def main(config: Path, number: int, count: int, started: int, parent: int) -> int:
    """Serve until SIGTERM, also that of the kernel when the parent is gone. Returns the exit status."""
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname)s worker {number} %(name)s: %(message)s"
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # see prctl(2)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    if os.getppid() != parent:  # it died before we asked
        return 1
    place = Place(number, count, config.parent, started)
    try:
        settings = GatewayConfig.load(config)
        return serve(settings, bound(settings.host, settings.port, shared=True), place)
    finally:
        if os.getppid() != parent:  # it was killed, and cannot do this any more
            shutil.rmtree(config.parent, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
