"""A hub on this machine: as much of its HTTP as making a repository and committing files to it asks for."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StandIn:
    """`repositories`: name -> {"private", "files": {path: bytes}}; `refuses`: the status of every answer, if one is.

    `tokens`: with what those came who changed something.
    """

    def __init__(self):
        self.repositories, self.refuses, self.tokens = {}, None, set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def answered(self, path, body):
        """(status, JSON)."""
        if self.refuses:
            return self.refuses, {"error": "no"}
        if path == "/api/repos/create":
            name = f"{body['organization']}/{body['name']}" if body.get("organization") else body["name"]
            if name in self.repositories:
                return 409, {"error": "You already created this model repo"}
            self.repositories[name] = {"private": asks_for_private(body), "files": {}}
            return 200, {"url": f"{self.address}/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        name, _, action = path.removeprefix("/api/models/").partition("/preupload/")
        if action:
            return 200, {
                "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in body["files"]]
            }
        name, _, action = path.removeprefix("/api/models/").partition("/commit/")
        if action and name in self.repositories:
            for line in body:
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.repositories[name]["files"][line["value"]["path"]] = content
            return 200, {
                "success": True,
                "commitOid": "0" * 40,
                "commitUrl": f"{self.address}/{name}/commit/{'0' * 40}",
            }
        return 404, {"error": "no such thing"}

    def _handler(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self):
                text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                if "/repos/" in self.path or "/commit/" in self.path:
                    hub.tokens.add(self.headers.get("Authorization"))
                lines = [json.loads(line) for line in text.splitlines() if line]
                body = lines if "/commit/" in self.path else lines[0] if lines else {}
                status, said = hub.answered(self.path.partition("?")[0], body)
                content = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_HEAD = _answer

            def log_message(self, *_):
                pass

        return Handler


def asks_for_private(body):
    """By the key of either of the client's versions."""
    return body.get("private") is True or body.get("visibility") == "private"
