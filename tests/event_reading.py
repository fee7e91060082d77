"""Reads TensorBoard's event files back."""

import collections

import numpy as np


def events_of(folder):
    """Yields every event below a folder, with the name of its run."""
    import tensorflow as tf

    # Names end with a counter, so that the tenth file sorts before the ninth.
    for path in sorted(folder.rglob("*tfevents*"), key=lambda p: p.stat().st_mtime_ns):
        run = path.parent.relative_to(folder).as_posix()
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield run, tf.compat.v1.Event.FromString(record)


def read_runs(folder):
    """Returns `{run: {tag: [(step, value), ...]}}`, in the order of writing.

    A scalar is a float, an image an array, a text a string; of what belongs to
    another plugin the value is the content of its metadata.
    """
    import tensorflow as tf

    runs = collections.defaultdict(lambda: collections.defaultdict(list))
    for run, event in events_of(folder):
        for value in event.summary.value:
            tensor = tf.make_ndarray(value.tensor)
            plugin = value.metadata.plugin_data
            if plugin.plugin_name == "images":
                shown = tf.io.decode_png(tensor.ravel()[2]).numpy()
                width, height = int(tensor[0]), int(tensor[1])
                assert shown.shape[:2] == (height, width)
            elif plugin.plugin_name == "text":
                shown = np.ravel(tensor)[0].decode()
            elif plugin.plugin_name in ("scalars", ""):
                shown = float(tensor)
            else:
                shown = plugin.content
            runs[run][value.tag].append((event.step, shown))
    return {run: dict(tags) for run, tags in runs.items()}


def graphs_of(folder):
    """Returns the graphs of each run, as `{run: [GraphDef, ...]}`."""
    import tensorflow as tf

    graphs = collections.defaultdict(list)
    for run, event in events_of(folder):
        if event.HasField("graph_def"):
            graph = tf.compat.v1.GraphDef.FromString(event.graph_def)
            graphs[run].append(graph)
    return dict(graphs)
