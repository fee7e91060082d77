"""One pass of all images through a network, as one writes it with Keras alone.

    python benchmarks/plain_forward.py PHOTOS BACKBONE.keras

Prints one JSON line: the seconds that loading the network took, and those of the pass,
which reads, decodes and resizes the images. The imports come before both.
"""

import json
import sys
import time

import keras


def main(folder: str, file: str) -> None:
    """Passes all images through the network and prints what it took."""
    begin = time.perf_counter()
    network = keras.models.load_model(file, compile=False)
    loaded = time.perf_counter()
    height, width = network.input_shape[1:3]
    images = keras.utils.image_dataset_from_directory(
        folder,
        labels=None,
        image_size=(height or 224, width or 224),
        batch_size=32,
        shuffle=False,
        verbose=False,
    )
    features = network.predict(images, verbose=0)
    result = {
        "load": loaded - begin,
        "seconds": time.perf_counter() - loaded,
        "photos": len(features),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
