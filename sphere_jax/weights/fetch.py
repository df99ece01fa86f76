"""Downloads: over HTTPS, resumed after an interruption, checked, into a cache folder."""

import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from sphere_jax.common import fingerprints
from sphere_jax.common.errors import UserError

BLOCK = 1 << 20
TIMEOUT = 30  # seconds without a byte
CHECKSUM_HEADER = "X-Linked-Etag"  # the Hugging Face hub: SHA-256 of a large file
LOCAL = "127.0.0.1"  # where http is allowed: the connection stays on this machine


def fetch(
    url: str,
    folder: str | os.PathLike,
    sha256: str = "",
    log: Callable[[str], None] = print,
    name: str = "",
) -> Path:
    """The file at `url`, downloaded into `folder` unless it is there; returns its path.

    `sha256` is its checksum, or as much of its beginning as is published; the server may give it
    too. Without either, the checksum of the first download is stored, and the file is checked
    against that later. An interrupted download stays beside it as `.part`. The next call resumes
    it, or starts again where neither a checksum nor the server's ETag shows that the file is still
    the same.

    Raises:
      UserError: not HTTPS, no connection, an answer that is not the file, too little disk, or a
        wrong checksum (what arrived is then deleted).
    """
    _check_address(url, local=True)
    folder = Path(folder)
    path = folder / (name or Path(urlsplit(url).path).name)
    note = path.with_name(f"{path.name}.sha256")
    try:
        if path.exists() and note.exists():
            _verify(path, sha256 or note.read_text().strip(), url)
            return path
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.part")
        announced = _download(url, partial, bool(sha256), log)
        found = _verify(partial, sha256 or announced, url)
        note.write_text(found + "\n")
        os.replace(partial, path)
    except urllib.error.HTTPError as error:
        gated = "; accept its licence there, download it and give it by --from"
        fix = gated if error.code in (401, 403) else ""
        raise UserError(f"{url} answered {error.code} ({error.reason}){fix}.") from error
    except urllib.error.URLError as error:  # before the first byte
        raise UserError(
            f"{url} cannot be reached ({error.reason}); without a network, download it elsewhere "
            "and give it by --from FILE."
        ) from error
    except (HTTPException, TimeoutError, ConnectionError) as error:
        raise UserError(
            f"{url} was interrupted ({error}); run the same command to resume it."
        ) from error
    except OSError as error:
        raise UserError(f"Cannot use {folder} ({error.strerror or error}).") from error
    if not (sha256 or announced):
        log(f"{path.name}: no checksum is published; its SHA-256 is {found}")
    return path


def _download(url: str, partial: Path, checked: bool, log) -> str:
    """Appends what is missing to `partial`; returns the checksum that the server names, or "".

    `checked`: a checksum will show whether the file has changed since.
    """
    tag = partial.with_name(f"{partial.name}.etag")
    if not checked and not tag.exists():
        partial.unlink(missing_ok=True)
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "sphere_jax"})
    redirects = _Redirects()
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag.exists():
            request.add_header("If-Range", tag.read_text())
    try:
        answer = urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to send
            tag.unlink(missing_ok=True)
            return redirects.checksum
        raise
    with answer:
        if answer.status != 206:  # else bytes and tag of two versions could stay together
            for old in (partial, tag):
                old.unlink(missing_ok=True)
        if (etag := answer.headers.get("ETag", "W/")).startswith('"'):
            tag.write_text(etag)
        length = answer.headers.get("Content-Length")
        done = have if answer.status == 206 else 0  # else the server sends the whole file again
        total = done + int(length) if length else None
        progress = _Progress(partial.stem, done, total, log)
        with partial.open("ab" if done else "wb") as file:
            while block := _received(answer):
                file.write(block)
                done += len(block)
                progress(done)
        if total is not None and done < total:
            raise ConnectionError(f"{done:,} of {total:,} bytes arrived")
        progress(done, last=True)
        tag.unlink(missing_ok=True)
        return redirects.checksum or _checksum(answer.headers)


def _received(answer) -> bytes:
    """The next bytes. Raises ConnectionError for any error of the connection."""
    try:
        return answer.read(BLOCK)
    except OSError as error:
        raise ConnectionError(error) from error


class _Progress:
    """A line every other second: bytes, rate, time left."""

    def __init__(self, name: str, done: int, total: int | None, log):
        self.name, self.resumed_at, self.total, self.log = name, done, total, log
        self.start = self.shown = time.monotonic()

    def __call__(self, done: int, last: bool = False) -> None:
        now = time.monotonic()
        if now - self.shown < 2 and not last:
            return
        self.shown = now
        rate = (done - self.resumed_at) / max(now - self.start, 1e-9)
        line = f"{self.name}  {done / 1e6:,.1f} MB"
        if self.total:
            line = f"{self.name}  {done / 1e6:,.1f} of {self.total / 1e6:,.1f} MB"
        line += f"  {rate / 1e6:,.1f} MB/s"
        if self.total and rate and not last:
            line += f"  {(self.total - done) / rate:,.0f} s left"
        self.log(line)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows them to https addresses, and stores the checksum that one of them names."""

    checksum = ""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_address(newurl, local=urlsplit(req.full_url).hostname == LOCAL)
        self.checksum = self.checksum or _checksum(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(url: str, local: bool) -> None:
    """Raises UserError for anything but https, or http on this machine where that is expected."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (
        local and (parts.scheme, parts.hostname) == ("http", LOCAL)
    ):
        raise UserError(f"{url} is not fetched: only https addresses are.")


def _checksum(headers) -> str:
    """The SHA-256 that the server names, or ""."""
    named = headers.get(CHECKSUM_HEADER, "").strip('"').lower()
    return named if re.fullmatch("[0-9a-f]{64}", named) else ""


def _verify(path: Path, expected: str, url: str) -> str:
    found = fingerprints.of_file(path, digits=64)
    if not found.startswith(expected.lower()):
        path.unlink()
        raise UserError(
            f"{url} has the SHA-256 {found[:16]}..., not {expected[:16]}... as published; it was "
            "deleted. Run the same command again, and do not use the file if that happens twice."
        )
    return found
