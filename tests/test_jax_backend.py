import os
import subprocess
import sys
from pathlib import Path

COMPONENTS = (
    "test_augmentation.py",
    "test_preprocessing.py",
    "test_image_classifier.py",
    "test_dataset_loader.py",
    "test_evaluation.py",
)


def test_the_components_pass_their_tests_on_jax():
    """In a process of its own: Keras chooses its backend once."""
    tests = Path(__file__).parent
    files = [tests / name for name in COMPONENTS]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=tests.parent,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-5000:]
    assert " passed" in result.stdout
