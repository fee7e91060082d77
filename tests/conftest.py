"""What the tests of all packages share."""

import keras
import pytest
from keras_flowers.callbacks import run_record
from matplotlib.figure import Figure

from keras_flowers import ImageClassifier, explanation
from keras_flowers.evaluation import report_parts
from keras_flowers.training import recording

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
def without_drawings():
    """Trains without charts, graphs and heat maps, which take longer than the training.

    Returns what was replaced, for `with_drawings`.
    """
    blank = Figure(figsize=(1, 1))
    replacements = {
        (recording, "plot_history"): lambda *args: blank,
        (report_parts, "svg_markup"): lambda *args: "<svg></svg>",
        (run_record, "write_model_graphs"): lambda *args: None,
        (explanation, "heatmap_function"): lambda model: None,
    }
    originals = {place: getattr(*place) for place in replacements}
    with pytest.MonkeyPatch.context() as patch:
        for place, replacement in replacements.items():
            patch.setattr(*place, replacement)
        yield originals


@pytest.fixture(scope="module")
def with_charts(without_drawings):
    """Draws, in all tests of a module, the charts and graphs of a run."""
    with pytest.MonkeyPatch.context() as patch:
        for place, original in without_drawings.items():
            if place[0] is not explanation:
                patch.setattr(*place, original)
        yield


@pytest.fixture
def with_heat_maps(without_drawings, monkeypatch):
    """Trains as users do: with heat maps of mistakes."""
    place = explanation, "heatmap_function"
    monkeypatch.setattr(*place, without_drawings[place])


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
