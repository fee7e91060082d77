"""Writes a classifier as an ONNX file, and quantizes it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_flowers.export.similarity import OUTPUTS, find_own_nodes
from keras_flowers.models.image_classifier import ImageClassifier

_OPSET = 18
# Activations are included, so that their limits become those of the 8-bit range. The
# normalization of features and the softmax are not: they need full precision and take
# no time.
_QUANTIZED_IN_ONNX = ("Conv", "MatMul", "Gemm", "Add", "MaxPool", "Clip", "Relu")


def convert_to_onnx(
    serving: keras.Model,
    model: ImageClassifier,
    precision: str,
    path: Path,
    batches: Sequence[np.ndarray],
) -> None:
    """Writes a model as an ONNX file.

    Args:
        serving: What the file computes, from uint8 images.
        model: The classifier.
        precision: `"float32"`, `"float16"` or `"int8"`.
        path: The file.
        batches: Images to calibrate int8 with, each uint8 `(1, height, width, 3)`.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    # The model's `export` would turn constants that a layer holds as tensors, such as
    # those of a Normalization, into inputs of the graph.
    inputs = serving.inputs[0]
    signature = [tf.TensorSpec(inputs.shape, inputs.dtype, name=inputs.name)]
    function = tf.function(
        lambda images: serving(images, training=False), input_signature=signature
    )
    graph_model, _ = tf2onnx.convert.from_function(function, signature, opset=_OPSET)
    concrete = function.get_concrete_function()
    _store_constants(graph_model.graph, concrete.inputs[1:], concrete.captured_inputs)
    _name_onnx(graph_model.graph)
    if precision == "float16":
        _store_in_float16(graph_model.graph)
    elif precision == "float32":
        _store_in_float16(graph_model.graph, exactly=True)
    height, width = model.image_size
    onnx.helper.set_model_props(
        graph_model,
        {
            "class_names": json.dumps(list(model.class_names)),
            "image_size": json.dumps([height, width]),
            "resize": model.resize,
            "input": "uint8 RGB, 0 to 255, (batch, height, width, 3)",
        },
    )
    onnx.save(graph_model, path)
    if precision == "int8":
        _quantize_onnx(path, batches)
        graph_model = onnx.load(path)
        _store_in_float16(graph_model.graph, exactly=True)
        onnx.save(graph_model, path)


def _store_constants(graph: Any, names: Any, values: Any) -> None:
    """Turns the inputs of a graph that are constants into weights."""
    from onnx import numpy_helper

    constants = {name.name: value for name, value in zip(names, values, strict=True)}
    inputs = list(graph.input)
    del graph.input[:]
    for value in inputs:
        if value.name in constants:
            array = np.asarray(constants[value.name])
            graph.initializer.append(numpy_helper.from_array(array, value.name))
        else:
            graph.input.append(value)


def _name_onnx(graph: Any) -> None:
    """Gives the outputs and the dynamic dimensions readable names."""
    # Those of a dictionary are sorted by their keys.
    outputs = zip(graph.output, OUTPUTS, strict=False)
    new = {output.name: name for output, name in outputs}
    for node in graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = new.get(name, name)
    for output in graph.output:
        output.name = new[output.name]
    for value, names in (
        (graph.input[0], ("batch", "height", "width")),
        *((output, ("batch",)) for output in graph.output),
    ):
        for dimension, name in zip(
            value.type.tensor_type.shape.dim, names, strict=False
        ):
            if not dimension.HasField("dim_value") or dimension.dim_value <= 0:
                dimension.dim_param = name


def _store_in_float16(graph: Any, *, exactly: bool = False) -> None:
    """Stores large weights as float16 and casts them back to float32 in the graph.

    Runtimes cast once, when they load the file: it is half as large and as fast.

    Args:
        graph: The graph of a model.
        exactly: Whether to leave weights alone that float16 would round, which are all
            but the features of training images.
    """
    import onnx
    from onnx import numpy_helper

    limits = np.finfo(np.float16)
    casts, kept = [], []
    for weights in graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype != np.float32 or values.size < 256:
            kept.append(weights)
            continue
        name = f"{weights.name}/float16"
        small = np.clip(values, limits.min, limits.max).astype(np.float16)
        if exactly and not np.array_equal(small.astype(np.float32), values):
            kept.append(weights)
            continue
        kept.append(numpy_helper.from_array(small, name))
        casts.append(
            onnx.helper.make_node(
                "Cast", [name], [weights.name], to=onnx.TensorProto.FLOAT
            )
        )
    del graph.initializer[:]
    graph.initializer.extend(kept)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _quantize_onnx(path: Path, batches: Sequence[np.ndarray]) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._rest = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._rest, None)
            return None if batch is None else {"images": batch}

    prepared, quantized = path.with_suffix(".prepared"), path.with_suffix(".int8")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantization.quantize_static(
        prepared,
        quantized,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=list(_QUANTIZED_IN_ONNX),
        # On older processors, products of 8-bit integers overflow.
        reduce_range=not _has_vnni(),
        nodes_to_exclude=_similarity_nodes_of_onnx(prepared),
    )
    prepared.unlink()
    quantized.replace(path)


def _similarity_nodes_of_onnx(path: Path) -> list[str]:
    import onnx

    graph = onnx.load(path).graph
    if len(graph.output) == 1:
        return []
    sources = {name: node.name for node in graph.node for name in node.output}
    inputs = {
        node.name: [sources[name] for name in node.input if name in sources]
        for node in graph.node
    }
    return find_own_nodes(inputs, sources["similarity"], sources["probabilities"])


def _has_vnni() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "vnni" in flags
