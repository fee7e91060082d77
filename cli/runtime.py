"""What must be set before TensorFlow starts."""

import os


def prepare() -> None:
    """Sets the environment for speed and quiet; what the user set stays.

    Call it before the first import of Keras or TensorFlow.
    """
    # Without it the CPU allocator returns every large buffer to the kernel after
    # each step: half of the time of a step of a wide dense layer.
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    # 0 and 1 print how TensorFlow was built before every command.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
