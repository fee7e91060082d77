"""From the options of `train` to the configuration of a run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli.backbones import resolve_backbone
from keras_flowers_cli.options import arguments_for, check_backbone_options
from keras_flowers_settings import ModelFacts, Setting
from keras_flowers_settings.data import (
    IMAGE_SIZE,
    RESIZE,
    TEST_SPLIT,
    VALIDATION_SPLIT,
)
from keras_flowers_settings.model import (
    AUGMENTATION,
    BACKBONE,
    DROPOUT,
    HIDDEN_UNITS,
    WEIGHTS,
)
from keras_flowers_settings.training import (
    EPOCHS,
    FINE_TUNE_AUGMENTATION,
    FINE_TUNE_EPOCHS,
    FINE_TUNE_LEARNING_RATE,
    INIT_FROM,
    LABEL_SMOOTHING,
    MIXED_PRECISION,
    OPTIMIZER,
    SCHEDULE,
    UNFREEZE_FROM,
    WARM_UP,
    WEIGHT_DECAY,
)

if TYPE_CHECKING:
    import keras

    from keras_flowers.data.dataset_loader import ImageDatasetLoader, ImageDatasets
    from keras_flowers.models.backbone import Backbone
    from keras_flowers.models.image_classifier import ImageClassifier
    from keras_flowers.training.config import TrainingConfig


# What trains a finished run further.
MORE_EPOCHS = (EPOCHS, FINE_TUNE_EPOCHS, FINE_TUNE_LEARNING_RATE, UNFREEZE_FROM)
# What the model of --init-from decides.
_OF_MODEL = (
    IMAGE_SIZE,
    RESIZE,
    HIDDEN_UNITS,
    DROPOUT,
    AUGMENTATION,
    BACKBONE,
    WEIGHTS,
    MIXED_PRECISION,
)
RateSearch = Callable[["keras.Model", "ImageDatasets"], float]


def check_options(given: dict[str, Any]) -> None:
    """Refuses options that contradict each other, before Keras is started."""
    check_backbone_options(given)
    _check_init_from(given)
    _check_splits(given)
    _check_fine_tuning(given)


def find_rate(model: "keras.Model", datasets: "ImageDatasets") -> float:
    """Returns the learning rate that a range test suggests."""
    from keras_flowers.training.learning_rate import find_learning_rate

    return find_learning_rate(model, datasets).suggestion


def build_config(
    data: str, given: dict[str, Any], find_rate: RateSearch = find_rate
) -> "TrainingConfig":
    """Returns the configuration of a new run.

    Args:
        data: The data source.
        given: The options that were given.
        find_rate: Called for the learning rate `auto` with the compiled model and the
            data.
    """
    from keras_flowers_cli.devices import mixed_precision_policy
    from keras_flowers_cli.models import load_classifier

    from keras_flowers.data.dataset_loader import ImageDatasetLoader
    from keras_flowers.training.config import FineTuning, TrainingConfig

    policy = mixed_precision_policy() if given.get("mixed_precision") else None
    initial = given.get(INIT_FROM.name)
    source = None if initial is None else load_classifier(initial)
    if source is not None:
        given = given | {"image_size": source.image_size, "resize": source.resize}
    loader = ImageDatasetLoader(
        data,
        keep_near_duplicates_together="split_near_duplicates" not in given,
        **arguments_for("ImageDatasetLoader", "train", given),
    )
    if source is None:
        loader, backbone = resolve_backbone(loader, given, policy)
    else:
        backbone = source.backbone
    builder = _ModelBuilder(given, loader, backbone, policy, find_rate)
    fine_tuning = None
    if "fine_tune_epochs" in given:
        fine_tuning = FineTuning(**arguments_for("FineTuning", "train", given))
    if fine_tuning is not None and builder.facts.is_from_scratch:
        raise click.UsageError(
            "--fine-tune-epochs needs a backbone with pretrained weights."
        )
    return TrainingConfig(
        loader,
        builder.build,
        fine_tuning=fine_tuning,
        **{
            **arguments_for("TrainingConfig", "train", given),
            "epochs": builder.value_of(EPOCHS),
        },
    )


def read_config(path: Path, given: dict[str, Any]) -> "TrainingConfig":
    """Returns the configuration in a `config.json`, with the options of storage."""
    from keras_flowers.training.config import TrainingConfig

    config = TrainingConfig.read(path)
    config = _add_epochs(config, given)
    arguments = arguments_for("ImageDatasetLoader", "train", given)
    loader = type(config.loader).from_config(
        {**config.loader.get_config(), **arguments}
    )
    return dataclasses.replace(config, loader=loader)


def _add_epochs(config: "TrainingConfig", given: dict[str, Any]) -> "TrainingConfig":
    """Returns the configuration with the epochs that were given, if any."""
    from keras_flowers.training.config import FineTuning

    tuning, arguments = config.fine_tuning, arguments_for("FineTuning", "train", given)
    if tuning is not None:
        tuning = dataclasses.replace(tuning, **arguments)
    elif arguments:
        if "epochs" not in arguments:
            raise click.UsageError("Fine-tuning needs --fine-tune-epochs.")
        tuning = FineTuning(**arguments)
    return config.with_epochs(given.get(EPOCHS.name), tuning)


@dataclasses.dataclass(frozen=True)
class _ModelBuilder:
    """Builds the model that the command line describes."""

    given: dict[str, Any]
    loader: "ImageDatasetLoader"
    backbone: "Backbone | None"
    policy: str | None
    find_rate: RateSearch

    @property
    def facts(self) -> ModelFacts:
        """What automatic defaults depend on."""
        backbone = self.backbone
        is_pretrained = backbone is not None and backbone.is_pretrained
        is_linear = is_pretrained and not {"hidden_units", "dropout"} & set(self.given)
        facts = ModelFacts(
            backbone is not None,
            is_pretrained,
            has_linear_head=is_linear,
            is_multi_label=self.loader.gives_several_labels,
        )
        schedule = self.given.get("schedule", SCHEDULE.default_for(facts))
        return dataclasses.replace(facts, is_cosine=schedule == "cosine")

    def value_of(self, setting: Setting) -> Any:
        """Returns the given value, or the default for the model."""
        return self.given.get(setting.name, setting.default_for(self.facts))

    def build(self, datasets: "ImageDatasets") -> "keras.Model":
        """Returns the compiled model for the loaded data."""
        from keras_flowers.models.image_classifier import ImageClassifier
        from keras_flowers.models.transfer import build_like, transfer_weights

        initial = self.given.get(INIT_FROM.name)
        if initial is not None:
            model = build_like(initial, datasets.class_names, self.loader.seed)
            if self.given.get("learning_rate") == "auto":
                transfer_weights(model, initial)  # the test starts where training does
            self._compile(model, datasets)
            return model
        arguments = arguments_for("ImageClassifier", "train", self.given)
        arguments["backbone"] = self.backbone
        if not self.facts.is_pretrained:
            arguments["hidden_units"] = self.value_of(HIDDEN_UNITS)
        if self.facts.is_from_scratch:
            arguments["augmentation"] = self.value_of(AUGMENTATION)
        model = ImageClassifier(
            datasets.class_names,
            image_size=datasets.image_size,
            seed=self.loader.seed,
            resize=datasets.image_options.resize,
            multi_label=datasets.multi_label,
            dtype=self.policy,
            **arguments,
        )
        self._compile(model, datasets)
        return model

    def _compile(self, model: "ImageClassifier", datasets: "ImageDatasets") -> None:
        options = {"label_smoothing": self.value_of(LABEL_SMOOTHING)}
        if "xla" in self.given:
            options["jit_compile"] = self.given["xla"]
        rate = self.given.get("learning_rate")
        if rate == "auto":
            model.compile(self._optimizer(datasets, None), **options)
            rate = self.find_rate(model, datasets)
        model.compile(self._optimizer(datasets, rate), **options)

    def _optimizer(
        self, datasets: "ImageDatasets", rate: float | None
    ) -> "keras.optimizers.Optimizer":
        import keras

        from keras_flowers.models.heads import linear_head_optimizer
        from keras_flowers.models.label_modes import choose_label_mode
        from keras_flowers.optimizers import Muon
        from keras_flowers.training.schedules import (
            warm_up_and_cosine,
            warm_up_and_hold,
        )
        from keras_flowers.training.stages import steps_per_epoch

        arguments: dict[str, Any] = {} if rate is None else {"learning_rate": rate}
        name = self.value_of(OPTIMIZER)
        if name == "muon" and not self.facts.is_from_scratch:
            raise click.UsageError(
                "--optimizer muon trains convolutions: use it with a network without "
                "pretrained weights, such as --backbone small_convnet."
            )
        if name == "sgd" and self.facts.has_linear_head:
            penalty = choose_label_mode(datasets.multi_label).head_penalty
            config = linear_head_optimizer(penalty=penalty).get_config()
            arguments = {**config, **arguments}
        if "weight_decay" in self.given or self.facts.is_from_scratch:
            arguments["weight_decay"] = self.value_of(WEIGHT_DECAY)
        if name == "muon":
            # Keras's own of that name leaves convolutions to AdamW.
            optimizer: keras.optimizers.Optimizer = Muon(**arguments)
        else:
            optimizer = keras.optimizers.get({"class_name": name, "config": arguments})
        warm_up, is_cosine = self.value_of(WARM_UP), self.facts.is_cosine
        if warm_up or is_cosine:
            highest = float(optimizer.learning_rate)
            steps = self.value_of(EPOCHS) * steps_per_epoch(datasets)
            schedule = warm_up_and_cosine if is_cosine else warm_up_and_hold
            arguments["learning_rate"] = schedule(highest, steps, warm_up)
            optimizer = type(optimizer)(**arguments)
        return optimizer


def _check_splits(given: dict[str, Any]) -> None:
    if "split_manifest" in given:
        if "validation_split" in given or "test_split" in given:
            raise click.UsageError(
                "--split-manifest replaces --validation-split and --test-split."
            )
        return
    validation = given.get("validation_split", VALIDATION_SPLIT.default)
    test = given.get("test_split", TEST_SPLIT.default)
    if validation + test >= 1:
        raise click.UsageError(
            "--validation-split and --test-split must leave images to train on. "
            f"Received: {validation} and {test}."
        )
    if "early_stopping" in given and validation == 0:
        raise click.UsageError("--early-stopping needs a --validation-split above 0.")


def _check_init_from(given: dict[str, Any]) -> None:
    if INIT_FROM.name not in given:
        return
    for setting in _OF_MODEL:
        if setting.name in given:
            raise click.UsageError(f"--init-from replaces {setting.flag}.")


def _check_fine_tuning(given: dict[str, Any]) -> None:
    if "fine_tune_epochs" in given:
        if "backbone" not in given and INIT_FROM.name not in given:
            raise click.UsageError("--fine-tune-epochs needs a --backbone.")
        return
    needing = (FINE_TUNE_LEARNING_RATE, FINE_TUNE_AUGMENTATION, UNFREEZE_FROM)
    for setting in needing:
        if setting.name in given:
            raise click.UsageError(f"{setting.flag} needs --fine-tune-epochs.")
