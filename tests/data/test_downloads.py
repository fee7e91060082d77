import errno
import hashlib
import io
import socket
import ssl
import tarfile
from pathlib import Path

import pytest
import requests
from loopback_server import Site, serving

from keras_flowers.data import downloads
from keras_flowers.data.downloads import Expectation, download_archive, sha256_of_file
from keras_flowers.errors import InputError


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("flower_photos/daisy/1.jpg")
        info.size = 300_000
        tar.addfile(info, io.BytesIO(bytes(range(250)) * 1200))
    return buffer.getvalue()


CONTENT = _archive()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(downloads, "_RETRY_SECONDS", (0.0, 0.0, 0.0))


@pytest.fixture
def site(monkeypatch):
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    with serving() as site:
        site.content = CONTENT
        yield site


def downloaded(
    tmp_path: Path, site: Site, expected: Expectation | None = None
) -> bytes:
    """Downloads, and checks that the file and nothing else is there."""
    destination = tmp_path / "archive"
    digest = download_archive(
        f"{site.address}/flowers.tar", destination, expected or Expectation()
    )
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
    assert digest == sha256_of_file(destination)
    return destination.read_bytes()


def refused(tmp_path: Path, site: Site, expected: Expectation | None = None) -> str:
    """Checks that a download ends in an error and leaves nothing."""
    with pytest.raises(InputError) as caught:
        downloaded(tmp_path, site, expected)
    assert not list(tmp_path.iterdir())
    assert f"{site.address}/flowers.tar" in str(caught.value)
    return str(caught.value)


def test_a_download_arrives_whole_and_is_followed(tmp_path, site):
    seen: list[tuple[int, int | None]] = []

    digest = download_archive(
        f"{site.address}/flowers.tar",
        tmp_path / "archive",
        Expectation(sha256=SHA256, size=len(CONTENT)),
        progress=lambda *step: seen.append(step),
    )

    assert digest == SHA256
    assert (tmp_path / "archive").read_bytes() == CONTENT
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert site.requests[0]["User-Agent"].startswith("keras-flowers/")


def test_a_broken_connection_is_tried_again(tmp_path, site):
    site.broken_off_after = [100_000, 50_000]

    assert downloaded(tmp_path, site) == CONTENT
    assert len(site.requests) == 3


def test_a_connection_that_always_breaks_is_given_up(tmp_path, site):
    site.broken_off_after = [100_000] * 9

    assert "100000 bytes read" in refused(tmp_path, site)
    assert len(site.requests) == 4


def test_a_file_that_changed_between_attempts_is_not_mixed(tmp_path, site):
    site.broken_off_after = [100_000]
    changed = CONTENT[:512] + bytes(len(CONTENT) - 512)

    def change(done: int, total: int | None) -> None:
        site.content = changed

    digest = download_archive(
        f"{site.address}/flowers.tar", tmp_path / "archive", progress=change
    )
    assert digest == hashlib.sha256(changed).hexdigest()
    assert (tmp_path / "archive").read_bytes() == changed


def test_what_a_killed_process_left_is_replaced(tmp_path, site):
    (tmp_path / "archive.part").write_bytes(bytes(2 * len(CONTENT)))

    assert downloaded(tmp_path, site) == CONTENT


@pytest.mark.parametrize("ending", [0, 3, 511])
def test_an_answer_cut_at_its_beginning_is_asked_for_again(tmp_path, site, ending):
    site.broken_off_after = [ending]

    assert downloaded(tmp_path, site) == CONTENT


def test_a_length_that_is_not_told_is_no_obstacle(tmp_path, site):
    site.sends_length = False
    assert downloaded(tmp_path, site) == CONTENT

    site.broken_off_after = [100_000]
    assert downloaded(tmp_path, site, Expectation(size=len(CONTENT))) == CONTENT


def test_a_wrong_checksum_is_refused_with_both_values(tmp_path, site):
    message = refused(tmp_path, site, Expectation(sha256="0" * 64))

    assert f"Expected SHA-256: {'0' * 64}" in message
    assert f"Received: {SHA256}" in message


def test_a_wrong_size_is_refused_before_it_is_downloaded(tmp_path, site):
    message = refused(tmp_path, site, Expectation(sha256=SHA256, size=77))

    assert "Expected: 77 bytes" in message
    assert f"Received: {len(CONTENT):,} bytes" in message


@pytest.mark.parametrize("sends_length", [True, False])
def test_too_large_a_file_is_refused(tmp_path, site, sends_length):
    site.sends_length = sends_length

    message = refused(tmp_path, site, Expectation(max_bytes=len(CONTENT) - 1))
    assert "--max-extracted-size" in message
    assert downloaded(tmp_path, site, Expectation(max_bytes=len(CONTENT))) == CONTENT


@pytest.mark.parametrize("status", [404, 403, 410])
def test_an_error_of_the_server_is_told_at_once(tmp_path, site, status):
    site.statuses = [status] * 9

    assert f"answers {status}" in refused(tmp_path, site)
    assert len(site.requests) == 1


def test_a_busy_server_is_asked_again(tmp_path, site):
    site.statuses = [503, 429]

    assert downloaded(tmp_path, site) == CONTENT


def test_a_server_that_stays_broken_is_given_up(tmp_path, site):
    site.statuses = [500] * 9

    assert "answers 500" in refused(tmp_path, site)
    assert len(site.requests) == 4


def test_no_answer_is_told(tmp_path, site):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        site.address = f"http://127.0.0.1:{unused.getsockname()[1]}"

        assert "Connection refused" in refused(tmp_path, site)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"please log in" * 99, "text/html; charset=utf-8"),
        (b"\n<!DOCTYPE html><html>" * 99, "application/octet-stream"),
    ],
)
def test_a_web_page_is_no_archive(tmp_path, site, content, content_type):
    site.content, site.content_type = content, content_type

    assert "Received: a web page" in refused(tmp_path, site)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0" * 999])
def test_other_content_is_no_archive(tmp_path, site, content):
    site.content = content

    assert "must be the address of an archive" in refused(tmp_path, site)


def test_an_archive_with_a_wrong_type_is_accepted(tmp_path, site):
    site.content_type = "text/html"

    assert downloaded(tmp_path, site) == CONTENT


def test_a_failed_download_keeps_the_file_that_is_there(tmp_path, site):
    (tmp_path / "archive").write_bytes(b"earlier")
    site.content = b"<html>" * 999

    with pytest.raises(InputError, match="a web page"):
        download_archive(f"{site.address}/flowers.tar", tmp_path / "archive")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
    assert (tmp_path / "archive").read_bytes() == b"earlier"


def test_redirects_are_followed(tmp_path, site):
    site.redirects = {"/flowers.tar": "/real%20flowers.tar"}

    assert downloaded(tmp_path, site) == CONTENT
    assert len(site.requests) == 2


def test_redirects_in_a_circle_end(tmp_path, site):
    site.redirects = {"/flowers.tar": "/flowers.tar"}

    assert "redirects" in refused(tmp_path, site)


def test_a_certificate_that_cannot_be_verified_is_named_at_once(tmp_path, monkeypatch):
    attempts = []

    def fail(url: str, **_: object) -> None:
        attempts.append(url)
        cause = ssl.SSLCertVerificationError()
        cause.verify_message = "self-signed certificate"
        raise requests.exceptions.SSLError from cause

    monkeypatch.setattr(requests, "get", fail)
    with pytest.raises(InputError, match=r"cannot be verified \(self-signed"):
        download_archive("https://127.0.0.1/flowers.tar", tmp_path / "archive")
    assert len(attempts) == 1


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x.tar", "data:,x", "//a:b@c/x"]
)
def test_redirects_elsewhere_are_refused(tmp_path, site, target):
    site.redirects = {"/flowers.tar": target}

    refused(tmp_path, site)
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://host/x.tgz", "must begin with http"),
        ("file:///etc/passwd", "must begin with http"),
        ("http://", "must name a host"),
        ("http://host:port/x", "not a valid URL"),
        ("http://[::1/x", "not a valid URL"),
        ("http://a b/x.tgz", "not a valid URL"),
        (f"http://{'ü' * 64}.org/x", "not a valid URL"),
        ("http://host/\x1b[2J", "control characters"),
        ("https://user:secret@host/x.tgz", "user name or password"),
    ],
)
def test_impossible_urls_are_refused(tmp_path, url, reason):
    with pytest.raises(InputError, match=reason) as caught:
        download_archive(url, tmp_path / "archive")
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_urls_are_encoded_for_the_request(tmp_path, site):
    site.redirects = {"/bl%C3%BCte%20rot%2F.tar?x=%C3%BC&y=1": "/flowers.tar"}

    url = f"{site.address}/blüte rot%2F.tar?x=ü&y=1#part"
    assert download_archive(url, tmp_path / "archive") == SHA256
    assert len(site.requests) == 2


def test_a_full_disk_is_told_with_its_path_and_leaves_nothing(
    tmp_path, site, monkeypatch
):
    real_open = Path.open

    class FullDisk(io.BytesIO):
        def write(self, *_):
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(path, mode="r", *rest, **options):
        return FullDisk() if "w" in mode else real_open(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left") as caught:
        download_archive(f"{site.address}/flowers.tar", tmp_path / "archive")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.endswith("archive.part")
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_nothing(tmp_path, site):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_archive(
            f"{site.address}/flowers.tar", tmp_path / "archive", progress=interrupt
        )
    assert list(tmp_path.iterdir()) == []
