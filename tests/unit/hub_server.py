"""A server on this machine that speaks the hub's API, with the layouts of named public repositories.

Names of files, columns, gates and licences, and sizes of what nothing is read from, are those that stored listings and
cards of these repositories showed by November 2026: openai/gsm8k, GAIR/lima, HuggingFaceH4/mt_bench_prompts,
yahma/alpaca-cleaned, openai/MMMLU, lmlmcat/cmmlu (called haonan-li/cmmlu before), Open-Orca/FLAN (a part of it),
google/boolq, Qwen/Qwen2.5-7B, sbintuitions/sarashina2-7b and meta-llama/Meta-Llama-3-8B. Rows, and the commits of lima,
FLAN, sarashina2 and Llama-3, are invented here. Status codes and the headers X-Error-Code and X-Error-Message are those
that huggingface_hub tells apart.
"""

import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl

GOOD, STRANGER = "hf_goodToken0123456789", "hf_strangerToken0123456"
GSM8K = "740312add88f781978c0658806c59bc2815b9866"
QWEN = "d149729398750b98c0af14eb82c78cfe92750796"


@dataclass
class Repository:
    """What the server knows of a repository; a file's content is its bytes, or its size if nobody reads it."""

    kind: str
    commit: str
    files: dict[str, bytes | int]
    licence: str | None = None
    gated: str | bool = False
    branches: tuple[str, ...] = ("main",)

    def size(self, name: str) -> int:
        content = self.files[name]
        return content if isinstance(content, int) else len(content)


def parquet(rows: int = 40, **columns: Any) -> bytes:
    """Rows of one content."""
    written = io.BytesIO()
    pl.DataFrame({name: [value] * rows for name, value in columns.items()}).write_parquet(written)
    return written.getvalue()


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


QUESTION = {"question": "How many?", "answer": "3 + 4\n#### 7"}
CONFIG = json.dumps({"model_type": "qwen2", "hidden_size": 3584}).encode()
SHARDS = {f"model-0000{n}-of-00004.safetensors": 3_900_000_000 for n in range(1, 5)}
PICKLES = {"pytorch_model-00001-of-00002.bin": 9_970_000_000, "pytorch_model-00002-of-00002.bin": 4_660_000_000}


def repositories() -> dict[str, Repository]:
    return {
        "openai/gsm8k": Repository(
            "dataset",
            GSM8K,
            {
                ".gitattributes": 1170,
                "README.md": 7940,
                "main/test-00000-of-00001.parquet": parquet(**QUESTION),
                "main/train-00000-of-00001.parquet": parquet(**QUESTION),
                "socratic/test-00000-of-00001.parquet": parquet(**QUESTION),
                "socratic/train-00000-of-00001.parquet": parquet(**QUESTION),
            },
            "mit",
        ),
        "GAIR/lima": Repository(
            "dataset",
            "0000000000000000000000000000000000000a11",
            {
                "README.md": 1000,
                "lima.py": 3000,
                "train.jsonl": lines({"conversations": ["a?", "b"], "source": "x"}),
                "test.jsonl": lines({"conversations": ["a?"], "source": "x"}),
            },
            "other",
            gated="auto",
        ),
        "HuggingFaceH4/mt_bench_prompts": Repository(
            "dataset",
            "b60d01a44377daa2d9434e50a91a9e4169a090d5",
            {
                "README.md": 1000,
                "raw/question.jsonl": lines({"prompt": ["a", "b"], "prompt_id": 81, "category": "writing"}),
                "data/train-00000-of-00001-67c6c9fef07685a3.parquet": parquet(prompt=["a", "b"], category="writing"),
            },
            "apache-2.0",
        ),
        "yahma/alpaca-cleaned": Repository(
            "dataset",
            "12567cabf869d7c92e573c7c783905fc160e9639",
            # its first row is longer than what is read at first
            {
                "alpaca_data_cleaned.json": json.dumps(
                    [{"output": "x" * 90_000, "input": "", "instruction": "a"}] * 3
                ).encode()
            },
            "cc-by-4.0",
        ),
        "openai/MMMLU": Repository(
            "dataset",
            "325a01dc3e173cac1578df94120499aaca2e2504",
            {
                f"test/mmlu_{language}.csv": b",Question,A,B,C,D,Answer,Subject\n0,q,a,b,c,d,A,law\n"
                for language in ("JA-JP", "ZH-CN", "DE-DE")
            },
            "mit",
        ),
        "lmlmcat/cmmlu": Repository(
            "dataset",
            "efcc940752ea4a1ea94d2727f11f83858d64fc8e",
            {"README.md": 1000, "cmmlu.py": 5000, "cmmlu_v1_0_1.zip": 1_080_000},
            "cc-by-nc-4.0",
        ),
        "Open-Orca/FLAN": Repository(
            "dataset",
            "0000000000000000000000000000000000000f1a",
            {
                "flan_zsnoopt_data/part.0.parquet": parquet(inputs="a", targets="b", _task_name="piqa:1.0.0"),
                "flan_zsnoopt_data/part.1.parquet": 141_000_000,
                "flan2021_zsnoopt_submix_data.json": 12_600_000_000,
            },
            "cc-by-4.0",
        ),
        "google/boolq": Repository(
            "dataset",
            "35b264d03638db9f4ce671b711558bf7ff0f80d5",
            {
                "data/train-00000-of-00001.parquet": parquet(question="q", answer=True, passage="p"),
                "data/validation-00000-of-00001.parquet": parquet(question="q", answer=True, passage="p"),
            },
        ),
        "Qwen/Qwen2.5-7B": Repository(
            "model",
            QWEN,
            {
                **{"README.md": 5000, "LICENSE": 11343, "config.json": CONFIG, "generation_config.json": 138},
                **{"merges.txt": 1_671_853, "tokenizer.json": 7_031_645, "vocab.json": 2_776_833},
                **{"tokenizer_config.json": 7228, "model.safetensors.index.json": 27752, **SHARDS},
            },
            "apache-2.0",
        ),
        "sbintuitions/sarashina2-7b": Repository(
            "model",
            "0000000000000000000000000000000000005a7a",
            {"config.json": CONFIG, "pytorch_model.bin.index.json": 26_800, "tokenizer.model": 1_830_000, **PICKLES},
            "mit",
        ),
        "meta-llama/Meta-Llama-3-8B": Repository(
            "model",
            "00000000000000000000000000000000000011a3",
            {
                **{"config.json": CONFIG, "tokenizer.json": 9_090_000, "original/consolidated.00.pth": 16_060_000_000},
                **{f"model-0000{n}-of-00004.safetensors": 4_900_000_000 for n in range(1, 5)},
            },
            "llama3",
            gated="manual",
        ),
    }


@dataclass
class Hub:
    """A running server: what it holds, and what it was asked for."""

    endpoint: str
    repositories: dict[str, Repository]
    moved: dict[str, str] = field(default_factory=lambda: {"haonan-li/cmmlu": "lmlmcat/cmmlu"})
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    """Method, path, range and token of each request."""
    broken: int | None = None
    """A status with which everything is answered."""


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append((self.command, path, self.headers.get("Range"), token))
        if self.hub.broken:
            return self.answer(self.hub.broken)
        if path.startswith("/cdn/"):
            _, _, _, owner, repository, name = path.split("/", 5)
            return self.content(self.hub.repositories[f"{owner}/{repository}"].files[name])
        if token not in (None, GOOD, STRANGER):
            return self.fail(401, message="Invalid credentials in Authorization header")
        if match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
            return self.api(*match.groups(), token)
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(*match.groups(), token)
        return self.fail(404, "RepoNotFound")

    def find(self, kind: str, name: str, token: str | None) -> Repository | None:
        if name in self.hub.moved:
            new = self.path.replace(name, self.hub.moved[name])
            self.answer(307, {"Location": f"{self.hub.endpoint}{new}"})
            return None
        found = self.hub.repositories.get(name)
        if found is None or found.kind != kind:
            # without a token the hub does not say whether there is a private one
            self.fail(404 if token else 401, "RepoNotFound")
            return None
        return found

    def api(self, kind: str, name: str, view: str | None, revision: str | None, token: str | None) -> None:
        found = self.find(kind, name, token)
        if found is None:
            return
        if revision is not None and revision not in (*found.branches, found.commit):
            return self.fail(404, "RevisionNotFound")
        listed = [{"rfilename": file, "size": found.size(file)} for file in found.files]
        tags = [f"license:{found.licence}"] if found.licence else []
        info: Any = {"id": name, "sha": found.commit, "gated": found.gated, "private": False, "tags": tags}
        info |= {"siblings": listed, "cardData": {"license": found.licence} if found.licence else {}}
        if view == "tree":
            info = [{"type": "file", "path": f, "size": found.size(f), "oid": "0" * 40} for f in found.files]
        self.content(json.dumps(info).encode(), "application/json")

    def resolve(self, datasets: str | None, name: str, revision: str, file: str, token: str | None) -> None:
        found = self.find("dataset" if datasets else "model", name, token)
        if found is None:
            return
        if found.gated and token != GOOD:
            return self.fail(401 if token is None else 403, "GatedRepo")
        if revision not in (*found.branches, found.commit):
            return self.fail(404, "RevisionNotFound")
        if file not in found.files:
            return self.fail(404, "EntryNotFound")
        facts = {"X-Repo-Commit": found.commit, "ETag": f'"{abs(hash((name, file))):040x}"'}
        if file.endswith((".parquet", ".safetensors", ".bin")):
            # large files lie elsewhere, under an address that is signed
            port = self.hub.endpoint.rpartition(":")[2]
            place = f"http://localhost:{port}/cdn/{found.kind}/{name}/{file}?X-Amz-Signature=secret"
            return self.answer(302, facts | {"Location": place, "X-Linked-Size": str(found.size(file))})
        self.content(found.files[file], **facts)

    def content(self, content: bytes | int, kind: str = "application/octet-stream", **headers: str) -> None:
        whole = bytes(content) if isinstance(content, int) and content < 1 << 20 else content
        assert isinstance(whole, bytes), "nothing may read a file of gigabytes"
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if found:
            start, end = int(found[1]), min(int(found[2]), len(whole) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(whole)}"
            self.answer(206, {"Content-Type": kind, **headers}, whole[start : end + 1])
        else:
            self.answer(200, {"Content-Type": kind, **headers}, whole)

    def fail(self, status: int, code: str | None = None, message: str | None = None) -> None:
        told = {"X-Error-Code": code, "X-Error-Message": message}
        self.answer(status, {name: value for name, value in told.items() if value})

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running() -> Iterator[Hub]:
    """The server, on a port of its own, until the block ends."""
    hub = Hub("", repositories())
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
