"""Fine-tunes EfficientNet-Lite0 with timm, using the parts of timm's training script.

    python benchmarks/peer_timm.py train PHOTOS SPLIT MODEL [--epochs N] [--seed N]
    python benchmarks/peer_timm.py predict PHOTOS SPLIT MODEL CSV [--tta N]

All weights from the first epoch on: AdamW, cosine schedule with a warm-up epoch, label
smoothing, random resized crops, mirror images and color jitter, and an exponential
moving average of the weights, which is the saved model. The learning rate, the crops
and the average are chosen for fine-tuning with few images, not for training on
ImageNet. SPLIT is the `split.json` of a run of keras-flowers. With `--tta 2`, the
prediction is averaged over the image and its mirror image.

`benchmarks/peers.py` runs this program.
"""

from typing import Any

import timm
import torch
from peer_parts import NETWORK, Images, run_command
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, random_seed
from torch.utils.data import DataLoader, Dataset

BATCH_SIZE = 32
WORKERS = 2


class Photos(Dataset):
    """Images of a part, each transformed when it is read."""

    def __init__(self, images: list[tuple[str, int]], transform: Any) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Returns the pixels and the label of an image."""
        path, label = self.images[index]
        return self.transform(Image.open(path).convert("RGB")), label


def train(
    images: Images, model: str, overlay: dict[str, Any], epochs: int, seed: int
) -> None:
    """Trains, and saves the averaged weights."""
    random_seed(seed)
    network = timm.create_model(
        NETWORK,
        pretrained=True,
        pretrained_cfg_overlay=overlay,
        num_classes=0,
        drop_rate=0.2,
    )
    # The initial weights of `num_classes` are those for 1000 classes: with few classes,
    # the logits would be far too large.
    network.reset_classifier(len(images.class_names))
    network.to(memory_format=torch.channels_last)
    transform = create_transform(
        **resolve_model_data_config(network),
        is_training=True,
        scale=(0.5, 1.0),
    )
    loader = DataLoader(
        Photos(images.parts["train"], transform),
        BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
    )
    optimizer = create_optimizer_v2(network, "adamw", lr=5e-4, weight_decay=0.05)
    schedule, _ = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=epochs,
        warmup_epochs=min(1, epochs - 1),
        warmup_lr=1e-5,
        min_lr=1e-6,
        step_on_epochs=False,
        updates_per_epoch=len(loader),
    )
    average = ModelEmaV3(network, decay=0.99, use_warmup=True)
    loss_function = LabelSmoothingCrossEntropy(0.1)
    network.train()
    step = 0
    for epoch in range(epochs):
        for pixels, labels in loader:
            pixels = pixels.to(memory_format=torch.channels_last)
            loss = loss_function(network(pixels), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            average.update(network, step=step)
            schedule.step_update(step)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}", flush=True)
    configuration = {"mean": overlay["mean"], "std": overlay["std"]}
    torch.save({"weights": average.module.state_dict(), **configuration}, model)


def predict(images: Images, model: str, views: int) -> Any:
    """Returns the probabilities of the test images."""
    saved = torch.load(model, weights_only=True)
    network = timm.create_model(
        NETWORK,
        num_classes=len(images.class_names),
        pretrained_cfg_overlay={"mean": saved["mean"], "std": saved["std"]},
    )
    network.load_state_dict(saved["weights"])
    network.eval().to(memory_format=torch.channels_last)
    transform = create_transform(**resolve_model_data_config(network))
    loader = DataLoader(
        Photos(images.parts["test"], transform), BATCH_SIZE, num_workers=WORKERS
    )
    rows = []
    with torch.inference_mode():
        for pixels, _ in loader:
            answer = network(pixels).softmax(dim=1)
            if views > 1:
                answer = (answer + network(pixels.flip(-1)).softmax(dim=1)) / 2
            rows.extend(answer.tolist())
    return rows


if __name__ == "__main__":
    run_command(train, predict, ("timm", "torch"))
