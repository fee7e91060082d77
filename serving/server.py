"""Runs the application until a signal ends it, and drops clients that stall."""

import asyncio
import logging
import signal
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from keras_flowers_runtime.errors import InputError
from keras_flowers_serving.limits import Limits
from uvicorn.protocols.http.h11_impl import H11Protocol

_DRAIN_SECONDS = 30
_HEADER_SECONDS = 15.0
_WRITE_SECONDS = 30.0
_TIMEOUT = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class _ImpatientProtocol(H11Protocol):
    """HTTP with the time limits that uvicorn does not have.

    A client must send the head of its first request, and after an answer that of the
    next one or the rest of a body that nobody wants, within some seconds, and must
    take an answer within some more. Reading the body has its limits in `uploads`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        self._wait_for_request()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(_WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def _wait_for_request(self) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(_HEADER_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            if self.conn.trailing_data[0]:
                self.transport.write(_TIMEOUT)
            self.transport.close()


def open_socket(host: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Args:
        host: A name or an address of this machine.
        port: 0 for any free one.

    Raises:
        InputError: If the address or the port cannot be used.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(
            (address[0], port), family=family, backlog=Limits.connections
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"The server cannot listen at {host}, port {port}: {reason}"
        ) from error


def run_server(app: FastAPI, listener: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what is running.

    New connections are refused at once; requests that have begun have half a minute. A
    second Ctrl-C ends the server without waiting.

    Args:
        app: What `create_app` returned.
        listener: What `open_socket` returned; closed at the end.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=_ImpatientProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=Limits.connections,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
    )
    # uvicorn raises the signal again once it has stopped. That is the end here.
    before = {
        number: signal.signal(number, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
