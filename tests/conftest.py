"""What the tests of all packages share."""

import keras
import pytest

from keras_flowers import ImageClassifier, explanation

_DEFAULTS = ImageClassifier.compile.__kwdefaults__


@pytest.fixture(autouse=True, scope="session")
def without_xla():
    """Trains tiny models without XLA.

    Compiling takes longer than their training, and TensorFlow keeps what was compiled
    in memory until the process ends.
    """
    with pytest.MonkeyPatch.context() as patch:
        # On JAX, Keras would run each step eagerly.
        if keras.backend.backend() == "tensorflow":
            patch.setitem(_DEFAULTS, "jit_compile", False)
        yield


@pytest.fixture(autouse=True, scope="session")
def without_heat_maps():
    """Trains without heat maps of mistakes, which take longer than a tiny training.

    Returns the function that makes them, for tests of heat maps.
    """
    function = explanation.heatmap_function
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explanation, "heatmap_function", lambda model: None)
        yield function


@pytest.fixture
def with_heat_maps(without_heat_maps, monkeypatch):
    """Trains as users do: with heat maps of mistakes."""
    monkeypatch.setattr(explanation, "heatmap_function", without_heat_maps)


@pytest.fixture(autouse=True, scope="module")
def without_compiled_code():
    """Frees what JAX compiled for a module: it would stay until the process ends."""
    yield
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()


@pytest.fixture(autouse=True)
def with_xla_if_marked(request, monkeypatch):
    """Trains as users do in tests that are marked `xla`."""
    if "xla" in request.keywords:
        monkeypatch.setitem(_DEFAULTS, "jit_compile", "auto")
