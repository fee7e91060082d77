"""Imports every module from the installed wheel and uses the main parts.

Run it outside of the checkout, which is its argument: nothing may come from there.
"""

import importlib
import pkgutil
import sys
from pathlib import Path

import keras
import keras_flowers_cli
import keras_flowers_runtime
import keras_flowers_settings
import numpy as np

import keras_flowers

checkout = Path(sys.argv[1])
for package in (
    keras_flowers,
    keras_flowers_cli,
    keras_flowers_runtime,
    keras_flowers_settings,
):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0].startswith("keras_flowers"):
        file = Path(module.__file__)
        in_checkout = file.is_relative_to(checkout)
        if in_checkout and ".venv-wheel" not in file.parts:
            raise SystemExit(f"{name} was imported from the checkout: {file}")
for forbidden in (
    "callbacks",
    "tuning",
    "cli",
    "runtime",
    "tests",
    "data",
    "models",
    "settings",
):
    if importlib.util.find_spec(forbidden) is not None:
        raise SystemExit(f"the wheel installs a top-level package {forbidden}")
if not Path(keras_flowers.__file__).with_name("py.typed").exists():
    raise SystemExit("py.typed is not in the wheel")

model = keras_flowers.ImageClassifier(["a", "b"], image_size=(8, 8))
model.save("smoke.keras")
images = np.zeros((1, 8, 8, 3), np.uint8)
loaded = keras.models.load_model("smoke.keras")
np.testing.assert_array_equal(
    model.predict(images, verbose=0), loaded.predict(images, verbose=0)
)
sys.stdout.write(f"the wheel of keras_flowers {keras_flowers.__version__} works\n")
