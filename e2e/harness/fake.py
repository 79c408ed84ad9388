"""A small MCP server of the stateless revision that does what a scenario tells it to, and remembers what it received.
Over HTTP in this process (`Fake`), or over stdio as a program: `python3 fake.py`.
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "2026-07-28"
TEXT = {"type": "object", "properties": {"mark": {"type": "string"}}, "required": ["mark"]}
TOOLS = [{"name": name, "description": f"It is {name}.", "inputSchema": TEXT}
         for name in ("plain", "dies", "endless", "huge", "slow", "silent")]


def _result(more):
    return {"resultType": "complete", **more}


def _said(text):
    return _result({"content": [{"type": "text", "text": text}]})


def answer(message):
    """The result of a request that a plain server would give; `None` for a notification."""
    method = message.get("method")
    if "id" not in message:
        return None
    if method == "server/discover":
        return _result({"supportedVersions": [VERSION], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private",
                        "serverInfo": {"name": "fake", "version": "1"}})
    if method == "tools/list":
        return _result({"tools": TOOLS, "ttlMs": 0, "cacheScope": "private"})
    if method == "tools/call":
        return _said(message["params"]["arguments"]["mark"])
    return _result({})


class Fake:
    """The server over HTTP, until the `with` block ends."""

    def __init__(self):
        self.received = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                message = json.loads(self.rfile.read(int(self.headers["content-length"])))
                tool = message.get("params", {}).get("name") if message.get("method") == "tools/call" else None
                if tool:
                    fake.received.append(message["params"]["arguments"]["mark"])
                try:
                    getattr(self, f"do_{tool}", self.do_plain)(message)
                except OSError:
                    self.close_connection = True

            def _head(self, kind, length=None):
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(length)) if length else self.send_header("connection", "close")
                self.end_headers()

            def do_plain(self, message):
                result = answer(message)
                body = json.dumps({"jsonrpc": "2.0", "id": message.get("id"), "result": result}).encode()
                self._head("application/json", len(body))
                self.wfile.write(body)

            def do_dies(self, _):
                # Half an answer, and then nobody is there.
                self._head("application/json", 1000)
                self.wfile.write(b'{"jsonrpc":"2.0","id"')
                self.wfile.flush()
                self.connection.shutdown(2)
                self.close_connection = True

            def do_endless(self, _):
                self._head("text/event-stream")
                line = json.dumps({"jsonrpc": "2.0", "method": "notifications/message",
                                   "params": {"level": "info", "data": "x" * 60_000}})
                while fake.open:
                    self.wfile.write(f"data: {line}\n\n".encode())

            def do_huge(self, message):
                self.close_connection = True
                self._head("application/json")
                self.wfile.write(b'{"jsonrpc":"2.0","id":' + json.dumps(message["id"]).encode()
                                 + b',"result":{"resultType":"complete","content":[{"type":"text","text":"')
                for _ in range(100):
                    self.wfile.write(b"x" * 1_000_000)
                self.wfile.write(b'"}]}}')

            def do_slow(self, message):
                time.sleep(3)
                self.do_plain(message)

            def do_silent(self, _):
                while fake.open:
                    time.sleep(0.1)
                self.close_connection = True

        self.open = True
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/mcp"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.open = False
        self.server.shutdown()
        self.server.server_close()


def over_stdio():
    """The same server line by line; `dies` ends the program in the middle of the call."""
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "tools/call" and message["params"]["name"] == "dies":
            os._exit(9)
        result = answer(message)
        if result is not None:
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)


if __name__ == "__main__":
    over_stdio()
