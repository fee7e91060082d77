"""Downloads one file over http or https, resuming where a connection broke off."""

import contextlib
import hashlib
import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from keras_flowers.data.archives import ARCHIVE_SUFFIXES, HEAD_BYTES, archive_kind
from keras_flowers.errors import InputError
from keras_flowers.version import __version__

_TIMEOUT_SECONDS = 30.0
# The pauses before a new attempt. Attempts that bring the file forward are not counted.
_RETRY_SECONDS = (0.5, 1.0, 2.0)
_CHUNK_BYTES = 2**16
_PASSING_STATUS = frozenset({408, 416, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Expectation:
    """What is known of a file before it is downloaded.

    Attributes:
        sha256: The checksum in lower-case hexadecimal digits, or None if unknown.
        size: The size in bytes, or None if unknown.
        most_bytes: The size in bytes from which the download is refused, or None.
    """

    sha256: str | None = None
    size: int | None = None
    most_bytes: int | None = None


NOTHING_EXPECTED = Expectation()


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's content, in lower-case hexadecimal digits.

    Raises:
        OSError: `path` cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_web_address(url: str) -> None:
    """Checks that a URL can be downloaded from.

    Raises:
        InputError: `url` is neither http nor https, names no host, or holds a password.
    """
    if not url.isprintable():
        raise InputError(f"A URL must not hold control characters. Received: {url!r}")
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{url!r} is no valid URL: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise InputError(
            "A URL must begin with http:// or https://. "
            f"Received: {parts.scheme}:// in {url!r}"
        )
    if parts.username is not None or parts.password is not None:
        # Not quoted in the message: it would end up in logs.
        raise InputError(
            "A URL must not hold a user name or password. Received one for the host "
            f"{host!r}"
        )
    if not host:
        raise InputError(f"A URL must name a host. Received: {url!r}")


def download_archive(
    url: str,
    destination: Path,
    expected: Expectation = NOTHING_EXPECTED,
    progress: Callable[[int, int | None], None] | None = None,
) -> str:
    """Downloads an archive to `destination`, which appears when it is complete.

    Until then the bytes stand in `<destination>.part`. A later call resumes there if
    the server still has the same file, as its `ETag` or `Last-Modified` tells (a
    conditional range request, RFC 9110, 13.1.5), and starts anew otherwise. A broken
    connection is taken up again a few times within one call.

    One process at a time may download to the same destination.

    Args:
        url: An http or https URL.
        destination: The file to write; its folder must exist.
        expected: What the file must be.
        progress: Called as `progress(done, total)`, in bytes. `total` is None if the
            server does not tell.

    Returns:
        The SHA-256 of the file, in hexadecimal digits.

    Raises:
        InputError: `url` cannot be downloaded from, does not answer, answers with an
            error or with something that is no archive, or the file is not what was
            expected.
        OSError: The disk is full or fails; nothing is left behind then.
    """
    require_web_address(url)
    part = _Part(destination)
    attempts_left = len(_RETRY_SECONDS)
    furthest = part.size()
    while True:
        try:
            _fetch(url, part, expected, progress)
            break
        except _BrokenOffError as error:
            if part.size() > furthest:
                furthest = part.size()
                attempts_left = len(_RETRY_SECONDS)
            if attempts_left == 0:
                raise InputError(_gave_up(url, part, error)) from error
            time.sleep(_RETRY_SECONDS[-attempts_left])
            attempts_left -= 1
    digest = sha256_of_file(part.path)
    if expected.sha256 is not None and digest != expected.sha256:
        part.remove()
        raise InputError(
            f"The file at {url} has a wrong checksum and was not used. "
            f"Expected SHA-256: {expected.sha256}. Received: {digest}"
        )
    part.path.replace(destination)
    part.remove()
    return digest


class _BrokenOffError(Exception):
    """An attempt ended before the file was complete; another may succeed."""


class _Part:
    """The file that a download grows in, and the note which version of what it is."""

    def __init__(self, destination: Path) -> None:
        self.path = destination.with_name(destination.name + ".part")
        self._note = destination.with_name(destination.name + ".part.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self, url: str) -> str | None:
        """What identifies the version begun, or None if it cannot be resumed."""
        if self.size() == 0:
            return None
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            validator = note["validator"] if note["url"] == url else None
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return validator if isinstance(validator, str) else None

    def restart(self, url: str, headers: Message) -> None:
        """Empties the part for the version of the file that `headers` announce."""
        self.path.write_bytes(b"")
        etag = headers.get("ETag", "")
        # A weak tag names content that is equivalent, not equal.
        validator = etag if etag.startswith('"') else headers.get("Last-Modified")
        note = json.dumps({"url": url, "validator": validator})
        self._note.write_text(note, encoding="utf-8")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _fetch(
    url: str,
    part: _Part,
    expected: Expectation,
    progress: Callable[[int, int | None], None] | None,
) -> None:
    """Brings the part to its end in one request.

    Raises:
        _BrokenOffError: Another request may do better.
    """
    validator = part.validator(url)
    offset = part.size() if validator is not None else 0
    if offset and offset == expected.size:
        return
    headers = {
        "User-Agent": f"keras-flowers/{__version__}",
        "Accept-Encoding": "identity",
    }
    if validator is not None:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    with _answer(url, headers, part) as response:
        if response.status == http.client.PARTIAL_CONTENT:
            total = _total_of_range(response.headers, offset, part)
        else:
            offset, total = 0, _content_length(response.headers)
        if expected.size is not None and total not in (None, expected.size):
            part.remove()
            raise InputError(
                f"The file at {url} has a wrong size and was not used. "
                f"Expected: {expected.size:,} bytes. Received: {total:,} bytes"
            )
        if offset == 0:
            chunk = _received(response, HEAD_BYTES)
            if len(chunk) < min(HEAD_BYTES, total or 0):
                raise _BrokenOffError("the connection was closed")
            _require_archive(url, chunk, response.headers)
            with _removed_if_disk_fails(part):
                part.restart(url, response.headers)
        else:
            chunk = _received(response, _CHUNK_BYTES)
        done = offset
        with _removed_if_disk_fails(part), part.path.open("ab") as file:
            while chunk:
                done += len(chunk)
                _require_below_limit(url, max(done, total or 0), part, expected)
                file.write(chunk)
                if progress is not None:
                    progress(done, total)
                chunk = _received(response, _CHUNK_BYTES)
            file.flush()
            os.fsync(file.fileno())
    if done < (total or expected.size or 0):
        raise _BrokenOffError("the connection was closed")


@contextlib.contextmanager
def _answer(
    url: str, headers: dict[str, str], part: _Part
) -> Iterator[http.client.HTTPResponse]:
    try:
        request = urllib.request.Request(_encoded(url), headers=headers)
        opener = urllib.request.build_opener(_WebRedirects())
        response = opener.open(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        status = f"{error.code} {error.reason}"
        if error.code in _PASSING_STATUS:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.remove()
            raise _BrokenOffError(f"the server answers {status}") from error
        raise InputError(
            f"{url} cannot be downloaded: the server answers {status}"
        ) from error
    except http.client.InvalidURL as error:
        raise InputError(f"{url!r} is no valid URL: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InputError(
                f"{url} cannot be downloaded: its certificate cannot be verified "
                f"({reason.verify_message})"
            ) from error
        raise _BrokenOffError(str(reason) or type(error).__name__) from error
    with response:
        yield response


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            require_web_address(newurl)
        except InputError as error:
            fp.close()
            raise InputError(f"{req.full_url} redirects elsewhere. {error}") from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _encoded(url: str) -> str:
    """The URL in ASCII, as a request carries it; what is quoted already stays."""
    parts = urllib.parse.urlsplit(url)
    try:
        netloc = parts.netloc.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise InputError(f"{url!r} is no valid URL: {error}") from error
    path = urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~")
    query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    return urllib.parse.urlunsplit((parts.scheme, netloc, path, query, ""))


def _content_length(headers: Message) -> int | None:
    length = headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _total_of_range(headers: Message, offset: int, part: _Part) -> int | None:
    found = re.fullmatch(
        r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip()
    )
    if found is None or int(found[1]) != offset:
        part.remove()
        raise _BrokenOffError("the server sent another range than was asked for")
    return None if found[2] == "*" else int(found[2])


def _received(response: http.client.HTTPResponse, count: int) -> bytes:
    try:
        return response.read(count)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(str(error) or type(error).__name__) from error


def _require_archive(url: str, head: bytes, headers: Message) -> None:
    if archive_kind(head) is not None:
        return
    allowed = f"{url} must be the address of an archive ({', '.join(ARCHIVE_SUFFIXES)})"
    if headers.get_content_type() == "text/html" or head.lstrip().startswith(b"<"):
        raise InputError(
            f"{allowed}. Received: a web page; use the link behind its download button"
        )
    received = "something else" if head else "nothing"
    raise InputError(f"{allowed}. Received: {received}")


def _require_below_limit(
    url: str, count: int, part: _Part, expected: Expectation
) -> None:
    if expected.most_bytes is not None and count > expected.most_bytes:
        part.remove()
        raise InputError(
            f"The file at {url} is refused: it has more than "
            f"{expected.most_bytes:,} bytes. If you trust it, pass a higher "
            "`ExtractionLimits(total_bytes=...)`; on the command line "
            "--max-extracted-size"
        )


@contextlib.contextmanager
def _removed_if_disk_fails(part: _Part) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        part.remove()
        if error.filename is None:
            error.filename = os.fspath(part.path)
        raise


def _gave_up(url: str, part: _Part, error: Exception) -> str:
    if part.size() > 0 and part.validator(url) is not None:
        return (
            f"The download of {url} broke off after {part.size():,} bytes ({error}). "
            "Try again: it resumes there"
        )
    return f"{url} cannot be downloaded: {error}. Check the address and the connection"
