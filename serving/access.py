"""Who may use the server, and what a browser may do with its pages."""

import hmac
import ipaddress
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI starts with a script, and has styles, in the page.
_OF_DOCS = _STRICT.replace(
    "script-src 'self'", "script-src 'self' 'unsafe-inline'"
).replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
_PROTECTED = ("/v1/", "/metrics")


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches a server at this address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Gate:
    """Checks the token and the name of the host, and adds headers to every answer.

    Args:
        app: What answers the requests that pass.
        token: What clients of the API must send as `Authorization: Bearer TOKEN`;
            `None` for nothing.
        loopback_only: Whether to answer only requests to a name of this machine. A web
            page elsewhere could otherwise reach the server through a name that it
            points to 127.0.0.1.
        count: Called with the path and the status of every answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str | None,
        loopback_only: bool,
        count: Callable[[str, int], None],
    ) -> None:
        self._app = app
        self._token = token
        self._loopback_only = loopback_only
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(MutableHeaders(scope=message), path)
                self._count(path, message["status"])
            await send(message)

        refusal = self._refuse(path, Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refuse(self, path: str, headers: Headers) -> JSONResponse | None:
        if self._loopback_only and not is_loopback(_name_of(headers.get("host", ""))):
            return JSONResponse({"detail": "Unknown host name."}, 421)
        if self._token is None or not path.startswith(_PROTECTED):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        expected = self._token.encode()
        if scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), expected
        ):
            return None
        return JSONResponse(
            {"detail": "This server needs a token: `Authorization: Bearer TOKEN`."},
            401,
            {"WWW-Authenticate": "Bearer"},
        )


def _name_of(host: str) -> str:
    """Returns a Host header without its port."""
    if host.startswith("["):
        return host.partition("]")[0].removeprefix("[")
    return host.partition(":")[0]


def _add_headers(headers: MutableHeaders, path: str) -> None:
    headers["Content-Security-Policy"] = _OF_DOCS if path == "/docs" else _STRICT
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers.setdefault("Cache-Control", "no-store")
