import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from keras_flowers_settings import describe_run, hyperparameters

OLD = Path(__file__).parents[1] / "saved_by_0_1"


def read(name):
    return json.loads((OLD / name / "run" / "config.json").read_text())


@pytest.fixture
def dense():
    return read("dense")


def rows_of(config):
    return {row.label: row for group in describe_run(config) for row in group.rows}


def test_the_groups_are_those_people_think_in(dense):
    groups = {group.name: group.rows for group in describe_run(dense)}
    assert list(groups) == ["data", "model", "training", "environment"]
    assert "image size" in [row.label for row in groups["data"]]
    assert "dropout" in [row.label for row in groups["model"]]
    assert "learning rate" in [row.label for row in groups["training"]]
    assert {"keras", "backend"} <= {row.label for row in groups["environment"]}


@pytest.mark.parametrize(
    ("label", "value", "is_default"),
    [
        ("data", "/tmp/flowers/work/images", False),
        ("image size", "8", False),
        ("validation split", "0.2", True),
        ("split manifest", "none", True),
        ("backbone", "none", True),
        ("dropout", "0.2", False),
        ("augmentation", "yes", True),
        ("learning rate", "0.01", False),
        ("schedule", "constant", True),
        ("early stopping", "none", True),
        ("xla", "where it pays", True),
        ("disk budget", "32 GiB", True),
        ("cache dir", "/tmp/flowers/cache", False),
        ("keras", "3.15.1", True),
    ],
)
def test_a_run_of_0_1(dense, label, value, is_default):
    row = rows_of(dense)[label]
    assert (row.value, row.is_default) == (value, is_default)


def test_defaults_depend_on_the_backbone(dense):
    with_backbone = rows_of(read("backbone"))
    assert with_backbone["backbone"].value == "tiny"
    assert with_backbone["pretrained weights"].value.endswith("network.keras")
    assert "pretrained weights" not in rows_of(dense)
    for label, without, with_one in (
        ("dropout", "0.2", "0.3"),
        ("augmentation", "yes", "no"),
    ):
        assert rows_of(dense)[label].value == without
        assert with_backbone[label].value == with_one
        assert with_backbone[label].is_default
    assert not with_backbone["schedule"].is_default  # it would be cosine
    config = read("backbone")
    config["model"]["config"]["backbone"]["config"]["pretrained_weights"] = None
    assert rows_of(config)["augmentation"].value == "yes"
    config["epochs"] = 40
    assert rows_of(config)["epochs"].is_default
    assert not rows_of(dense | {"epochs": 40})["epochs"].is_default


def test_a_schedule_is_described_by_its_highest_rate(dense):
    optimizer = dense["model"]["compile_config"]["optimizer"]
    schedule = {"initial_learning_rate": 0.0, "warmup_target": 0.001}
    optimizer["config"]["learning_rate"] = {
        "class_name": "CosineDecay",
        "config": schedule,
    }
    # As mixed precision keeps it.
    dense["model"]["compile_config"]["optimizer"] = {
        "class_name": "LossScaleOptimizer",
        "config": {"inner_optimizer": optimizer},
    }
    rows = rows_of(dense)
    assert rows["optimizer"].value == "adam"
    assert (rows["learning rate"].value, rows["learning rate"].is_default) == (
        "0.001",
        True,
    )
    assert (rows["schedule"].value, rows["schedule"].is_default) == ("cosine", False)


def test_fine_tuning_is_described_where_there_is_some(dense):
    tuned = dense | {
        "fine_tuning": {"epochs": 2, "learning_rate": 3e-4, "unfreeze_from": None}
    }
    rows = rows_of(tuned)
    assert rows["fine tune epochs"].value == "2"
    assert rows["fine tune learning rate"].is_default
    assert rows["unfreeze from"].value == "all"
    assert "unfreeze from" not in rows_of(dense)
    assert hyperparameters(tuned)["fine_tuning_epochs"] == 2
    assert hyperparameters(dense)["fine_tuning_epochs"] == 0


def test_what_only_python_can_say_is_described(dense):
    dense["class_weights"] = {"daisy": 1.0, "roses": 2.0}
    dense["model"]["config"]["augmentation"] = {"class_name": "RandomFlip"}
    dense["model"]["config"]["dtype"] = "mixed_bfloat16"
    rows = rows_of(dense)
    assert rows["class weights"].value == "given"
    assert rows["augmentation"].value == "RandomFlip"
    assert rows["mixed precision"].value == "yes"
    values = hyperparameters(dense)
    assert (values["class_weights"], values["augmentation"]) == ("given", "RandomFlip")


def test_another_model_has_no_rows_of_a_classifier(dense):
    names = set(hyperparameters(dense))
    dense["model"] |= {"registered_name": "Functional", "class_name": "Functional"}
    dense["model"]["config"]["dropout"] = 0.7  # of that model's own meaning
    rows = rows_of(dense)
    assert rows["model"].value == "Functional"
    assert not {"dropout", "hidden units", "backbone"} & set(rows)
    values = hyperparameters(dense)
    assert set(values) == names
    assert values["dropout"] == 0.0
    assert values["augmentation"] == "no"
    assert values["hidden_units"] == ""
    assert values["backbone"] == "none"


def test_describing_changes_nothing(dense):
    before = copy.deepcopy(dense)
    describe_run(dense)
    hyperparameters(dense)
    assert dense == before


def test_the_settings_import_only_the_standard_library():
    program = (
        "import sys; before = set(sys.modules); import keras_flowers_settings\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "other = new - set(sys.stdlib_module_names) - {'keras_flowers_settings'}\n"
        "assert not other, other"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
