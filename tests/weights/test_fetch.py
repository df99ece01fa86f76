"""Downloads from a server on this machine that stops early, redirects and has wrong checksums."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from sphere_jax.common.errors import UserError
from sphere_jax.weights.fetch import fetch

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.send_header("X-Linked-Etag", f'"{self.server.announced}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", "http://example.invalid/x.bin")
            self.end_headers()
            return
        if self.path.endswith("none.bin"):
            self.send_error(404)
            return
        requested = self.headers.get("Range")
        start = (
            int(requested.removeprefix("bytes=").rstrip("-"))
            if requested and self.server.ranges
            else 0
        )
        if self.headers.get("If-Range", self.server.etag) != self.server.etag:
            start = 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        stop = self.server.stops.pop(0) if self.server.stops else len(body)
        self.wfile.write(body[:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.stops, server.ranges, server.announced = [], [], True, SHA
    server.etag = ""
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_once_and_checked_each_time(server, tmp_path):
    lines = []
    path = fetch(f"{server.url}/x.bin", tmp_path, SHA, lines.append)
    assert path == tmp_path / "x.bin" and path.read_bytes() == CONTENT
    assert lines[-1].startswith("x.bin  3.0 of 3.0 MB") and lines[-1].endswith("MB/s")
    assert fetch(f"{server.url}/x.bin", tmp_path, SHA[:8], lines.append) == path
    assert len(server.requests) == 1
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match="it was deleted"):
        fetch(f"{server.url}/x.bin", tmp_path, SHA, lines.append)
    assert fetch(f"{server.url}/x.bin", tmp_path, SHA).read_bytes() == CONTENT


def test_an_interrupted_transfer_is_resumed(server, tmp_path):
    server.stops = [1_000_000, 500_000]
    for done in (1_000_000, 1_500_000):
        with pytest.raises(
            UserError, match="was interrupted .*; run the same command to resume it"
        ):
            fetch(f"{server.url}/x.bin", tmp_path, SHA, lambda _: None)
        assert not (tmp_path / "x.bin").exists()
        assert (tmp_path / "x.bin.part").stat().st_size == done
    path = fetch(f"{server.url}/x.bin", tmp_path, SHA, lambda _: None)
    assert path.read_bytes() == CONTENT and not (tmp_path / "x.bin.part").exists()
    assert [requested for _, requested in server.requests] == [
        None,
        "bytes=1000000-",
        "bytes=1500000-",
    ]


def test_a_server_without_ranges_sends_the_whole_file_again(server, tmp_path):
    server.stops, server.ranges = [1_000_000], False
    with pytest.raises(UserError):
        fetch(f"{server.url}/x.bin", tmp_path, SHA, lambda _: None)
    assert fetch(f"{server.url}/x.bin", tmp_path, SHA, lambda _: None).read_bytes() == CONTENT


def test_without_a_checksum_only_the_same_file_is_resumed(server, tmp_path):
    server.etag = '"1"'
    for etag, requested in (('"1"', "bytes=1000000-"), ('"2"', "bytes=1000000-"), ("", None)):
        server.etag = '"1"' if etag else ""
        server.stops = [1_000_000]
        name = f"{etag.strip(chr(34)) or 'plain'}.bin"
        with pytest.raises(UserError):
            fetch(f"{server.url}/{name}", tmp_path, log=lambda _: None)
        server.etag = etag
        path = fetch(f"{server.url}/{name}", tmp_path, log=lambda _: None)
        assert path.read_bytes() == CONTENT and server.requests[-1][1] == requested
    assert not list(tmp_path.glob("*.etag")) and not list(tmp_path.glob("*.part"))


def test_a_download_that_was_complete_but_not_renamed(server, tmp_path):
    (tmp_path / "x.bin.part").write_bytes(CONTENT)
    assert fetch(f"{server.url}/x.bin", tmp_path, SHA, lambda _: None).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(UserError, match=f"SHA-256 {SHA[:16]}..., not 00000000... as published"):
        fetch(f"{server.url}/x.bin", tmp_path, "00000000", lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_the_checksum_of_a_redirect_counts(server, tmp_path):
    lines = []
    path = fetch(f"{server.url}/moved/x.bin", tmp_path, log=lines.append)
    assert path.read_bytes() == CONTENT and not any("no checksum" in line for line in lines)
    server.announced = "0" * 64
    with pytest.raises(UserError, match="as published"):
        fetch(f"{server.url}/moved/y.bin", tmp_path, log=lines.append)


def test_without_any_checksum_the_first_one_is_stored(server, tmp_path):
    lines = []
    path = fetch(f"{server.url}/x.bin", tmp_path, log=lines.append)
    assert lines[-1] == f"x.bin: no checksum is published; its SHA-256 is {SHA}"
    path.write_bytes(b"changed")
    with pytest.raises(UserError, match="it was deleted"):
        fetch(f"{server.url}/x.bin", tmp_path, log=lines.append)


def test_refusals(server, tmp_path):
    with pytest.raises(UserError, match="answered 404"):
        fetch(f"{server.url}/none.bin", tmp_path)
    for url in ("http://example.invalid/x.bin", "ftp://example.invalid/x", f"{server.url}/away/x"):
        with pytest.raises(UserError, match="only https addresses are"):
            fetch(url, tmp_path)
    server.server_close()
    with pytest.raises(UserError, match="cannot be reached .*; without a network, .* --from FILE"):
        fetch("http://127.0.0.1:9/x.bin", tmp_path)
