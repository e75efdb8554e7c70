"""A small server that speaks what the Hugging Face Hub's client asks, for tests."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse


class HubServer:
    """Repositories in memory, under `address`.

    Attributes:
        repositories: Name -> `{"private": bool, "files": {name: bytes}}`.
        token: If set, what is private or written needs it.
        requests: All requests, as `"METHOD path"`.
    """

    def __init__(self):
        self.repositories: dict[str, dict] = {}
        self.token = None
        self.requests = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def answer(self, code, body=b"", **headers):
                if isinstance(body, (dict, list)):
                    body = json.dumps(body).encode()
                    headers["Content-Type"] = "application/json"
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def handle_one(self):
                path = unquote(urlparse(self.path).path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.requests.append(f"{self.command} {path}")
                hub.reply(self, path, body)

            do_GET = do_HEAD = do_POST = handle_one

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def commit(self, name):
        files = self.repositories[name]["files"]
        digest = hashlib.sha1()
        for key in sorted(files):
            digest.update(key.encode() + files[key])
        return digest.hexdigest()

    def files(self, name, revision):
        """Those of a revision, or `None`."""
        found = self.repositories[name]
        if revision in (None, "main", self.commit(name)):
            return found["files"]
        return found.get("history", {}).get(revision)

    def reply(self, handler, path, body):
        allowed = self.token is None or handler.headers.get("Authorization") == (
            f"Bearer {self.token}"
        )
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = "/".join(filter(None, [wanted.get("organization"), wanted["name"]]))
            if not allowed:
                return handler.answer(401, {"error": "Invalid username or password."})
            if name in self.repositories:
                return handler.answer(409, {"error": "exists", "url": f"{self.address}/{name}"})
            private = wanted.get("private", wanted.get("visibility") == "private")
            self.repositories[name] = {"private": private, "files": {}}
            return handler.answer(200, {"url": f"{self.address}/{name}"})
        if path == "/api/validate-yaml":
            return handler.answer(200, {"errors": [], "warnings": []})
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/([^/]+).*)?", path)
        if api:
            return self.reply_about(handler, *api.groups(), body, allowed)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if file:
            return self.reply_file(handler, *file.groups(), allowed)
        return handler.answer(404, {"error": f"{path}?"})

    def repository(self, handler, name, allowed):
        found = self.repositories.get(name)
        if found is None or (found["private"] and not allowed):
            handler.answer(404, {"error": "not found"}, X_Error_Code="RepoNotFound")
            return None
        return found

    def reply_about(self, handler, name, verb, revision, body, allowed):
        found = self.repository(handler, name, allowed)
        if found is None:
            return None
        if verb in ("preupload", "commit") and not allowed:
            return handler.answer(403, {"error": "read only"})
        if verb == "preupload":
            files = [
                {"path": x["path"], "uploadMode": "regular", "shouldIgnore": False}
                for x in json.loads(body)["files"]
            ]
            return handler.answer(200, {"files": files})
        if verb == "commit":
            for line in body.decode().splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    content = base64.b64decode(item["value"]["content"])
                    found["files"][item["value"]["path"]] = content
            sha = self.commit(name)
            found.setdefault("history", {})[sha] = dict(found["files"])
            url = f"{self.address}/{name}/commit/{sha}"
            return handler.answer(200, {"commitUrl": url, "commitOid": sha, "success": True})
        files = self.files(name, revision)
        if files is None:
            error = {"error": f"Invalid rev id: {revision}"}
            return handler.answer(404, error, X_Error_Code="RevisionNotFound")
        if verb == "tree":
            rows = [
                {"type": "file", "path": key, "size": len(data), "oid": _oid(data)}
                for key, data in files.items()
            ]
            return handler.answer(200, rows)
        siblings = [{"rfilename": key} for key in files]
        sha = self.commit(name) if revision in (None, "main") else revision
        answer = {"id": name, "sha": sha, "siblings": siblings, "tags": []}
        return handler.answer(200, {**answer, "private": found["private"], "downloads": 0})

    def reply_file(self, handler, name, revision, key, allowed):
        found = self.repository(handler, name, allowed)
        if found is None:
            return None
        files = self.files(name, revision) or {}
        if key not in files:
            return handler.answer(404, {"error": "no entry"}, X_Error_Code="EntryNotFound")
        sha = self.commit(name) if revision == "main" else revision
        etag = f'"{_oid(files[key])}"'
        return handler.answer(200, files[key], ETag=etag, X_Repo_Commit=sha)


def _oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
