import os
import subprocess
import sys
from pathlib import Path

import pytest

COMPONENTS = (
    "test_distribution.py",
    "callbacks/test_tensorboard.py",
    "test_metrics.py",
    "layers/test_augmentation.py",
    "models/test_backbone.py",
    "training/test_feature_datasets.py",
    "layers/test_preprocessing.py",
    "models/test_image_classifier.py",
    "data/test_dataset_loader.py",
    "evaluation/test_evaluate.py",
    "explanation/test_explain.py",
    "export/test_backends.py",
    "callbacks/test_history_logger.py",
    "callbacks/test_training_checkpoint.py",
    "training/test_train.py::test_a_run_leaves_everything_in_its_directory",
    "training/test_train.py::test_two_runs_are_equal_to_the_bit",
    "training/test_train.py::test_ctrl_c_saves_what_is_there",
    "training/test_fine_tuning.py::test_both_stages_are_one_run",
    "training/test_fine_tuning.py::test_a_resumed_run_equals_one_that_was_never_interrupted"
    "[3-KeyboardInterrupt]",
    "training/test_resume.py::test_a_resumed_run_equals_one_that_was_never_interrupted",
)


@pytest.mark.timeout(1200)
def test_the_components_pass_their_tests_on_jax():
    """In a separate process: Keras chooses its backend once."""
    tests = Path(__file__).parent
    files = [f"{tests}/{name}" for name in COMPONENTS]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-qp", "no:cacheprovider", *files],
        cwd=tests.parent,
        env=os.environ
        | {
            "KERAS_BACKEND": "jax",
            # Two devices for test_distribution.py; all other tests use the first. Most
            # of the time goes into compiling what then runs once or twice.
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2 "
            "--xla_backend_optimization_level=0 "
            "--xla_llvm_disable_expensive_passes=true",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-5000:]
    assert " passed" in result.stdout


def test_the_commands_work_on_jax(tmp_path):
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("jax_commands.py"), tmp_path],
        env=os.environ
        | {
            "KERAS_BACKEND": "jax",
            "KERAS_FLOWERS_CACHE": str(tmp_path / "cache"),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
