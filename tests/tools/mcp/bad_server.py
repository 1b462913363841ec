"""A server by hand, that does what the SDK's would not: `python bad_server.py DESCRIPTION_FILE`. Starts at once."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

TOOLS = ("find_customer", "environment", "process", "die", "hang", "shout", "mumble", "chatter")


def main(description: str) -> None:
    while line := sys.stdin.readline():
        asked = json.loads(line)
        method, params = asked["method"], asked.get("params", {})
        if "id" not in asked:
            continue
        if method == "initialize":
            us = {"name": "crm", "version": "1"}
            answer(
                asked, protocolVersion=params["protocolVersion"], capabilities={"tools": {}}, serverInfo=us
            )
        elif method == "tools/list":
            schema = {"type": "object"}
            told = zip(TOOLS, (description, *TOOLS[1:]), strict=True)
            answer(asked, tools=[{"name": n, "description": d, "inputSchema": schema} for n, d in told])
        elif method == "tools/call":
            text = call(params["name"], params.get("arguments", {}))
            answer(asked, content=[{"type": "text", "text": text}])
        else:
            say({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no such method"}})


def call(tool: str, arguments: dict[str, Any]) -> str:
    match tool:
        case "find_customer":
            return f"{arguments['name']}, customer 7"
        case "environment":
            sys.stderr.write("this goes to stderr\n")
            return " ".join(sorted(os.environ))
        case "process":
            return str(os.getpid())
        case "die":
            os._exit(3)
        case "hang":
            time.sleep(3_600)
        case "shout":
            write(300_000 * "x")
        case "mumble":
            write("loading the model ...")
        case "chatter":
            while True:
                say(
                    {
                        "jsonrpc": "2.0",
                        "method": "notifications/message",
                        "params": {"level": "info", "data": 1},
                    }
                )
    return "said"


def answer(asked: dict[str, Any], **result: Any) -> None:
    say({"jsonrpc": "2.0", "id": asked["id"], "result": result})


def say(message: dict[str, Any]) -> None:
    write(json.dumps(message))


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_text())
