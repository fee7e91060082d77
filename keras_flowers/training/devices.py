"""The devices that a training uses: which there are, and what each of them gets.

Every device has a copy of the variables and computes its share of each batch; the
engines of the backends add up the gradients. On JAX this is
`keras.distribution.DataParallel`, over the devices of one process or of several. On
TensorFlow it is `tf.distribute.MirroredStrategy`, over the devices of one process.
"""

import contextlib
import hashlib
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np

from keras_flowers.argument_checks import check_integer
from keras_flowers.data.array_batches import ArrayBatches, Batch
from keras_flowers.errors import InputError
from keras_flowers.training.processes import Team

_ALL = "all"
_MORE_CPUS = (
    "To try it without accelerators, give JAX several virtual devices: "
    "KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=2"
)


class Devices(ABC):
    """The devices of a training.

    Attributes:
        count: How many there are, in all processes.
    """

    count: int

    def scope(self) -> AbstractContextManager[Any]:
        """Returns the context in which the model is built and compiled."""
        return contextlib.nullcontext()

    @abstractmethod
    def distribute(
        self, pipeline: Any, class_weights: Mapping[int, float] | None = None
    ) -> tuple[Any, Mapping[int, float] | None]:
        """Returns what `fit` gets for a pipeline, and the class weights for it.

        Args:
            pipeline: A pipeline of `ImageDatasets`, or `None`.
            class_weights: The weight of each label.
        """

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns callbacks of `fit`, to be called after all others."""
        return []

    def release(self, model: keras.Model) -> None:
        """Leaves a trained model as one that this process alone can use."""
        del model


class OneDevice(Devices):
    """The device that the backend uses by itself."""

    count = 1

    def distribute(
        self, pipeline: Any, class_weights: Mapping[int, float] | None = None
    ) -> tuple[Any, Mapping[int, float] | None]:
        """Returns the pipeline and the weights as they are."""
        return pipeline, class_weights


class MirroredDevices(Devices):
    """Devices of one process, for TensorFlow.

    Args:
        names: The names of the devices.
    """

    def __init__(self, names: Sequence[str]) -> None:
        import tensorflow as tf

        self.count = len(names)
        self._strategy = tf.distribute.MirroredStrategy(list(names))

    def scope(self) -> AbstractContextManager[Any]:
        """Returns the scope of the strategy."""
        scope: AbstractContextManager[Any] = self._strategy.scope()
        return scope

    def distribute(
        self, pipeline: Any, class_weights: Mapping[int, float] | None = None
    ) -> tuple[Any, Mapping[int, float] | None]:
        """Returns the pipeline, whose batches Keras divides among the devices."""
        return pipeline, class_weights


class ParallelDevices(Devices):
    """Devices of one or several processes, for JAX.

    A batch whose images the devices can divide equally is divided: each process reads
    and holds its own share. Any other batch, such as the last one of an epoch, is
    computed as a whole on every device, so that each result is that of one device.

    Args:
        devices: The devices of all processes, those of each process one after another.
    """

    def __init__(self, devices: Sequence[Any]) -> None:
        jax = importlib.import_module("jax")
        self.count = len(devices)
        self._process = int(jax.process_index())
        self._processes = int(jax.process_count())
        names = [f"{device.platform}:{device.id}" for device in devices]
        mesh = keras.distribution.DeviceMesh((self.count,), ("batch",), names)
        self._distribution = keras.distribution.DataParallel(
            device_mesh=mesh, auto_shard_dataset=False
        )
        self._assemble = jax.make_array_from_process_local_data

    def distribute(
        self, pipeline: Any, class_weights: Mapping[int, float] | None = None
    ) -> tuple[Any, Mapping[int, float] | None]:
        """Returns batches that are spread over the devices, with sample weights."""
        if not isinstance(pipeline, ArrayBatches):
            return pipeline, class_weights
        weight_of = None
        if class_weights is not None:
            weight_of = np.ones(max(class_weights) + 1, np.float32)
            weight_of[list(class_weights)] = list(class_weights.values())

        def spread(fetch: Callable[[np.ndarray], Batch]) -> Callable[..., Batch]:
            def fetch_share(positions: np.ndarray) -> Batch:
                images, labels = fetch(positions[self._share_of(len(positions))])
                weights = () if weight_of is None else (weight_of[labels],)
                layouts = self._layout_of(len(positions))
                return tuple(
                    self._assemble(layouts(array.ndim), array)
                    for array in (images, labels, *weights)
                )

            return fetch_share

        return pipeline.with_fetch(spread), None

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callback that copies the variables to all devices."""
        return [_CopyVariables(self._distribution)]

    def release(self, model: keras.Model) -> None:
        """Moves the variables to the first device of this process."""
        for variable in _list_variables(model):
            variable.assign(np.asarray(variable.value))
        # They were compiled for all devices.
        model.train_function = model.test_function = model.predict_function = None

    def _share_of(self, count: int) -> slice:
        """Returns which images of a batch this process reads."""
        if count % self.count:
            return slice(None)
        size = count // self._processes
        return slice(self._process * size, (self._process + 1) * size)

    def _layout_of(self, count: int) -> Callable[[int], Any]:
        """Returns a function from the rank of an array of a batch to its layout."""
        name = None if count % self.count else self._distribution.batch_dim_name
        mesh = self._distribution.device_mesh

        def layout(rank: int) -> Any:
            axes = [name, *[None] * (rank - 1)]
            return keras.distribution.TensorLayout(axes, mesh).backend_layout

        return layout


class _CopyVariables(keras.callbacks.Callback):
    """Copies each variable to all devices before a step reads it.

    What restores or resets a variable, such as a checkpoint or the start of an epoch,
    leaves its value on one device.
    """

    def __init__(self, distribution: Any) -> None:
        super().__init__()
        self._distribution = distribution

    def on_train_begin(self, logs: Any = None) -> None:
        """Copies the variables; compiles steps that leave copies everywhere."""
        del logs
        self._copy()
        with self._distribution.scope():
            self.model.make_train_function(force=True)
            self.model.make_test_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Copies the metrics, which are reset, and what callbacks have changed."""
        del epoch, logs
        self._copy()

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Copies the metrics before the first step of a validation."""
        del logs
        if batch == 0:
            self._copy()

    def _copy(self) -> None:
        for variable in _list_variables(self.model):
            value = variable.value
            layout = keras.distribution.TensorLayout(
                [None] * len(variable.shape), self._distribution.device_mesh
            )
            if value.sharding != layout.backend_layout:
                variable.assign(keras.distribution.distribute_tensor(value, layout))


def _list_variables(model: keras.Model) -> list[Any]:
    """Returns all variables that a step reads."""
    return [*model.variables, *model.optimizer.variables, *model.metrics_variables]


def equalize_variables(model: keras.Model, team: Team) -> None:
    """Gives the weights and seeds of a model the values of process 0 in all processes.

    They differ where a layer without a seed has drawn its weights or its state. JAX
    insists on the same values everywhere.

    Args:
        model: A compiled model with all variables; the same in all processes.
        team: The processes, which call this together.

    Raises:
        ProcessLostError: If another process fails or is gone.
    """
    # Optimizer and metrics start alike; not every process has built them by now.
    of_metrics = {id(variable) for variable in model.metrics_variables}
    variables = [one for one in model.variables if id(one) not in of_metrics]
    arrays = [np.asarray(variable.value) for variable in variables]
    digests = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
    of_all = [json.loads(text) for text in team.gather(json.dumps(digests).encode())]
    for variable, array, *found in zip(variables, arrays, *of_all, strict=True):
        if len(set(found)) > 1:
            content = team.share(array.tobytes() if team.is_first else None)
            same = np.frombuffer(content, array.dtype).reshape(array.shape)
            variable.assign(same)


def choose_devices(devices: int | str | None, batch_size: int) -> Devices:
    """Returns the devices to train on.

    Args:
        devices: How many devices of each process to use; `"all"` for all of them;
            `None` for all accelerators where there are several, and else for one.
        batch_size: Images in a batch, which the devices must divide equally.

    Raises:
        InputError: If `devices` is something else, there are not so many, or they do
            not divide `batch_size`.
    """
    if devices is not None and devices != _ALL:
        if isinstance(devices, str):
            raise InputError(
                "`devices` must be 'all' or a positive integer. "
                f"Received: devices={devices!r}"
            )
        devices = check_integer("devices", devices, lowest=1)
    backend = keras.backend.backend()
    if backend == "jax":
        return _choose_jax_devices(devices, batch_size)
    if backend == "tensorflow":
        return _choose_tensorflow_devices(devices, batch_size)
    if devices in (None, 1, _ALL):
        return OneDevice()
    raise InputError(
        "`devices` above 1 needs the JAX or the TensorFlow backend. "
        f"Received: devices={devices}, and the {backend} backend"
    )


def _choose_jax_devices(devices: int | str | None, batch_size: int) -> Devices:
    jax = importlib.import_module("jax")
    of_process: dict[int, list[Any]] = {}
    for device in sorted(jax.devices(), key=lambda one: int(one.id)):
        of_process.setdefault(device.process_index, []).append(device)
    processes = len(of_process)
    if batch_size % processes:
        raise InputError(
            f"`batch_size` must be a multiple of the number of processes, {processes}. "
            f"Received: batch_size={batch_size}"
        )
    available = min(map(len, of_process.values()))
    is_accelerated = jax.devices()[0].platform != "cpu"
    count = _choose_count(devices, available, is_accelerated, batch_size, processes)
    if count * processes == 1:
        return OneDevice()
    return ParallelDevices(
        [one for process in sorted(of_process) for one in of_process[process][:count]]
    )


def _choose_tensorflow_devices(devices: int | str | None, batch_size: int) -> Devices:
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    local = gpus or tf.config.list_logical_devices("CPU")
    count = _choose_count(devices, len(local), bool(gpus), batch_size, 1)
    if count == 1:
        return OneDevice()
    return MirroredDevices([device.name for device in local[:count]])


def _choose_count(
    devices: int | str | None,
    available: int,
    is_accelerated: bool,
    batch_size: int,
    processes: int,
) -> int:
    """Returns how many devices of each process to use."""
    share = batch_size // processes
    if devices is None:
        if not is_accelerated:
            return 1
        return next(n for n in range(available, 0, -1) if share % n == 0)
    count = available if devices == _ALL else int(devices)
    if count > available:
        hint = "" if is_accelerated else f" {_MORE_CPUS}"
        raise InputError(
            f"`devices` must be at most {available}, what this process has. "
            f"Received: devices={count}.{hint}"
        )
    if share % count:
        raise InputError(
            f"`batch_size` must be a multiple of the number of devices, "
            f"{count * processes}. Received: batch_size={batch_size}"
        )
    return count
