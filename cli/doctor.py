"""`keras-flowers doctor`: what is installed, what it runs on, what is missing."""

import importlib
from pathlib import Path
from typing import Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.allocator import describe_allocator
from keras_flowers_cli.errors import first_line
from keras_flowers_cli.options import setting_options
from keras_flowers_cli.output import Output, TextTable

_OTHER_CACHE = "choose another with --cache-dir or KERAS_FLOWERS_CACHE"


@click.command()
@setting_options("doctor")
def doctor(measure: bool, as_json: bool) -> None:
    """Show versions, devices, speed settings, the cache, and what a GPU needs."""
    runtime.start_keras()
    from keras_flowers.training.config import versions

    output = Output(as_json)
    with output.stdout_for_people():
        facts = {**versions(), **_inspect_machine(), **_inspect_cache()}
        if measure:
            from keras_flowers_cli.measure import measure_speeds

            facts |= measure_speeds()
    rows = TextTable("what", "found")
    for name, value in facts.items():
        rows.add_row(name.replace("_", " "), str(value))
    output.show(rows)
    output.result(facts)


def _inspect_machine() -> dict[str, Any]:
    import keras
    from keras_flowers_cli import devices

    return {
        "device": devices.describe_device(),
        "missing_for_a_gpu": devices.missing_for_gpu() or "nothing",
        "xla": _test_xla(),
        "mixed_precision": devices.mixed_precision_policy(),
        "devices": devices.count_devices(),
        "cpu_allocator": describe_allocator(keras.backend.backend()),
    }


def _test_xla() -> str:
    """Compiles and runs a small function, as every training step is."""
    import keras

    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        return f"is not used by the {backend} backend"
    try:
        works = float(_double(backend)) == 4.0
    except Exception as error:  # both backends have many classes of errors
        return f"does not work: {first_line(error)}"
    return "works" if works else "gives a wrong result"


def _double(backend: str) -> Any:
    """Returns 4, computed by XLA."""
    if backend == "jax":
        jax = importlib.import_module("jax")
        return jax.jit(lambda value: value * 2)(2.0)
    import tensorflow as tf

    return tf.function(lambda value: value * 2, jit_compile=True)(tf.constant(2.0))


def _inspect_cache() -> dict[str, Any]:
    from keras_flowers.data.sources import default_cache_directory
    from keras_flowers.errors import InputError
    from keras_flowers.files import require_writable_folder

    folder = default_cache_directory()
    try:
        require_writable_folder(folder)
        writable = "yes"
    except InputError:
        writable = f"no; {_OTHER_CACHE}"
    return {
        "cache_folder": str(folder),
        "cache_writable": writable,
        "cache_size": _size(folder),
    }


def _size(folder: Path) -> str:
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{total / 1e9:.2f} GB"
