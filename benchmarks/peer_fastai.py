"""Fine-tunes EfficientNet-Lite0 with fastai, the way its documentation does.

    python benchmarks/peer_fastai.py train PHOTOS SPLIT MODEL [--epochs N] [--seed N]
    python benchmarks/peer_fastai.py predict PHOTOS SPLIT MODEL CSV [--tta N]

`vision_learner` and `fine_tune` with the defaults of fastai: one epoch with frozen
weights, then all of them with rates by depth. Presizing to 460 pixels and the standard
augmentation at 224. `ChannelsLast` halves the time on a CPU and does not change the
result. SPLIT is the `split.json` of a run of keras-flowers. With `--tta`, the
prediction is fastai's test-time augmentation of N augmented views and the image.

`benchmarks/peers.py` runs this program.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from fastai.callback.channelslast import ChannelsLast
from fastai.vision.all import (
    ImageDataLoaders,
    Resize,
    accuracy,
    aug_transforms,
    load_learner,
    set_seed,
    vision_learner,
)
from peer_parts import NETWORK, Images, run_command


def train(
    images: Images, model: str, overlay: dict[str, Any], epochs: int, seed: int
) -> None:
    """Trains, and saves the learner."""
    set_seed(seed, reproducible=True)
    table = pd.DataFrame(
        [
            (path, images.class_names[label], part == "validation")
            for part in ("train", "validation")
            for path, label in images.parts[part]
        ],
        columns=["path", "label", "is_validation"],
    )
    data = ImageDataLoaders.from_df(
        table,
        path="/",
        fn_col="path",
        label_col="label",
        valid_col="is_validation",
        item_tfms=Resize(460),
        batch_tfms=aug_transforms(size=224, min_scale=0.75),
    )
    learner = vision_learner(
        data,
        NETWORK,
        metrics=accuracy,
        cbs=ChannelsLast(),
        pretrained_cfg_overlay=overlay,
    )
    learner.fine_tune(epochs)
    learner.path = Path(model).parent
    learner.export(Path(model).name)


def predict(images: Images, model: str, views: int) -> Any:
    """Returns the probabilities of the test images."""
    learner = load_learner(model)
    if list(learner.dls.vocab) != images.class_names:
        raise SystemExit(f"The classes are not in the order of {images.class_names}.")
    paths = [path for path, _ in images.parts["test"]]
    loader = learner.dls.test_dl(paths)
    if views > 1:
        return learner.tta(dl=loader, n=views)[0].tolist()
    return learner.get_preds(dl=loader)[0].tolist()


if __name__ == "__main__":
    run_command(train, predict, ("fastai", "timm", "torch"))
