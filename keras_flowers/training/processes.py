"""The processes of one training, on one or several machines.

Keras's own environment variables say which processes there are:

- `KERAS_DISTRIBUTION_JOB_ADDRESSES`: `HOST:PORT` of process 0, or of all processes,
  separated by commas.
- `KERAS_DISTRIBUTION_NUM_PROCESSES`: how many there are.
- `KERAS_DISTRIBUTION_PROCESS_ID`: the number of this one, from 0.

The processes meet at the address of process 0 before JAX starts there. Each keeps its
connection to process 0 for as long as the training runs. It carries the few things that
all must know, and it ends when a process does: JAX itself would wait for minutes.
"""

import atexit
import contextlib
import dataclasses
import importlib
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import keras

from keras_flowers.errors import InputError, first_line

ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
COUNT = "KERAS_DISTRIBUTION_NUM_PROCESSES"
NUMBER = "KERAS_DISTRIBUTION_PROCESS_ID"
DEFAULT_JOIN_TIMEOUT = 300

_NO_PROXY = "no_grpc_proxy"
_RETRY_SECONDS = 0.2
_HEARTBEAT_SECONDS = 5.0
# A machine that loses its power closes no connection.
_SILENCE_SECONDS = 30.0
# For the thread that trains, which may wait for a process that is gone.
_GRACE_SECONDS = 10.0
_EXIT_LOST = 1

# What a message is; its length follows, in 8 bytes.
_DATA, _HEARTBEAT, _FAILURE, _GOODBYE = b"D", b"H", b"F", b"G"


# The team of this process, once it has joined: JAX starts once.
_teams: list["Team"] = []


class ProcessLostError(RuntimeError):
    """Raised when another process of the training failed or is gone."""


@dataclasses.dataclass(frozen=True)
class ProcessSettings:
    """Which process this is.

    Attributes:
        host: Host of process 0.
        port: Port of process 0.
        count: Number of processes.
        number: Number of this process, from 0.
    """

    host: str
    port: int
    count: int
    number: int

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """Reads the environment variables; returns `None` for a single process.

        Raises:
            InputError: If only some of them are set, or one cannot be used.
        """
        names = (ADDRESSES, COUNT, NUMBER)
        given = [name for name in names if environment.get(name)]
        if not given:
            return None
        if missing := [name for name in names if name not in given]:
            raise InputError(
                f"{', '.join(names)} must be set together. Missing: "
                f"{', '.join(missing)}"
            )
        first = environment[ADDRESSES].split(",")[0].strip()
        host, colon, port = first.rpartition(":")
        numbers = (port, environment[COUNT], environment[NUMBER])
        if not (host and colon and all(number.isdecimal() for number in numbers)):
            raise InputError(
                f"{ADDRESSES} must be HOST:PORT, {COUNT} and {NUMBER} must be "
                f"integers. Received: {first}, {numbers[1]}, {numbers[2]}"
            )
        count, number = int(numbers[1]), int(numbers[2])
        if not number < count:
            raise InputError(
                f"{NUMBER} must be from 0 to {count - 1} for {COUNT}={count}. "
                f"Received: {number}"
            )
        return None if count == 1 else cls(host.strip("[]"), int(port), count, number)


class Team:
    """The connections between the processes of a training.

    Train in a `with` block of it: an error in one process then ends all of them, with a
    sentence that names it. The connections stay open until the process ends, for the
    next training.

    Args:
        settings: Which process this is.
        connections: The socket of each other process by its number; in all processes
            but the first, only that of process 0.

    Attributes:
        number: Number of this process, from 0.
        count: Number of processes.
        clean_up: Called before the process ends because another one is gone.
    """

    def __init__(
        self, settings: ProcessSettings, connections: Mapping[int, socket.socket]
    ) -> None:
        self.number, self.count = settings.number, settings.count
        self.clean_up: Callable[[], object] = lambda: None
        self._connections = dict(connections)
        self._inboxes = {n: queue.Queue[bytes | None]() for n in connections}
        self._failure: str | None = None
        self._has_failed = threading.Event()
        self._is_over = threading.Event()
        self._sending = threading.Lock()
        for number, connection in self._connections.items():
            connection.settimeout(_SILENCE_SECONDS)
            _start_thread(self._receive, number, connection)
        _start_thread(self._send_heartbeats)

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, which writes the run directory."""
        return self.number == 0

    def share(self, content: bytes | None = None) -> bytes:
        """Returns in every process what process 0 has passed.

        Raises:
            ProcessLostError: If a process is gone.
        """
        if not self.is_first:
            return self._take(0)
        assert content is not None
        self._send_to_all(_DATA, content)
        return content

    def gather(self, content: bytes) -> list[bytes]:
        """Returns in every process what each of them has passed, by their numbers.

        Raises:
            ProcessLostError: If a process is gone.
        """
        if not self.is_first:
            self._send(0, _DATA, content)
            return [self.share() for _ in range(self.count)]
        parts = [content, *(self._take(n) for n in sorted(self._connections))]
        return [self.share(part) for part in parts]

    def require_same(self, what: str, text: str) -> None:
        """Makes sure that all processes have passed the same text.

        Args:
            what: What it is, for the message.
            text: The text.

        Raises:
            InputError: In all processes, if one has passed another text.
            ProcessLostError: If a process is gone.
        """
        if self.is_first:
            texts = {n: self._take(n).decode() for n in self._connections}
            other = [number for number, one in texts.items() if one != text]
            self.share(json.dumps(other).encode())
        else:
            self._send(0, _DATA, text.encode())
            other = json.loads(self.share())
        if other:
            numbers = ", ".join(map(str, sorted(other)))
            raise InputError(
                f"All processes must have the same {what}. It differs from that of "
                f"process 0 in: {numbers}"
            )

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Tells the others of an error.

        Raises:
            ProcessLostError: If the error follows from the failure of another process.
        """
        del kind, trace
        if error is None:
            return
        is_own = isinstance(error, InputError | KeyboardInterrupt)
        if not is_own:
            # A step fails before the message arrives that a process is gone.
            self._has_failed.wait(_RETRY_SECONDS)
        failure = self._failure
        self._is_over.set()
        reason = (
            "was interrupted."
            if isinstance(error, KeyboardInterrupt)
            else f"failed: {first_line(error)}"
        )
        sentence = failure or f"{self._name(self.number)} {reason}"
        self._send_to_all(_FAILURE, sentence.encode())
        self._close()
        if failure and not is_own and not isinstance(error, ProcessLostError):
            raise ProcessLostError(failure) from error

    def leave(self) -> None:
        """Says goodbye to the others; called at the end of the process.

        After a failure it ends the process at once: JAX would wait for the others.
        """
        if self._is_over.is_set():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(_EXIT_LOST)
        self._is_over.set()
        self._send_to_all(_GOODBYE)
        self._close()

    def _close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _take(self, number: int) -> bytes:
        content = self._inboxes[number].get()
        if content is None:
            raise ProcessLostError(self._failure or "The training has ended.")
        return content

    def _send(self, number: int, kind: bytes, content: bytes = b"") -> None:
        try:
            with self._sending:
                message = kind + len(content).to_bytes(8, "big") + content
                self._connections[number].sendall(message)
        except OSError as error:
            if kind == _DATA:
                self._fail(f"{self._name(number)} is gone ({error.strerror or error}).")
                raise ProcessLostError(self._failure) from error

    def _send_to_all(self, kind: bytes, content: bytes = b"") -> None:
        for number in self._connections:
            self._send(number, kind, content)

    def _send_heartbeats(self) -> None:
        while not self._is_over.wait(_HEARTBEAT_SECONDS):
            self._send_to_all(_HEARTBEAT)

    def _receive(self, number: int, connection: socket.socket) -> None:
        """Receives the messages of a process, until it ends."""
        try:
            while True:
                kind = _read(connection, 1)
                content = _read(connection, int.from_bytes(_read(connection, 8), "big"))
                if kind == _DATA:
                    self._inboxes[number].put(content)
                elif kind == _FAILURE:
                    self._fail(content.decode())
                    return
                elif kind == _GOODBYE:
                    return
        except TimeoutError:
            reason = f"has been silent for {_SILENCE_SECONDS:.0f} s"
        except (OSError, EOFError):
            reason = "is gone"
        if not self._is_over.is_set():
            self._fail(f"{self._name(number)} {reason}.")

    def _fail(self, sentence: str) -> None:
        """Ends the training of all processes, because one of them is gone."""
        if self._has_failed.is_set():
            return
        self._failure = sentence
        self._has_failed.set()
        if self.is_first:
            self._send_to_all(_FAILURE, sentence.encode())
        for inbox in self._inboxes.values():
            inbox.put(None)
        if self.is_first and self._is_over.wait(_GRACE_SECONDS):
            return  # the thread that trains has noticed, and keeps what can be resumed
        # That thread may wait for the lost process. Without process 0, JAX ends this
        # process within a moment, with a trace that explains nothing.
        sys.stderr.write(f"error: {sentence}\n")
        sys.stderr.flush()
        self.clean_up()
        os._exit(_EXIT_LOST)

    def _name(self, number: int) -> str:
        return f"Process {number} of {self.count}"


def join_processes(timeout: float = DEFAULT_JOIN_TIMEOUT) -> Team | None:
    """Joins the processes that the environment variables name, and starts JAX for them.

    Call it before anything is computed.

    Args:
        timeout: Seconds to wait until all processes are there.

    Returns:
        The connections, or `None` for a single process.

    Raises:
        InputError: If the environment variables cannot be used, the backend is not JAX,
            JAX has been used already, or a process does not come in time.
    """
    settings = ProcessSettings.read()
    if settings is None:
        return None
    if _teams:
        return _teams[0]
    if keras.backend.backend() != "jax":
        raise InputError(
            f"{COUNT}={settings.count} needs the JAX backend: set KERAS_BACKEND=jax. "
            "Several processes do not work on TensorFlow, whose "
            "MultiWorkerMirroredStrategy Keras 3 does not support. "
            f"Received: the {keras.backend.backend()} backend"
        )
    jax = importlib.import_module("jax")
    if jax.distributed.is_initialized():
        raise InputError(
            "`train` joins the processes itself. Do not call "
            "`keras.distribution.initialize` or `jax.distributed.initialize` before."
        )
    end = time.monotonic() + timeout
    connections = (_wait_for_others if settings.number == 0 else _connect)(
        settings, timeout, end
    )
    _exclude_from_proxies(settings.host)
    # JAX would catch SIGTERM, which ends a job, and go on.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            f"{settings.host}:{settings.port}",
            settings.count,
            settings.number,
            initialization_timeout=max(10, int(end - time.monotonic())),
        )
    except RuntimeError as error:
        raise InputError(f"JAX cannot start: {first_line(error)}") from error
    team = Team(settings, connections)
    atexit.register(team.leave)
    _teams.append(team)
    return team


def _wait_for_others(
    settings: ProcessSettings, timeout: float, end: float
) -> dict[int, socket.socket]:
    """Returns the connections of process 0, once all others are there."""
    connections: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as opened, _listen(settings) as server:
        while len(connections) < settings.count - 1:
            server.settimeout(max(0.01, end - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                expected = set(range(1, settings.count))
                missing = ", ".join(map(str, sorted(expected - connections.keys())))
                raise InputError(
                    f"Not all of the {settings.count} processes came to "
                    f"{settings.host}:{settings.port} within {timeout:.0f} s "
                    f"(`join_timeout`). Missing: {missing}"
                ) from None
            opened.callback(connection.close)
            connection.settimeout(_SILENCE_SECONDS)
            try:
                number, count = json.loads(_read(connection, _read(connection, 1)[0]))
            except (OSError, EOFError, ValueError, TypeError):
                connection.close()  # something else has found the port
                continue
            is_known = isinstance(number, int) and 0 < number < settings.count
            if not is_known or count != settings.count or number in connections:
                connection.close()
                continue
            connections[number] = connection
        for connection in connections.values():
            connection.sendall(b"!")
        opened.pop_all()
    return connections


def _connect(
    settings: ProcessSettings, timeout: float, end: float
) -> dict[int, socket.socket]:
    """Returns the connection to process 0, once all others are there."""
    while True:
        connection = None
        try:
            left = end - time.monotonic()
            connection = socket.create_connection((settings.host, settings.port), left)
            greeting = json.dumps([settings.number, settings.count]).encode()
            connection.sendall(bytes([len(greeting)]) + greeting)
            connection.settimeout(max(0.01, end - time.monotonic()))
            _read(connection, 1)
            return {0: connection}
        except (OSError, EOFError, ValueError) as error:
            if connection is not None:
                connection.close()
            if time.monotonic() + _RETRY_SECONDS > end:
                raise InputError(
                    f"Process 0 did not start the training at {settings.host}:"
                    f"{settings.port} within {timeout:.0f} s (`join_timeout`): "
                    f"{first_line(error)}"
                ) from None
        time.sleep(_RETRY_SECONDS)


def _listen(settings: ProcessSettings) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", settings.port), family=socket.AF_INET6, dualstack_ipv6=True
            )
        return socket.create_server(("", settings.port))
    except OSError as error:
        raise InputError(
            f"Process 0 cannot listen on port {settings.port} of {ADDRESSES}: "
            f"{error.strerror}."
        ) from error


def _exclude_from_proxies(host: str) -> None:
    """Lets JAX connect directly: gRPC would ask the proxy of the environment."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return
    excluded = os.environ.get(_NO_PROXY) or os.environ.get("no_proxy", "")
    os.environ[_NO_PROXY] = ",".join(filter(None, (*excluded.split(","), host)))


def _read(connection: socket.socket, size: int) -> bytes:
    """Returns exactly so many bytes."""
    content = bytearray()
    while len(content) < size:
        part = connection.recv(min(size - len(content), 1 << 20))
        if not part:
            raise EOFError
        content += part
    return bytes(content)


def _start_thread(target: Any, *arguments: Any) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()
