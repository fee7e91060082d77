"""How many images per second `keras-flowers serve` classifies, and how fast.

    python benchmarks/serving.py EXPORTED PHOTOS [--clients 8] [--seconds 60]

First, in turn, one client that waits for each answer, and several clients at once. Then
the clients again, with one request in ten hostile: text, cut files, decompression
bombs, forms that are too large or end early. Prints images/s, the ratio to one request
at a time, p50 and p95 of the latency, the CPU time of the server per image, and its
memory. An answer that is not the intended one ends the program with an error.
"""

import argparse
import contextlib
import http.client
import os
import random
import re
import socket
import statistics
import subprocess
import threading
import time
import zlib
from pathlib import Path

from common import KERAS_FLOWERS, machine

ROUNDS = 3
BOUNDARY = b"keras-flowers"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exported", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    print(machine())
    paths = sorted(options.photos.rglob("*.jpg"))
    photos = [p.read_bytes() for p in random.Random(0).sample(paths, 200)]
    good = [(form(photo), 200) for photo in photos]
    hostile = [
        (form(b"no image"), 415),
        (form(photos[0][: len(photos[0]) // 2]), 422),
        (form(bomb()), 413),
        (form(bytes(60_000_000)), 413),
        (form(photos[0])[:-300], 400),
        (None, None),
    ]
    server = subprocess.Popen(
        [KERAS_FLOWERS, "serve", os.fspath(options.exported), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        found = re.search(r":(\d+) ", server.stdout.readline())
        assert found
        port = int(found[1])
        load(port, good, 2, 2.0)
        single, several = [], []
        for _ in range(ROUNDS):
            single.append(load(port, good, 1, options.seconds / 12))
            several.append(load(port, good, options.clients, options.seconds / 12))
        mixed = load(port, good, options.clients, options.seconds, hostile)
        names = f"{'images/s':>9}{'ratio':>7}{'p50 ms':>8}{'p95 ms':>8}{'CPU ms':>8}"
        print(f"\n{'':26}{names}")
        show("one request at a time", single, single)
        show(f"{options.clients} clients", several, single)
        show(f"{options.clients} clients, 10 % hostile", [mixed], single)
        batches = metric(port, "keras_flowers_batch_size_count")
        images = metric(port, "keras_flowers_batch_size_sum")
        resident = metric(port, "process_resident_memory_bytes") / 1e6
        print(f"\n{images / batches:.1f} images per batch, {resident:.0f} MB in memory")
    finally:
        server.terminate()
        print(f"exit code after SIGTERM: {server.wait(60)}")


class Measurement:
    """What clients saw in some seconds."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.refused = 0
        self.unexpected: list[str] = []
        self.seconds = 0.0
        self.cpu = 0.0


def load(
    port: int, good: list, clients: int, seconds: float, hostile=()
) -> Measurement:
    """Sends requests from several threads until the time is over."""
    found = Measurement()
    cpu = metric(port, "process_cpu_seconds_total")
    begin = time.perf_counter()
    end = begin + seconds
    threads = [
        threading.Thread(target=ask, args=(port, good, hostile, end, found, seed))
        for seed in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.seconds = time.perf_counter() - begin
    found.cpu = metric(port, "process_cpu_seconds_total") - cpu
    if found.unexpected:
        raise SystemExit(f"unexpected: {found.unexpected[:5]}")
    return found


def ask(port: int, good, hostile, end: float, found: Measurement, seed: int) -> None:
    """Sends one request after the other over one connection."""
    generator = random.Random(seed)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while time.perf_counter() < end:
        is_hostile = bool(hostile) and generator.random() < 0.1
        body, expected = generator.choice(hostile if is_hostile else good)
        if body is None:
            leave_early(port, good[0][0])
            found.refused += 1
            continue
        begin = time.perf_counter()
        status = send(connection, body)
        latency = time.perf_counter() - begin
        if status != expected:
            found.unexpected.append(f"{status} instead of {expected}")
        elif is_hostile:
            found.refused += 1
        else:
            found.latencies.append(latency)
    connection.close()


def send(connection: http.client.HTTPConnection, body: bytes) -> int:
    """Returns the status of the answer."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", "/v1/classify", body, HEADERS)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def leave_early(port: int, body: bytes) -> None:
    """Sends half a request and hangs up."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        headers = {"Host": "localhost", "Content-Length": len(body), **HEADERS}
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(["POST /v1/classify HTTP/1.1", *lines, "", ""])
        connection.sendall(head.encode() + body[: len(body) // 2])


def form(data: bytes) -> bytes:
    """Returns the body of a multipart form with one file."""
    return b"".join(
        [
            b"--" + BOUNDARY + b"\r\nContent-Disposition: form-data; ",
            b'name="files"; filename="photo.jpg"\r\n\r\n',
            data,
            b"\r\n--" + BOUNDARY + b"--\r\n",
        ]
    )


def bomb() -> bytes:
    """Returns a small PNG file of 900 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)

    header = (30_000).to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    pixels = zlib.compress(bytes(10_000_000))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def metric(port: int, name: str) -> float:
    """Returns a metric of the server."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert found, name
    return float(found[1])


def show(name: str, runs: list[Measurement], reference: list[Measurement]) -> None:
    """Prints the row of one kind of load."""
    latencies = sorted(1000 * value for run in runs for value in run.latencies)
    rate = statistics.median(rate_of(run) for run in runs)
    ratio = rate / statistics.median(rate_of(run) for run in reference)
    cpu = 1000 * sum(run.cpu for run in runs) / len(latencies)
    print(
        f"{name:26}{rate:9.1f}{ratio:7.2f}{statistics.median(latencies):8.1f}"
        f"{latencies[int(0.95 * len(latencies))]:8.1f}{cpu:8.1f}"
    )
    refused = sum(run.refused for run in runs)
    if refused:
        print(f"{'':26}{refused} hostile requests, all refused as intended")


def rate_of(run: Measurement) -> float:
    """Returns the images per second."""
    return len(run.latencies) / run.seconds


if __name__ == "__main__":
    main()
