"""`keras-flowers serve`: a page and an API that classify images."""

import importlib.util
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.models import is_exported, load_classifier
from keras_flowers_cli.options import UserPath, setting_options

if TYPE_CHECKING:
    import numpy as np
    from keras_flowers_serving import ServedModel

    from keras_flowers.models.image_classifier import ImageClassifier

_PACKAGES = (
    "fastapi",
    "fastapi_offline",
    "prometheus_client",
    "python_multipart",
    "uvicorn",
)
_MIN_TOKEN = 8


@click.command()
@click.argument(
    "model_path",
    metavar="MODEL|RUN|EXPORTED",
    type=UserPath(exists=True, path_type=Path),
)
@setting_options("serve")
def serve(
    model_path: Path,
    batch_size: int,
    host: str,
    port: int,
    token: str | None,
    insecure: bool,
) -> None:
    """Serve a page on which people drop images, and an API for programs.

    The model is a .keras file, a run directory, or a folder written by `keras-flowers
    export`, which is faster and needs neither Keras nor TensorFlow.

    Runs until Ctrl-C or SIGTERM, and then finishes the requests that have begun. The
    API is described at /docs, metrics for Prometheus are at /metrics.
    """
    token = token or os.environ.get("KERAS_FLOWERS_TOKEN") or None
    _check_packages()
    _check_access(host, token, insecure)
    from keras_flowers_serving import create_app, open_socket, run_server
    from keras_flowers_serving.access import is_loopback

    # Before the model is loaded, which may take a while.
    listener = open_socket(host, port)
    with listener:
        app = create_app(
            _load_model(model_path),
            token=token,
            loopback_only=is_loopback(host),
            batch_size=batch_size,
        )
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}"
        click.echo(f"Serving at {address} (Ctrl-C stops it)")
        run_server(app, listener)


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"serve needs {', '.join(missing)}, which is not installed: "
            'pip install "keras-flowers[serve]"'
        )


def _check_access(host: str, token: str | None, insecure: bool) -> None:
    from keras_flowers_serving.access import is_loopback

    if token is not None:
        is_printable = token.isascii() and token.isprintable() and " " not in token
        if len(token) < _MIN_TOKEN or not is_printable:
            raise click.UsageError(
                f"--token must have at least {_MIN_TOKEN} printable ASCII characters, "
                "none of them a space."
            )
    elif not insecure and not is_loopback(host):
        raise click.UsageError(
            f"--host {host} lets other machines use the model. Add --token TOKEN, or "
            "--insecure if everybody may."
        )


def _load_model(path: Path) -> "ServedModel":
    if is_exported(path):
        from keras_flowers_serving import serve_exported

        return serve_exported(path)
    runtime.start_keras()
    return _serve_keras(load_classifier(path))


def _serve_keras(model: "ImageClassifier") -> "ServedModel":
    import numpy as np
    from keras_flowers_serving import ServedModel

    from keras_flowers.explanation import find_method, heatmap_function
    from keras_flowers.training.config import versions

    lock = threading.Lock()
    heatmaps_of = heatmap_function(model)
    if heatmaps_of is None:
        raise click.ClickException(
            "serve needs the TensorFlow or the JAX backend for a model with a backbone."
        )

    detector = model.unknown_detector
    by_similarity = detector is not None and detector.examples is not None
    predict_batch = model.predictor(None if detector is None else "auto")

    def predict(images: "np.ndarray") -> Any:
        # Keras compiles its step once for each size of a batch.
        count = len(images)
        padding = (1 << (count - 1).bit_length()) - count
        padded = np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
        with lock:
            found = predict_batch(padded)
        if isinstance(found, tuple):
            return tuple(part[:count] for part in found)
        return found[:count]

    def explain_image(image: "np.ndarray", label: int) -> "np.ndarray":
        with lock:
            heats = heatmaps_of(image[None], np.array([label], np.int32))
        heat: np.ndarray = heats[0]
        return heat

    return ServedModel(
        class_names=model.class_names,
        image_size=model.image_size,
        resize=model.resize,
        predict=predict,
        explain=explain_image,
        method=find_method(model),
        format="keras",
        finds_unknown=detector is not None,
        temperature=None if model.temperature == 1 else model.temperature,
        unknown_threshold=None if by_similarity else model.unknown_threshold,
        thresholds=model.label_thresholds,
        versions=versions(),
    )
