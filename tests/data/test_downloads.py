import errno
import hashlib
import io
import socket
import tarfile
from pathlib import Path

import pytest
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
def no_retries(monkeypatch):
    monkeypatch.setattr(downloads, "_RETRY_SECONDS", ())


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


def test_a_broken_connection_is_taken_up_where_it_stopped(tmp_path, site):
    site.broken_off_after = [100_000, 50_000]

    assert downloaded(tmp_path, site) == CONTENT
    assert site.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert site.requests[1]["If-Range"] == '"first"'


def test_attempts_that_bring_the_file_forward_are_not_counted(tmp_path, site):
    site.broken_off_after = [20_000] * 10

    assert downloaded(tmp_path, site) == CONTENT


@pytest.mark.usefixtures("no_retries")
def test_a_later_call_resumes(tmp_path, site):
    site.broken_off_after = [100_000]
    with pytest.raises(InputError, match="broke off after 100,000 bytes") as caught:
        downloaded(tmp_path, site)
    assert "it resumes there" in str(caught.value)

    assert downloaded(tmp_path, site) == CONTENT
    assert site.ranges == [None, "bytes=100000-"]


def test_the_date_of_a_file_serves_where_it_has_no_tag(tmp_path, site):
    site.etag, site.last_modified = 'W/"weak"', "Wed, 01 Jan 2025 00:00:00 GMT"
    site.broken_off_after = [100_000]

    assert downloaded(tmp_path, site) == CONTENT
    assert site.requests[1]["If-Range"] == site.last_modified


def test_without_tag_and_date_a_download_starts_anew(tmp_path, site):
    site.etag = None
    site.broken_off_after = [100_000]

    assert downloaded(tmp_path, site) == CONTENT
    assert site.ranges == [None, None]


def test_without_range_support_a_download_starts_anew(tmp_path, site):
    site.supports_ranges = False
    site.broken_off_after = [100_000]

    assert downloaded(tmp_path, site) == CONTENT
    assert site.ranges == [None, "bytes=100000-"]


@pytest.mark.usefixtures("no_retries")
def test_a_file_that_changed_in_between_is_not_mixed(tmp_path, site):
    site.broken_off_after = [100_000]
    with pytest.raises(InputError):
        downloaded(tmp_path, site)
    site.content = CONTENT[:512] + bytes(len(CONTENT) - 512)
    site.etag = '"second"'

    assert downloaded(tmp_path, site) == site.content


@pytest.mark.usefixtures("no_retries")
def test_a_part_of_another_url_is_not_resumed(tmp_path, site):
    site.broken_off_after = [100_000]
    with pytest.raises(InputError):
        download_archive(f"{site.address}/other.tar", tmp_path / "archive")

    assert downloaded(tmp_path, site) == CONTENT
    assert site.ranges == [None, None]


@pytest.mark.usefixtures("no_retries")
def test_a_part_that_was_complete_needs_no_request(tmp_path, site):
    site.content = CONTENT + b"x"
    site.broken_off_after = [len(CONTENT)]
    with pytest.raises(InputError):
        downloaded(tmp_path, site)
    site.requests.clear()

    expected = Expectation(sha256=SHA256, size=len(CONTENT))
    assert downloaded(tmp_path, site, expected) == CONTENT
    assert site.requests == []


@pytest.mark.usefixtures("no_retries")
def test_a_part_larger_than_the_file_is_dropped(tmp_path, site, monkeypatch):
    site.content = CONTENT + bytes(100)
    site.broken_off_after = [len(CONTENT) + 50]
    with pytest.raises(InputError):
        downloaded(tmp_path, site)
    site.content = CONTENT
    monkeypatch.setattr(downloads, "_RETRY_SECONDS", (0.0,))

    assert downloaded(tmp_path, site) == CONTENT
    assert site.ranges == [None, f"bytes={len(CONTENT) + 50}-", None]


def test_another_range_than_asked_for_is_not_used(tmp_path, site):
    site.broken_off_after = [100_000]
    site.range_offset = 1

    assert downloaded(tmp_path, site) == CONTENT
    assert site.ranges == [None, "bytes=100000-", None]


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

    message = refused(tmp_path, site, Expectation(most_bytes=len(CONTENT) - 1))
    assert "--max-extracted-size" in message
    assert downloaded(tmp_path, site, Expectation(most_bytes=len(CONTENT))) == CONTENT


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


@pytest.mark.usefixtures("no_retries")
def test_a_web_page_does_not_take_the_place_of_what_is_there(tmp_path, site):
    site.broken_off_after = [100_000]
    with pytest.raises(InputError):
        downloaded(tmp_path, site)
    site.content, site.etag = b"<html>" * 999, '"login"'
    with pytest.raises(InputError, match="a web page"):
        downloaded(tmp_path, site)
    site.content, site.etag = CONTENT, '"first"'

    assert downloaded(tmp_path, site) == CONTENT
    assert site.ranges[-1] == "bytes=100000-"


def test_redirects_are_followed_with_the_range(tmp_path, site):
    site.redirects = {"/flowers.tar": "/real%20flowers.tar"}
    site.broken_off_after = [100_000]

    assert downloaded(tmp_path, site) == CONTENT
    assert site.ranges == [None, None, "bytes=100000-", "bytes=100000-"]


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
        ("http://host:port/x", "no valid URL"),
        ("http://[::1/x", "no valid URL"),
        ("http://a b/x.tgz", "no valid URL"),
        (f"http://{'ü' * 64}.org/x", "no valid URL"),
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
        return FullDisk() if "a" in mode else real_open(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left") as caught:
        download_archive(f"{site.address}/flowers.tar", tmp_path / "archive")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.endswith("archive.part")
    assert not list(tmp_path.iterdir())


def test_an_interruption_keeps_what_can_be_resumed(tmp_path, site):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_archive(
            f"{site.address}/flowers.tar", tmp_path / "archive", progress=interrupt
        )
    assert not (tmp_path / "archive").exists()

    assert downloaded(tmp_path, site) == CONTENT
    assert site.ranges[-1] is not None
