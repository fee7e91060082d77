"""A web server on the loopback interface that can be told to misbehave."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server answers, and what it was asked."""

    content: bytes = b""
    content_type: str = "application/octet-stream"
    sends_length: bool = True
    # The first answers carry so many bytes of content, then the connection is closed.
    broken_off_after: list[int] = field(default_factory=list)
    # The first answers have these status codes and no content.
    statuses: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    requests: list[Message] = field(default_factory=list)
    address: str = ""


@contextlib.contextmanager
def serving() -> Iterator[Site]:
    site = Site()

    class Handler(_Handler):
        pass

    Handler.site = site
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        site.requests.append(self.headers)
        if self.path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[self.path])
            self.end_headers()
        elif site.statuses:
            self.send_response(site.statuses.pop(0))
            self.end_headers()
        else:
            self._send_content()

    def _send_content(self) -> None:
        site = self.site
        content = site.content
        self.send_response(200)
        self.send_header("Content-Type", site.content_type)
        if site.sends_length:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if site.broken_off_after:
            content = content[: site.broken_off_after.pop(0)]
        # The client hangs up as soon as it has seen enough.
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
