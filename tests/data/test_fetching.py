"""Downloads: only what was asked for, whole, resumed, and refused in a clear sentence."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from functorch_kit.data import DataError, fetch

CONTENT = bytes(range(256)) * 4000
SUM = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    breaks_after: int | None = None
    ranges = True
    asked: list[str | None]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if self.path != "/file":
            self.send_error(404)
            return
        begin = 0
        if asked and server.ranges:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            if begin >= len(CONTENT):
                self.send_error(416)
                return
        body = CONTENT[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if server.breaks_after is None else body[: server.breaks_after])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    made = Server(("127.0.0.1", 0), Handler)
    made.asked = []
    thread = threading.Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def _url(server: Server, path: str = "file") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/{path}"


def test_a_file_comes_once_and_is_not_asked_for_again(server: Server, tmp_path: Path):
    path = tmp_path / "new" / "a.bin"
    for _ in range(2):
        assert fetch(_url(server), path, sha256=SUM.upper()).read_bytes() == CONTENT
    assert server.asked == [None]
    assert [each.name for each in path.parent.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("ranges", [True, False], ids=["resumes", "begins again"])
def test_a_broken_download_goes_on_where_it_was(server: Server, tmp_path: Path, ranges: bool):
    path = tmp_path / "a.bin"
    server.breaks_after, server.ranges = 300_000, ranges
    with pytest.raises(DataError, match="300000 bytes are kept; call again"):
        fetch(_url(server), path, sha256=SUM)
    assert not path.exists()
    server.breaks_after = None
    assert fetch(_url(server), path, sha256=SUM).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"]


def test_a_part_that_is_whole_is_taken(server: Server, tmp_path: Path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert fetch(_url(server), tmp_path / "a.bin", sha256=SUM).read_bytes() == CONTENT


def test_a_file_of_another_sum_is_not_kept(server: Server, tmp_path: Path):
    with pytest.raises(DataError, match=f"has the SHA-256 {SUM}, not {'0' * 64}: it was not kept"):
        fetch(_url(server), tmp_path / "a.bin", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_another_file_in_its_place_is_left_alone(server: Server, tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match="is not the one that was asked for"):
        fetch(_url(server), tmp_path / "a.bin", sha256=SUM)
    assert (tmp_path / "a.bin").read_bytes() == b"mine"


def test_without_a_network_there_is_one_clear_sentence(server: Server, tmp_path: Path):
    url = _url(server)
    with pytest.raises(DataError, match="the server says 404"):
        fetch(_url(server, "other"), tmp_path / "a.bin", sha256=SUM)
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="when there is a network, or put the file at") as caught:
        fetch(url, tmp_path / "a.bin", sha256=SUM, timeout=2.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "known", "message"),
    [("file:///etc/passwd", SUM, "begins with https://"), ("https://a/b", "abc", "64 hexa")],
)
def test_what_is_no_address_and_no_sum_is_refused(tmp_path: Path, url, known, message):
    with pytest.raises(DataError, match=message):
        fetch(url, tmp_path / "a.bin", sha256=known)
