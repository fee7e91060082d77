"""Downloads one archive over http or https."""

import hashlib
import itertools
import os
import ssl
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from keras_flowers.data.archives import ARCHIVE_SUFFIXES, HEAD_BYTES, archive_kind
from keras_flowers.errors import InputError
from keras_flowers.version import __version__

_HEADERS = {
    "User-Agent": f"keras-flowers/{__version__}",
    "Accept-Encoding": "identity",
}
_TIMEOUT_SECONDS = 30.0
# The pauses before another attempt.
_RETRY_SECONDS = (0.5, 1.0, 2.0)
_CHUNK_BYTES = 2**16
_Progress = Callable[[int, int | None], None] | None
_TEMPORARY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Expectation:
    """What is known about a file before it is downloaded.

    Attributes:
        sha256: The checksum in lower-case hexadecimal digits, or None if unknown.
        size: The size in bytes, or None if unknown.
        max_bytes: The maximum size in bytes, or None for any size.
    """

    sha256: str | None = None
    size: int | None = None
    max_bytes: int | None = None


NOTHING_EXPECTED = Expectation()


def sha256_of_file(path: Path) -> str:
    """Returns the SHA-256 of a file's content, in lower-case hexadecimal digits.

    Raises:
        OSError: If `path` cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_url(url: str) -> None:
    """Checks that a URL can be downloaded from.

    Raises:
        InputError: If `url` is not http or https, names no host, or has a user name or
            a password.
    """
    if not url.isprintable():
        raise InputError(f"A URL must not have control characters. Received: {url!r}")
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{url!r} is not a valid URL: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise InputError(
            "A URL must begin with http:// or https://. "
            f"Received: {parts.scheme}:// in {url!r}"
        )
    if parts.username is not None or parts.password is not None:
        # Not quoted in the message, which may end up in a log.
        raise InputError(
            "A URL must not have a user name or password. Received one for the host "
            f"{host!r}"
        )
    if not host:
        raise InputError(f"A URL must name a host. Received: {url!r}")


def download_archive(
    url: str,
    destination: Path,
    expected: Expectation = NOTHING_EXPECTED,
    progress: _Progress = None,
) -> str:
    """Downloads an archive to `destination`, which appears when it is complete.

    A download that fails for a reason that may pass, such as a lost connection, is
    tried again a few times. Only one process at a time may download to a destination.

    Args:
        url: An http or https URL.
        destination: The file to write. Its folder must exist.
        expected: What the file must be.
        progress: Called as `progress(done, total)`, in bytes. `total` is None if the
            server does not send it.

    Returns:
        The SHA-256 of the file, in lower-case hexadecimal digits.

    Raises:
        InputError: If `url` cannot be downloaded from, does not lead to an archive, or
            the file is not as expected.
        OSError: If the disk is full or fails. No partial file is left.
    """
    check_url(url)
    part = destination.with_name(destination.name + ".part")
    try:
        digest = _fetch(url, part, expected, progress)
        if expected.sha256 not in (None, digest):
            raise InputError(
                f"The file at {url} has a wrong checksum and was not used. "
                f"Expected SHA-256: {expected.sha256}. Received: {digest}"
            )
        part.replace(destination)
    except OSError as error:
        error.filename = error.filename or os.fspath(part)
        raise
    finally:
        part.unlink(missing_ok=True)
    return digest


class _TemporaryError(Exception):
    """An attempt failed for a reason that may pass."""


_TEMPORARY_ERRORS = (
    _TemporaryError,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


def _fetch(url: str, part: Path, expected: Expectation, progress: _Progress) -> str:
    """Downloads to `part`, in several attempts if necessary; returns the SHA-256."""
    for pause in (*_RETRY_SECONDS, None):
        try:
            with requests.get(
                url,
                headers=_HEADERS,
                timeout=_TIMEOUT_SECONDS,
                stream=True,
                hooks={"response": _check_redirect},
            ) as response:
                return _save(response, url, part, expected, progress)
        except requests.exceptions.InvalidURL as error:
            raise InputError(f"{url!r} is not a valid URL: {error}") from error
        except (_TemporaryError, requests.RequestException) as error:
            reason = _find_cause(error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise InputError(
                    f"{url} cannot be downloaded: its certificate cannot be verified "
                    f"({reason.verify_message})"
                ) from error
            if pause is None or not isinstance(error, _TEMPORARY_ERRORS):
                raise InputError(
                    f"{url} cannot be downloaded: {reason or type(reason).__name__}. "
                    "Check the address and the connection"
                ) from error
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _save(
    response: requests.Response,
    url: str,
    part: Path,
    expected: Expectation,
    progress: _Progress,
) -> str:
    """Writes the body of a response to `part`; returns its SHA-256."""
    status = f"the server answers {response.status_code} {response.reason}"
    if response.status_code in _TEMPORARY_STATUS:
        raise _TemporaryError(status)
    if not response.ok:
        raise InputError(f"{url} cannot be downloaded: {status}")
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    if expected.size is not None and total not in (None, expected.size):
        raise InputError(
            f"The file at {url} has a wrong size and was not used. "
            f"Expected: {expected.size:,} bytes. Received: {total:,} bytes"
        )
    chunks = response.iter_content(_CHUNK_BYTES)
    head = next(chunks, b"")
    if len(head) < min(HEAD_BYTES, total or 0):
        raise _TemporaryError("the connection was closed")
    _check_archive(url, head, response.headers.get("Content-Type", ""))
    done, digest = 0, hashlib.sha256()
    with part.open("wb") as file:
        for chunk in itertools.chain([head], chunks):
            done += len(chunk)
            if (
                expected.max_bytes is not None
                and max(done, total or 0) > expected.max_bytes
            ):
                raise InputError(
                    f"The file at {url} has more than {expected.max_bytes:,} bytes and "
                    "was not used. If you trust it, pass a higher "
                    "`ExtractionLimits(total_bytes=...)`; on the command line "
                    "--max-extracted-size"
                )
            digest.update(chunk)
            file.write(chunk)
            if progress is not None:
                progress(done, total)
        file.flush()
        os.fsync(file.fileno())
    if done < (total or expected.size or 0):
        raise _TemporaryError("the connection was closed")
    return digest.hexdigest()


def _check_redirect(response: requests.Response, **_: Any) -> None:
    if response.is_redirect:
        try:
            check_url(urllib.parse.urljoin(response.url, response.headers["Location"]))
        except InputError as error:
            response.close()
            raise InputError(f"{response.url} redirects elsewhere. {error}") from error


def _check_archive(url: str, head: bytes, content_type: str) -> None:
    if archive_kind(head) is None:
        if content_type.startswith("text/html") or head.lstrip().startswith(b"<"):
            received = "a web page; use the link behind its download button"
        else:
            received = "something else" if head else "nothing"
        raise InputError(
            f"{url} must be the address of an archive ({', '.join(ARCHIVE_SUFFIXES)}). "
            f"Received: {received}"
        )


def _find_cause(error: BaseException) -> BaseException:
    # The messages of requests and urllib3 are chains of representations.
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
