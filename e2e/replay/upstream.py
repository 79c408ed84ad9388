"""An honest MCP server of the stateless revision: it offers the definitions that it is given, and answers each call with
what was recorded of it.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "2026-07-28"


class Upstream:
    """The server, until the `with` block ends.

    `listing` is the text of the array of tools, served as it is written; `expected` is the call (tool, arguments, answer)
    that comes next; `received` counts the calls that came, `worked` is the time spent on the last one in milliseconds.
    """

    def __init__(self, tools):
        self.listing = json.dumps(tools)
        self.expected = None
        self.received = 0
        self.worked = 0.0
        self.surprise = None
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                began = time.perf_counter()
                message = json.loads(self.rfile.read(int(self.headers["content-length"])))
                body = upstream.answer(message).encode()
                self.send_response(200 if "id" in message else 202)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                if message.get("method") == "tools/call":
                    upstream.worked = (time.perf_counter() - began) * 1000

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/mcp"

    def answer(self, message):
        """The response to a message, as text; empty for a notification."""
        method = message.get("method")
        if "id" not in message:
            return ""
        result = {"resultType": "complete"}
        if method == "server/discover":
            result.update(supportedVersions=[REVISION], capabilities={"tools": {}}, ttlMs=0, cacheScope="private",
                          serverInfo={"name": "replay", "version": "1"})
        elif method == "tools/list":
            # The definitions go out in exactly the spelling that they were given in.
            head = json.dumps({"jsonrpc": "2.0", "id": message["id"]})[:-1]
            return f'{head}, "result": {{"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": {self.listing}}}}}'
        elif method == "tools/call":
            result["content"] = [{"type": "text", "text": self.called(message["params"])}]
        return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result})

    def called(self, params):
        """What was recorded of the call; one that nobody made is remembered as a surprise."""
        self.received += 1
        tool, arguments, text = self.expected or ("", {}, "")
        if (params["name"], params.get("arguments") or {}) != (tool, arguments):
            self.surprise = f"`{params['name']}` came, or other arguments than were sent for `{tool}`"
            return "not the recorded call"
        return text

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
