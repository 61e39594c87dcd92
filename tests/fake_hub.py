"""The hub's API, as far as the client's own requests need it, behind the client's HTTP transport: no network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import close_session, constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory

TOKEN = "hf_of_ada"
Files = dict[str, bytes]


@dataclass
class Repository:
    private: bool
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: Files, message: str) -> str:
        """Add files to a branch; its name is made of what it holds and of its number."""
        files = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        said = [f"{len(self.commits)}", *(f"{name} {hashlib.sha1(data).hexdigest()}" for name, data in files.items())]
        commit = hashlib.sha1("\n".join(said).encode()).hexdigest()
        self.commits[commit], self.branches[branch] = files, commit
        self.messages.append(message)
        return commit


@dataclass
class FakeHub:
    """One user, ada, with one token.

    Attributes:
        repositories: by their ids.
        requests: what was asked for, as ``METHOD path``.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def add(self, name: str, directory: str | Path, branch: str = "main", under: str = "") -> str:
        """Put the files of a directory into a repository; return the commit."""
        files = {f"{under}{path.name}": path.read_bytes() for path in Path(directory).iterdir() if path.is_file()}
        return self.repositories.setdefault(name, Repository(private=False)).commit(branch, files, "Add files")

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        path, known = request.url.path, request.headers.get("authorization") == f"Bearer {TOKEN}"
        self.requests.append(f"{request.method} {path}")
        of_user = (request.method == "POST" and path != "/api/validate-yaml") or path == "/api/whoami-v2"
        if of_user and not known:
            return httpx2.Response(401, json={"error": "Invalid username or password."})
        if path == "/api/whoami-v2":
            return httpx2.Response(200, json={"type": "user", "name": "ada", "orgs": []})
        if path == "/api/validate-yaml":
            return self._validated(json.loads(request.content)["content"])
        if path == "/api/repos/create":
            return self._created(json.loads(request.content))
        if match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/(\w+)/([^/]+))?", path):
            name, what, revision = match.groups()
            if not self._shows(name, known):
                return httpx2.Response(404, headers={"X-Error-Code": "RepoNotFound"}, json={"error": "not found"})
            return self._of_repository(request, name, what or "revision", revision or "main")
        if (match := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path)) and self._shows(match[1], known):
            return self._file(*match.groups())
        return httpx2.Response(404, json={"error": f"no {path}"})

    def _shows(self, name: str, known: bool) -> bool:
        return name in self.repositories and (known or not self.repositories[name].private)

    def _validated(self, card: str) -> httpx2.Response:
        """The hub takes no base model but an id."""
        named = re.findall(r"^base_model: (.*)$", card, re.MULTILINE)
        wrong = [name for name in named if not re.fullmatch(r"[\w.-]+/[\w.-]+", name)]
        errors = [{"message": f'"base_model" with value "{name}" is not valid'} for name in wrong]
        return httpx2.Response(400 if errors else 200, json={"errors": errors, "warnings": []})

    def _created(self, asked: dict) -> httpx2.Response:
        name = f"{asked.get('organization') or 'ada'}/{asked['name']}"
        url = {"url": f"https://huggingface.co/{name}", "name": name}
        if name in self.repositories:
            return httpx2.Response(409, json=url)
        self.repositories[name] = Repository(private=asked.get("visibility") == "private")
        self.repositories[name].commit("main", {}, "initial commit")
        return httpx2.Response(200, json=url)

    def _of_repository(self, request: httpx2.Request, name: str, what: str, revision: str) -> httpx2.Response:
        repository = self.repositories[name]
        if what == "branch":
            if revision in repository.branches:
                return httpx2.Response(409, json={"error": "exists"})
            repository.branches[revision] = repository.branches["main"]
            return httpx2.Response(200, json={})
        if what == "preupload":
            asked = json.loads(request.content)["files"]
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]
            return httpx2.Response(200, json={"files": files})
        if what == "commit":
            return self._committed(request, name, revision)
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            return httpx2.Response(404, headers={"X-Error-Code": "RevisionNotFound"}, json={"error": "not found"})
        files = repository.commits[commit]
        if what == "tree":
            listed = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in files.items()
            ]
            return httpx2.Response(200, json=listed)
        siblings = [{"rfilename": path} for path in files]
        return httpx2.Response(200, json={"id": name, "sha": commit, "siblings": siblings, "private": False})

    def _committed(self, request: httpx2.Request, name: str, revision: str) -> httpx2.Response:
        rows = [json.loads(line) for line in request.content.splitlines()]
        message = next(row["value"]["summary"] for row in rows if row["key"] == "header")
        files = {
            row["value"]["path"]: base64.b64decode(row["value"]["content"]) for row in rows if row["key"] == "file"
        }
        address, asks = f"https://huggingface.co/{name}", request.url.params.get("create_pr") == "1"
        commit = self.repositories[name].commit("refs/pr/1" if asks else revision, files, message)
        done = {"success": True, "commitUrl": f"{address}/commit/{commit}", "commitOid": commit}
        return httpx2.Response(200, json={**done, **({"pullRequestUrl": f"{address}/discussions/1"} if asks else {})})

    def _file(self, name: str, revision: str, path: str) -> httpx2.Response:
        repository = self.repositories[name]
        commit = repository.branches.get(revision, revision)
        data = repository.commits.get(commit, {}).get(path)
        if data is None:
            return httpx2.Response(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        return httpx2.Response(200, headers=headers, content=data)


@contextmanager
def fake_hub(cache: Path) -> Iterator[FakeHub]:
    """Let the hub's client speak to a hub of this process, with a cache of its own and ada's token."""
    hub = FakeHub()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
        patch.setenv("HF_TOKEN", TOKEN)
        transport = httpx2.MockTransport(hub.answer)
        set_client_factory(lambda: httpx2.Client(transport=transport, follow_redirects=True))
        try:
            yield hub
        finally:
            set_client_factory(default_client_factory)
            close_session()
