"""`python -m gateway --config FILE.json`: the gateway. Exits with 2 when it cannot start as configured."""

import argparse
import logging
import sys
from pathlib import Path

from feedback.redaction import Redactor
from feedback.store import Store, StoreError
from gateway.config import ConfigError, GatewayConfig
from gateway.listener import bound
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
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        config = GatewayConfig.load(path)
        # Migrated once, before there are several processes; and what cannot be opened or followed is told in a line.
        Store.open(config.store_url).close()
        Redactor(config.redaction)
        listener = bound(config.host, config.port)
    except (ConfigError, StoreError, ValueError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    if config.processes > 1:
        return oversee(config, listener)
    from gateway.serve import serve

    return serve(config, listener)


if __name__ == "__main__":
    sys.exit(main())
