"""Runs in MLflow's own store and in the offline files of Weights & Biases."""

import json

import pytest
from helpers import draw_images
from keras_flowers_cli.main import run as run_command

from keras_flowers import InputError
from keras_flowers.training import trackers

SMALL = [
    "--image-size",
    "8",
    "--hidden-units",
    "4",
    "--batch-size",
    "4",
    "--no-tensorboard",
]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    draw_images(tmp_path / "photos", {"daisy": 6, "roses": 6})
    return tmp_path


# MLflow uses what SQLAlchemy deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_is_in_both_trackers(photos):
    import mlflow

    store = f"sqlite:///{photos}/mlflow.db"
    arguments = ["train", "photos", *SMALL, "--run-dir", "run", "--epochs", "2"]
    code = run_command([*arguments, "--mlflow", store, "--wandb", "flowers"])
    assert code == 0
    client = mlflow.MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("keras-flowers")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert found.data.params["epochs"] == "2"
    assert found.data.params["data"] == str(photos / "photos")
    history = json.loads((photos / "run" / "history.json").read_text())
    for name in ("val_accuracy", "loss", "learning_rate"):
        rows = client.get_metric_history(found.info.run_id, name)
        assert [row.step for row in rows] == [1, 2]
        assert [row.value for row in rows] == pytest.approx(history[name], rel=1e-5)
    sent = {one.path for one in client.list_artifacts(found.info.run_id)}
    assert sent == {"report.html", "history.csv", "history.png", "model.keras"}

    (offline,) = (photos / "wandb").glob("offline-run-*")
    identity = json.loads((photos / "run" / "wandb.json").read_text())["run_id"]
    assert offline.name.endswith(identity)
    (log,) = offline.glob("*.wandb")
    content = log.read_bytes()
    for text in (b"val_accuracy", b"flowers", b"report.html", b"model.keras"):
        assert text in content

    # A training that fails is a failed run, and the resumed one is the same run.
    tracker = trackers.MlflowTracker("run", store)
    with pytest.raises(RuntimeError), tracker:
        tracker.on_train_begin()
        status = client.get_run(found.info.run_id).info.status
        raise RuntimeError
    assert status == "RUNNING"
    assert client.get_run(found.info.run_id).info.status == "FAILED"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_store_that_cannot_be_used_is_named_first(photos, capsys):
    arguments = ["train", "photos", *SMALL, "--run-dir", "run"]
    assert run_command([*arguments, "--mlflow=nonsense://x"]) == 2
    assert "MLflow cannot use nonsense://x" in capsys.readouterr().err
    assert not (photos / "run").exists()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_named_before_anything_is_loaded(
    name, photos, capsys, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("keras_flowers_cli.runtime.start_keras", pytest.fail)
    assert run_command(["train", "photos", f"--{name}"]) == 2
    message = f'pip install "keras-flowers[{name}]"'
    assert message in capsys.readouterr().err
    with pytest.raises(InputError, match="needs the package"):
        trackers.require_package(name)
