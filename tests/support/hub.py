"""A stand-in for the Hugging Face hub: as much of its API as pushing and loading a repository asks.

Small files come inside the commit, large ones by Git LFS, as the hub has it. What huggingface_hub
itself sends is checked, not taken on trust: tokens, sizes and digests.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_standin"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 4096
"""Bytes from which a file is sent by LFS."""


@dataclass
class Hub:
    """What the stand-in holds.

    Attributes:
        address: Where it listens.
        repositories: Files by name, by kind and name of the repository.
        private: Names of the repositories that were made private.
        calls: Every request, as `POST /api/repos/create`.
    """

    address: str = ""
    repositories: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def standin_hub() -> Iterator[Hub]:
    """A hub on this machine for as long as the block runs."""
    hub = Hub()

    class Handler(_Handler):
        standin = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    standin: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        """Says nothing: the tests read `calls`."""

    def do_POST(self):
        body = self._body()
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            assert "content" in json.loads(body)
            return self._answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if found := re.fullmatch(r"/api/(model|dataset)s/(.+)/preupload/main", path):
            return self._answer({"files": [_mode(f) for f in json.loads(body)["files"]]})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        if found := re.fullmatch(r"/api/(model|dataset)s/(.+)/commit/main", path):
            return self._commit(found[1], found[2], body)
        return self._answer({"error": f"not in the stand-in: {path}"}, 404)

    def do_PUT(self):
        oid = self.path.rpartition("/")[2]
        data = self._body()
        assert hashlib.sha256(data).hexdigest() == oid
        self.standin.objects[oid] = data
        self._answer({})

    def do_GET(self):
        self._read(with_body=True)

    def do_HEAD(self):
        self._read(with_body=False)

    def _create(self, asked):
        name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
        kind = asked.get("type", "model")
        if asked.get("visibility") == "private" or asked.get("private"):
            self.standin.private.add(name)
        if (kind, name) in self.standin.repositories:
            return self._answer({"error": "You already created this repo"}, 409)
        self.standin.repositories[kind, name] = {}
        prefix = "datasets/" if kind == "dataset" else ""
        return self._answer({"url": f"{self.standin.address}/{prefix}{name}"})

    def _batch(self, asked):
        objects = [
            {
                **each,
                "actions": {"upload": {"href": f"{self.standin.address}/objects/{each['oid']}"}},
            }
            for each in asked["objects"]
        ]
        self._answer({"transfer": "basic", "objects": objects})

    def _commit(self, kind, name, body):
        if (kind, name) not in self.standin.repositories:
            return self._answer({"error": "Repository not found"}, 404)
        files = self.standin.repositories[kind, name]
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.standin.objects[value["oid"]]
                assert len(files[value["path"]]) == value["size"]
        url = f"{self.standin.address}/{name}/commit/{COMMIT}"
        return self._answer({"success": True, "commitOid": COMMIT, "commitUrl": url})

    def _read(self, *, with_body):
        self.standin.calls.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(/revision/.+)?", path):
            files = self.standin.repositories.get((found[1], found[2]))
            if files is not None:
                siblings = [{"rfilename": name} for name in files]
                facts = {"id": found[2], "sha": COMMIT, "siblings": siblings, "private": False}
                return self._answer(facts)
        if found := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/tree/[^/]+", path):
            files = self.standin.repositories.get((found[1], found[2]), {})
            return self._answer([_listed(name, data) for name, data in files.items()])
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            kind = "dataset" if found[1] else "model"
            data = self.standin.repositories.get((kind, found[2]), {}).get(found[3])
            if data is not None:
                return self._send(data, with_body=with_body)
        self.send_response(404)
        is_entry = "/resolve/" in path or "/tree/" in path
        self.send_header("X-Error-Code", "EntryNotFound" if is_entry else "RepoNotFound")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def _send(self, data, *, with_body):
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def _body(self):
        self.standin.calls.append(f"{self.command} {self.path}")
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _listed(name, data):
    return {
        "type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest(),
    }  # fmt: skip


def _mode(file):
    mode = "lfs" if file["size"] >= LARGE else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
