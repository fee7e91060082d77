"""The application, asked as a client asks it, with a model of a few lines."""

import asyncio
import base64
import dataclasses
import io
import json
import tempfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import draw_images
from keras_flowers_runtime.heat import blend_heat, log_odds_of, occlude, place_heat
from keras_flowers_serving import Limits, ServedModel, create_app
from keras_flowers_serving.access import is_loopback
from keras_flowers_serving.batching import Batcher
from PIL import Image
from starlette.testclient import TestClient

PART = b"""--x\r
Content-Disposition: form-data; name="files"; filename="a.png"\r
\r
content"""
NAMES = ("red", "green", "blue")


def predict(images):
    """The shares of the three colors: what a test can compute in its head."""
    colors = images.astype(np.float64).mean(axis=(1, 2)) + 1e-3
    return (colors / colors.sum(axis=1, keepdims=True)).astype(np.float32)


def explain(image, label):
    heat = np.zeros(image.shape[:2], np.float32)
    heat[0, 0] = 1
    return heat


MODEL = ServedModel(
    class_names=NAMES,
    image_size=(8, 8),
    resize="stretch",
    predict=predict,
    explain=explain,
    method="occlusion",
    format="onnx",
    versions={"keras": "3"},
)


def client_of(model=MODEL, *, host="localhost", **arguments):
    return TestClient(
        create_app(model, **arguments),
        base_url=f"http://{host}",
        raise_server_exceptions=False,
    )


@pytest.fixture(scope="module")
def client():
    with client_of() as client:
        yield client


def png(color, size=(20, 10), **options):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


def bomb():
    """A PNG of 30,000 x 30,000 pixels in 3 MB."""

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)

    header = (30_000).to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    pixels = zlib.compress(bytes(900_030_000 // 8), 1)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", pixels),
            chunk(b"IEND", b""),
        ]
    )


def form(*files):
    return [("files", (name, data)) for name, data in files]


def post(client, *files, **query):
    return client.post("/v1/classify", files=form(*files), params=query)


def picture(url):
    kind, _, text = url.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def test_files_are_classified_in_their_order(client):
    answer = post(
        client,
        ("a.png", png("red")),
        ("C:\\photos\\b.png", png("blue")),
        ("../../etc/c.png", png((0, 200, 0))),
        top=2,
    )
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [one["name"] for one in results] == ["a.png", "b.png", "c.png"]
    assert [one["predicted"] for one in results] == ["red", "blue", "green"]
    for one in results:
        assert one["probability"] == one["top"][0]["probability"] > 0.99
        assert len(one["top"]) == 2
        assert (one["error"], one["unknown"], one["heatmap"]) == (None, None, None)
    assert answer.json()["milliseconds"] > 0


def test_json_is_the_same(client):
    data = base64.b64encode(png("blue")).decode()
    body = {"images": [{"data": data, "name": "x.png"}]}
    url = f"data:image/png;base64,{data}"
    body["images"].append({"data": url, "name": "/etc/a\nb.png"})
    answer = client.post("/v1/classify", json=body)
    assert answer.status_code == 200
    found = [(one["name"], one["predicted"]) for one in answer.json()["results"]]
    assert found == [("x.png", "blue"), ("a\\nb.png", "blue")]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("no json", "Invalid JSON"),
        ("{}", "images: Field required"),
        ('{"images": []}', "at least 1 item"),
        ('{"images": [{"data": "%%%"}]}', "images.0.data: not base64"),
        ('{"images": [{"data": 5}]}', "images.0.data"),
        ('{"images": [{"data": "", "url": "http://x"}]}', "Extra inputs"),
        ("[" * 100_000, "Invalid JSON"),
        (json.dumps({"images": [{"data": ""}] * 65}), "number of files is 64"),
    ],
)
def test_bad_json_is_refused(client, body, named):
    answer = client.post(
        "/v1/classify", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert named in answer.json()["detail"]


def test_one_bad_file_does_not_spoil_the_others(client):
    answer = post(client, ("a.txt", b"no image"), ("b.png", png("red")))
    assert answer.status_code == 200
    bad, good = answer.json()["results"]
    assert bad["error"].startswith("not an image; use JPEG, PNG")
    assert (bad["predicted"], good["predicted"]) == (None, "red")


@pytest.mark.parametrize(
    ("data", "status", "named"),
    [
        (b"no image", 415, "not an image"),
        (b"", 422, "empty"),
        (b"%PDF-1.7", 415, "unsupported format PDF"),
        (png("red")[:-30], 422, "truncated or corrupt"),
        (png("red", (60, 60), format="JPEG")[:200], 422, "truncated or corrupt"),
        (bomb(), 413, "900000000 pixels; the limit is 50000000 pixels"),
    ],
    ids=["text", "empty", "pdf", "cut png", "cut jpeg", "bomb"],
)
def test_what_is_no_image_has_a_status(client, data, status, named):
    answer = post(client, ("x.jpg", data))
    assert answer.status_code == status
    (result,) = answer.json()["results"]
    assert named in result["error"]
    assert "--" not in result["error"], "options are for whoever runs the server"
    assert post(client, ("a.png", png("red"))).status_code == 200


def test_forms_are_limited(client):
    few = client_of(limits=Limits(files=3, request_bytes=100_000))
    with few:
        answer = post(few, *[("a.png", png("red"))] * 4)
        assert (answer.status_code, "files is 3" in answer.text) == (400, True)
        assert post(few, ("a.bin", bytes(100_001))).status_code == 413
        # Without a Content-Length the bytes are counted as they come.
        chunked = few.post(
            "/v1/classify",
            content=iter([b"x" * 60_000] * 2),
            headers={"Content-Type": "application/json"},
        )
        assert (chunked.status_code, "100,000 bytes" in chunked.text) == (413, True)
    answer = post(client, *[("a.png", png("red"))] * 9, explain=True)
    assert (answer.status_code, "At most 8" in answer.text) == (400, True)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"x", 415),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nnonsense", 400),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 400),
        ("multipart/form-data; boundary=x", PART, 400),
        ("multipart/form-data; boundary=x", PART + b"\r\n" + PART[:90], 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--x--',
            400,
        ),
    ],
)
def test_malformed_requests_are_refused(client, kind, body, status):
    answer = client.post("/v1/classify", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.json()["detail"]


def test_a_busy_server_says_so_and_recovers():
    limits = Limits(pending_bytes=5000, explanations=1)
    with client_of(limits=limits) as client:
        answer = post(client, ("a.png", bytes(6000)))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert post(client, *form_of_two(), explain=True).status_code == 503
        assert post(client, ("a.png", png("red")), explain=True).status_code == 200
        assert "keras_flowers_pending_bytes 0.0" in client.get("/metrics").text


def form_of_two():
    return ("a.png", png("red")), ("b.png", png("red"))


def test_nothing_touches_the_disk(client, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    large = png("red") + bytes(5_000_000)
    assert post(client, ("a.png", large)).json()["results"][0]["predicted"] == "red"


def test_heat_and_preview_have_the_shape_of_the_image(client):
    image = png((10, 10, 250), (960, 480))
    (one,) = post(client, ("a.png", image), explain=True, preview=True).json()[
        "results"
    ]
    preview, heat = picture(one["preview"]), picture(one["heatmap"]["picture"])
    assert preview.shape == heat.shape == (240, 480, 3)
    assert one["heatmap"]["method"] == "occlusion"
    assert preview[0, 0, 2] > 200
    assert heat[2, 2].sum() > 2 * heat[-2, -2].sum(), "the top left corner is hot"


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_heat_is_placed_where_the_model_saw_it(resize):
    heat = np.zeros((8, 8), np.float32)
    heat[3:5, 3:5] = 1
    placed = place_heat(heat, resize, (40, 80))
    assert placed.shape == (40, 80)
    hot = np.argwhere(placed > 0.99)
    np.testing.assert_allclose(hot.mean(axis=0), (19.5, 39.5), atol=1)
    corner = np.zeros((8, 8), np.float32)
    # The first row and column of the model's image that show the original.
    top = 2 if resize == "pad" else 0
    corner[top, 0] = 1
    row, column = np.unravel_index(
        place_heat(corner, resize, (40, 80)).argmax(), (40, 80)
    )
    assert row < 10
    assert (20 <= column < 30) if resize == "crop" else column < 10


def test_occlusion_finds_what_decides():
    image = np.full((24, 24, 3), 90, np.uint8)
    image[6:12, 14:20] = (250, 0, 0)
    heat = occlude(image, lambda images: log_odds_of(predict(images), 0))
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 6 <= row < 12
    assert 14 <= column < 20
    assert heat[18:, :10].max() < 0.1 * heat.max()
    blended = blend_heat(image, heat / heat.max())
    assert blended[row, column].sum() > blended[0, 0].sum()


def test_unknown_is_what_is_below_the_threshold():
    model = dataclasses.replace(MODEL, unknown_threshold=0.6)
    with client_of(model) as client:
        results = post(
            client, ("a.png", png("red")), ("b.png", png((90, 80, 70)))
        ).json()["results"]
        assert [one["unknown"] for one in results] == [False, True]
        assert client.get("/v1/model").json()["unknown_threshold"] == 0.6
        metrics = client.get("/metrics").text
    told = dataclasses.replace(
        MODEL,
        predict=lambda images: (predict(images), predict(images)[:, 0] < 0.6),
        finds_unknown=True,
    )
    with client_of(told) as client:
        results = post(client, ("a.png", png("red")), ("b.png", png("blue"))).json()[
            "results"
        ]
        assert [one["unknown"] for one in results] == [False, True]
        assert client.get("/v1/model").json()["finds_unknown"] is True
    assert 'keras_flowers_images_total{outcome="unknown"} 1.0' in metrics
    assert 'keras_flowers_images_total{outcome="classified"} 1.0' in metrics


def test_a_model_that_fails_tells_nothing_of_the_host(capfd):
    def fail(images):
        raise RuntimeError("/home/somebody/model.onnx")

    broken = dataclasses.replace(MODEL, predict=fail)
    diverged = dataclasses.replace(
        MODEL, predict=lambda x: np.full((len(x), 3), np.nan)
    )
    for model in (broken, diverged):
        with client_of(model) as client:
            answer = post(client, ("a.png", png("red")))
            assert (answer.status_code, answer.text) == (500, "Internal Server Error")
            assert client.get("/healthz").json() == {"status": "ok"}


def test_the_token_guards_the_api_alone():
    with client_of(token="secret token".replace(" ", "-")) as client:
        for path in ("/v1/model", "/metrics"):
            answer = client.get(path)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            for wrong in ("Bearer other", "secret-token", "Bearer secret-tokené"):
                headers = {"Authorization": wrong.encode()}
                assert client.get(path, headers=headers).status_code == 401
            right = {"Authorization": "Bearer secret-token"}
            assert client.get(path, headers=right).status_code == 200
        assert post(client, ("a.png", png("red"))).status_code == 401
        for path in ("/", "/healthz", "/docs", "/app.js"):
            assert client.get(path).status_code == 200


def test_other_names_of_this_machine_are_refused():
    with client_of(host="flowers.example") as client:
        assert client.get("/healthz").status_code == 421
    with client_of(host="127.0.0.1:8501") as client:
        assert client.get("/healthz").status_code == 200
    with client_of(host="flowers.example", loopback_only=False) as client:
        assert client.get("/healthz").status_code == 200
    for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.com", "", "localhost.x"):
        assert not is_loopback(host)


def test_pages_need_nothing_from_elsewhere(client):
    for path in ("/", "/app.js", "/style.css", "/docs"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "http://" not in answer.text.replace("http://www.w3.org", "")
        assert "https://" not in answer.text
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert ("unsafe-inline" in policy) == (path == "/docs")
    assert client.get("/static-offline-docs/swagger-ui.css").status_code == 200


def test_the_description_of_the_api_is_complete(client):
    api = client.get("/openapi.json").json()
    assert set(api["paths"]) == {"/v1/classify", "/v1/model", "/healthz", "/metrics"}
    operation = api["paths"]["/v1/classify"]["post"]
    kinds = operation["requestBody"]["content"]
    assert set(kinds) == {"multipart/form-data", "application/json"}
    assert {"200", "400", "401", "408", "413", "415", "503"} <= set(
        operation["responses"]
    )
    model = client.get("/v1/model").json()
    described = api["components"]["schemas"]["ModelDescription"]["properties"]
    assert set(model) == set(described)
    assert model["class_names"] == list(NAMES)


def test_images_are_batched_while_a_batch_runs():
    sizes, started, release = [], threading.Event(), threading.Event()

    def slow(images):
        started.set()
        release.wait(10)
        return predict(images)

    async def ask():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(slow, executor, 4, lambda size, _: sizes.append(size))
            images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
            first = asyncio.create_task(batcher.classify(images[0]))
            await asyncio.to_thread(started.wait, 10)
            others = [asyncio.create_task(batcher.classify(i)) for i in images[1:]]
            await asyncio.sleep(0)
            release.set()
            rows = await asyncio.gather(first, *others)
        np.testing.assert_allclose([row for row, _ in rows], predict(images))

    asyncio.run(ask())
    assert sizes == [1, 4, 3]


def test_a_failing_batch_fails_alone():
    def fail_once(images):
        if (images == 0).all():
            raise RuntimeError("no")
        return predict(images)

    async def ask():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(fail_once, executor, 1, lambda *_: None)
            images = np.stack([np.zeros((8, 8, 3)), np.ones((8, 8, 3))]).astype("uint8")
            return await asyncio.gather(
                *map(batcher.classify, images), return_exceptions=True
            )

    first, second = asyncio.run(ask())
    assert isinstance(first, RuntimeError)
    assert second[0].shape == (3,)


def test_many_formats_are_the_same_as_for_predict(client, tmp_path):
    folder = draw_images(tmp_path, {"roses": 1})
    path = next(folder.rglob("*.png"))
    for name in ("JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"):
        file = io.BytesIO()
        Image.open(path).save(file, name)
        (one,) = post(client, (f"a.{name}", file.getvalue())).json()["results"]
        assert one["predicted"] == "red", name
