"""The server as a process: a person's browser, hostile clients, and its end."""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from browser import console_errors, find_all, open_page, require_browser, wait_for_text
from helpers import COLOURS
from keras_flowers_cli.main import run
from PIL import Image

from keras_flowers import ImageClassifier
from keras_flowers.export import export_model

# Runs the command line, and says at the end which heavy packages it imported.
PROGRAM = """
import sys
from keras_flowers_cli.main import run
code = run(sys.argv[1:])
heavy = {"keras", "tensorflow", "jax", "keras_flowers", "matplotlib", "sklearn"}
print("IMPORTED", sorted(heavy & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""
# Drops a file where a person would: the browser gets the events of a real one.
DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], arguments[1], { type: "image/png" }));
for (const name of ["dragenter", "dragover", "drop"]) {
  document.getElementById("drop").dispatchEvent(
    new DragEvent(name, { dataTransfer: data, bubbles: true, cancelable: true }));
}
"""
PASTE = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
document.dispatchEvent(
  new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
"""
MEGABYTE = bytes(2**20)


def color_model():
    """Returns a classifier whose classes are those of `COLOURS`, without training."""
    model = ImageClassifier(list(COLOURS), image_size=(8, 8), hidden_units=(), seed=1)
    *_, kernel, bias = model.get_weights()
    assert (kernel.shape, bias.shape) == ((192, 3), (3,))
    for label, color in enumerate(COLOURS.values()):
        # The nearest color, as a linear function of the 64 pixels.
        shares = np.array(color) / 255
        kernel[:, label] = np.tile(40 * shares / 64, 64)
        bias[label] = -20 * (shares**2).sum()
    model.set_weights([kernel, bias])
    return model


@contextlib.contextmanager
def serving(folder, *options, environment=None):
    """Starts the server; gives the process and its port."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "serve", folder, "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
    )
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"Serving at http://\S+:(\d+) \(Ctrl-C stops it\)\n", line)
        assert found, line + process.stderr.read()
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


def read(port, path, **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def memory(port):
    found = re.search(
        r"^process_resident_memory_bytes (\S+)$", read(port, "/metrics"), re.MULTILINE
    )
    return float(found[1])


def head(length, kind="multipart/form-data; boundary=b"):
    return (
        f"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def part(name, data):
    return (
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="'
        + name.encode()
        + b'"\r\n\r\n'
        + data
        + b"\r\n"
    )


def connect(port, *pieces):
    """Returns a connection that has sent some bytes."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    for piece in pieces:
        connection.sendall(piece)
    return connection


def status_of(connection):
    """Returns the status of the answer, and closes the connection."""
    with connection, connection.makefile("rb") as file:
        line = file.readline()
    return int(line.split()[1]) if line else None


def ask(port, body):
    """Returns the status of a request that is complete, whatever is in it."""
    connection = connect(port, head(len(body)))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(body)
    return status_of(connection)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "secret-place"
    export_model(color_model(), folder, "onnx")
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "flower.png"
    Image.new("RGB", (60, 40), COLOURS["roses"]).save(path)
    return path


def test_a_person_drops_images_while_hostile_clients_try(exported, image, tmp_path):
    require_browser()
    data = image.read_bytes()
    good = part("a.png", data) + b"--b--\r\n"
    with serving(exported) as (process, port):
        assert ask(port, good) == 200
        before = memory(port)
        # Their time runs while the browser is used.
        stalled = {
            "no request": (connect(port), None),
            "half a head": (connect(port, head(5)[:30]), 408),
            "half a body": (connect(port, head(1000), part("a.png", data)[:200]), 408),
        }
        gone = connect(port, head(1000), part("a.png", data)[:200])
        gone.close()
        with open_page(f"http://127.0.0.1:{port}/", tmp_path) as driver:
            wait_for_text(driver, "3 classes: daisy, roses, tulips", "Drop images here")
            encoded = base64.b64encode(data).decode()
            driver.execute_script(DROP, encoded, "dropped.png")
            wait_for_results(driver, 1)
            shown = wait_for_text(driver, "dropped.png")
            assert driver.find_element("class name", "verdict").text.startswith("roses")
            assert "tulips" in shown
            assert re.search(r"\d+ ms", shown)
            driver.execute_script(PASTE, encoded)
            wait_for_results(driver, 2)
            wait_for_text(driver, "pasted.png")
            (tmp_path / "note.txt").write_text("no image")
            chooser = driver.find_element("id", "choose")
            chooser.send_keys(f"{image}\n{tmp_path / 'note.txt'}")
            wait_for_text(driver, "flower.png", "note.txt", "not an image; use JPEG")
            wait_for_results(driver, 3)
            before_heat = picture_of(driver)
            # With the keyboard alone.
            driver.find_element("class name", "why").send_keys("\n")
            wait_for_text(driver, "Heat map of dropped.png is shown.")
            assert picture_of(driver) != before_heat
            button = driver.find_element("class name", "why")
            assert button.get_attribute("aria-pressed") == "true"
            for element in driver.find_elements("css selector", "#results img"):
                assert element.get_attribute("alt") or not element.is_displayed()
            errors = console_errors(driver)
            assert [error for error in errors if " 415 " not in error] == []
        # A client that is refused early must not get a reset connection instead.
        assert ask(port, part("a.png", MEGABYTE * 60)) == 413
        with connect(port, head(200 * 2**20)) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(200):
                    connection.sendall(MEGABYTE)
            assert status_of(connection) == 413
        assert ask(port, part("a.png", data) * 10_000 + b"--b--\r\n") == 400
        assert ask(port, b"--b\r\nX: " + MEGABYTE) == 400
        assert status_of(connect(port, b"\x16\x03\x01 no HTTP\r\n\r\n")) == 400
        for name, (connection, status) in stalled.items():
            assert status_of(connection) == status, name
        assert ask(port, good) == 200
        assert memory(port) - before < 300e6
        texts = [read(port, p) for p in ("/v1/model", "/metrics", "/openapi.json", "/")]
        assert not any("secret-place" in text for text in texts)
        # What has begun is finished, what is new is refused.
        running = connect(port, head(len(good)), good[:50])
        time.sleep(0.3)
        assert read(port, "/healthz")  # so the server has seen the other one
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: is_refused(port))
        running.sendall(good[50:])
        assert status_of(running) == 200
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors.splitlines()[-1] == "IMPORTED []"
    assert "Traceback" not in errors


def is_refused(port):
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return True
    return False


def wait_for_results(driver, count):
    wait_for(lambda: len(find_all(driver, ".why:not([hidden])")) == count)


def picture_of(driver):
    return driver.find_element("css selector", "#results img").get_attribute("src")


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_page_asks_for_the_token(exported, image, tmp_path):
    require_browser()
    environment = {"KERAS_FLOWERS_TOKEN": "open-sesame"}
    options = ("--host", "0.0.0.0")
    with serving(exported, *options, environment=environment) as (_, port):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            read(port, "/v1/model")
        found = read(port, "/v1/model", Authorization="Bearer open-sesame")
        assert json.loads(found)["class_names"] == list(COLOURS)
        with open_page(f"http://127.0.0.1:{port}/", tmp_path) as driver:
            wait_for_text(driver, "This server needs a token")
            driver.find_element("id", "token").send_keys("wrong-one\n")
            wait_for_text(driver, "This token is not accepted.")
            driver.find_element("id", "token").send_keys("open-sesame\n")
            wait_for(lambda: driver.find_element("id", "drop").is_displayed())
            driver.find_element("id", "choose").send_keys(str(image))
            wait_for_results(driver, 1)
            wait_for_text(driver, "flower.png", "roses")
            driver.get(f"http://127.0.0.1:{port}/docs")
            wait_for_text(driver, "/healthz", "Classify", "Authorize")
            errors = console_errors(driver)
            assert [error for error in errors if " 401 " not in error] == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--host", "0.0.0.0"], "--insecure"),
        (["--host", "192.0.2.7", "--insecure"], "cannot listen at 192.0.2.7"),
        (["--host", "::"], "--token"),
        (["--token", "short"], "at least 8"),
        (["--token", "with a space"], "none of them a space"),
    ],
)
def test_what_cannot_be_served_is_refused(exported, capsys, options, named):
    assert run(["serve", str(exported), "--port", "0", *options]) == 2
    assert named in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(exported, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(["serve", str(exported), "--port", port]) == 2
    assert f"port {port}: Address already in use" in capsys.readouterr().err


def test_missing_packages_are_named(exported, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["serve", str(exported)]) == 2
    error = capsys.readouterr().err
    assert "fastapi" in error
    assert 'pip install "keras-flowers[serve]"' in error


def test_a_keras_model_is_served_with_its_own_heat_maps(
    image, tmp_path, with_heat_maps
):
    """In this process: Keras has started already."""
    from keras_flowers_cli.serve import _load_model
    from keras_flowers_serving import create_app
    from starlette.testclient import TestClient

    model = color_model()
    model.save(tmp_path / "model.keras")
    for path in (tmp_path, tmp_path / "model.keras"):
        app = create_app(_load_model(path))
        with TestClient(app, base_url="http://localhost") as client:
            files = [("files", ("a.png", image.read_bytes()))] * 3
            answer = client.post("/v1/classify?explain=true", files=files).json()
            assert client.get("/v1/model").json()["format"] == "keras"
        (expected,) = model.classify([image])
        for result in answer["results"]:
            assert result["predicted"] == expected.label == "roses"
            assert result["probability"] == pytest.approx(expected.probability)
            assert result["heatmap"]["method"] == "occlusion"
