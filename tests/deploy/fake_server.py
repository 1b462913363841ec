"""A stand-in for vLLM or the gateway: answers every request with 200, and has a child of its own, as vLLM has.

Run as `python fake_server.py PORT CHILD_PID_FILE [stubborn]`; a stubborn one does not listen to SIGTERM.
"""

import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name for it
        sys.stdout.write(f"{format % args}\n")


def main(port: int, child_pid_file: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    child_pid_file.write_text(str(child.pid))
    HTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    main(int(sys.argv[1]), Path(sys.argv[2]))
