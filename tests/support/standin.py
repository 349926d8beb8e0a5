"""A small real process in place of one of the shop's. Run by tests, not imported.

`standin.py PORT [BEHAVIOUR…]` answers GET / with 200. Behaviours: `unready` (503), `dies` (says
so and exits with 3), `deaf` (ignores SIGTERM), `parent` (has a worker that shares its port),
`dies-if=FILE` (dies while the file exists).
"""

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


def main(port: int, behaviours: set[str]) -> None:
    print("standin: starting", flush=True)  # noqa: T201
    switches = [Path(b.partition("=")[2]) for b in behaviours if b.startswith("dies-if=")]
    if "dies" in behaviours or any(file.exists() for file in switches):
        for number in range(7):
            print(f"standin: reason {number}", flush=True)  # noqa: T201
        sys.exit(3)
    if "deaf" in behaviours:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if "unready" in behaviours else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", port), Handler)
    if "parent" in behaviours and os.fork() > 0:
        time.sleep(3600)  # like gunicorn's master: the worker serves
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), set(sys.argv[2:]))
