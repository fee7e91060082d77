import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.jax

# What runs on the backend: layers, training, restoring, and the pipelines of JAX. What
# checks arguments, draws, or reads and writes files is tested once, on TensorFlow.
COMPONENTS = {
    "test_distribution.py": ["two_devices_of_jax_share_batches"],
    "test_metrics.py": [""],
    "test_optimizers.py": [""],
    "layers/test_augmentation.py": [
        "warp_equals_the_numpy_reference",
        "a_crop_is_enlarged_to_the_image",
        "new_options_leave_the_sequence_of_the_others_alone",
        "brightness_and_saturation_change_the_colours",
        "nothing_changes_outside_training",
        "same_seed_same_sequence_and_each_call_moves_on",
        "the_place_in_the_sequence_is_saved",
        "component_checks",
        "one_image_is_augmented_like_a_batch_of_one",
    ],
    "layers/test_preprocessing.py": [
        "resize_equals_that_of_pillow",
        "images_of_the_right_size_are_only_scaled",
        "component_checks",
    ],
    "models/test_backbone.py": [
        "images_are_preprocessed_as_by_keras",
        "component_checks[own]",
        "mixed_precision_reaches_every_layer_and_keeps_the_weights",
        "a_pretrained_backbone_is_frozen_and_gives_features_of_inference",
        "unfrozen_batch_normalization_keeps_its_statistics",
        "same_seed_same_weights",
        "a_saved_backbone_has_the_key_that_it_had",
    ],
    "models/test_image_classifier.py": [
        "uint8_and_float_images_give_the_same",
        "same_seed_same_weights",
        "compile_with_nothing_given",
        "training_lowers_the_loss",
        "augmentation_acts_in_training_only",
        "a_saved_model_predicts_the_same[True]",
        "mixed_precision_keeps_probabilities_in_float32",
        "classify_agrees_with_a_call_on_the_decoded_image",
        "training_the_head_trains_the_model",
        "a_saved_model_with_a_backbone_predicts_the_same[mixed_bfloat16]",
        "a_fine_tuned_model_stays_unfrozen_when_it_is_loaded",
    ],
    "data/test_dataset_loader.py": [
        "batches_are_images_with_their_labels",
        "validation_is_never_shuffled_and_row_i_is_path_i",
        "every_epoch_has_another_order_that_depends_on_the_seed_alone",
        "labels_follow_their_images_when_shuffled",
        "on_the_fly_gives_the_same_images",
        "a_failed_pass_names_the_image_of_that_pass",
        "an_earlier_read_error_does_not_hide_another_error",
    ],
    "evaluation/test_evaluate.py": [
        "evaluate_agrees_with_keras",
        "data_comes_in_many_forms",
        "a_model_that_gives_no_probabilities",
    ],
    "explanation/test_explain.py": [
        "the_patch_that_decides_carries_the_heat[grad_cam]",
        "both_methods_explain_a_convolutional_model",
    ],
    "export/test_backends.py": [""],
    "callbacks/test_tensorboard.py": [
        "everything_of_a_run_is_written",
        "a_watched_run_equals_one_that_is_not[True]",
        "batch_steps_go_on_after_a_resume",
    ],
    "callbacks/test_history_logger.py": [
        "a_metric_with_several_values_has_an_entry_for_each"
    ],
    "callbacks/test_training_checkpoint.py": [
        "a_training_goes_on_as_if_nothing_had_happened[ema]",
        "callbacks_go_on_with_what_they_knew",
        "weights_that_were_swapped_for_their_average_are_swapped_back[2]",
        "it_is_written_while_the_next_epoch_trains",
    ],
    "training/test_feature_datasets.py": [
        "features_stand_in_place_of_their_images",
        "an_epoch_has_the_order_of_the_images[3]",
        "features_of_new_images_alone_are_computed",
        "half_precision_features_are_kept_as_they_are",
    ],
    "training/test_train.py": [
        "a_run_leaves_everything_in_its_directory",
        "two_runs_are_equal_to_the_bit",
        "ctrl_c_saves_what_is_there[1-done1]",
    ],
    "training/test_fine_tuning.py": [
        "both_stages_are_one_run",
        "a_resumed_run_equals_one_that_was_never_interrupted[3-KeyboardInterrupt]",
    ],
    "training/test_resume.py": [
        "a_resumed_run_equals_one_that_was_never_interrupted[as users do]",
    ],
}


@pytest.mark.timeout(1200)
def test_the_components_pass_their_tests_on_jax():
    """In a separate process: Keras chooses its backend once."""
    tests = Path(__file__).parent
    chosen = [
        f"{tests}/{file}" + (f"::test_{name}" if name else "")
        for file, names in COMPONENTS.items()
        for name in names
    ]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-qp", "no:cacheprovider", *chosen],
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
