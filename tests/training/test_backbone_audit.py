"""Audits with a backbone, from a folder to findings, pages, tables and training."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest
from helpers import draw_images, tiny_network
from keras_flowers_cli.main import run
from PIL import Image

from keras_flowers import (
    Backbone,
    ImageDatasetLoader,
    InputError,
    audit_with_backbone,
)

COUNTS = {"daisy": 12, "roses": 12, "tulips": 12}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photos of which one is in the wrong folder, one dark and one mirrored."""
    folder = tmp_path_factory.mktemp("place")
    photos = draw_images(folder / "photos", COUNTS)
    (photos / "roses" / "003.png").rename(photos / "daisy" / "wrong.png")
    Image.new("RGB", (16, 12), (4, 0, 2)).save(photos / "tulips" / "dark.png")
    tiny_network().save(folder / "tiny.keras")
    return folder


@pytest.fixture(autouse=True)
def in_the_place(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(place / "cache"))


def found_by_kind(findings):
    kinds = {}
    for finding in findings:
        kinds.setdefault(finding["kind"], []).append(finding)
    return kinds


def test_an_audit_finds_wrong_labels_that_can_be_corrected(capsys):
    line = ["audit", "photos", "--backbone", "tiny.keras", "--feature-views", "2"]
    outputs = ["--html", "pages/audit.html", "--relabel", "new/relabel.csv"]
    assert run([*line, *outputs, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    kinds = found_by_kind(result["findings"])
    issues = {finding["paths"][0]: finding for finding in kinds["label_issue"]}
    wrong = issues["daisy/wrong.png"]
    assert wrong["paths"] == wrong["exclude"] == ["daisy/wrong.png"]
    assert (wrong["given"], wrong["suggested"]) == ("daisy", "roses")
    scores = [finding["score"] for finding in kinds["label_issue"]]
    assert scores == sorted(scores) and 0 <= scores[0] <= wrong["score"] < 0.3
    assert kinds["dark"][0]["paths"] == ["tulips/dark.png"]
    page = Path("pages/audit.html").read_text()
    section = page.split('<section id="label_issue"')[1].split("</section>")[0]
    assert "<img " in section and "--exclude-kinds label_issue" in section

    # The table replaces the labels as it is, or as somebody has edited it.
    with Path("new/relabel.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows][: len(issues)] == list(issues)
    assert len(rows) == 37
    given = {row["path"]: (row["given"], row["suggested"]) for row in rows}
    assert given["daisy/wrong.png"] == ("daisy", "roses")
    assert given["tulips/000.png"] == ("tulips", "tulips")
    loader = ImageDatasetLoader("photos", labels="new/relabel.csv")
    records = {record.path: record.class_name for record in loader.audit().images}
    assert records["daisy/wrong.png"] == "roses"
    assert records["tulips/000.png"] == "tulips"

    # The saved audit chooses what to leave out.
    Path("audit.json").write_text(json.dumps(result))
    loader = ImageDatasetLoader(
        "photos", exclude="audit.json", exclude_kinds=["label_issue", "dark"]
    )
    assert set(loader.audit().excluded) >= {"daisy/wrong.png", "tulips/dark.png"}


def test_what_cannot_be_used_is_refused(capsys, monkeypatch):
    with pytest.raises(InputError, match="pretrained weights"):
        audit_with_backbone("photos", Backbone("small_convnet", image_size=(32, 32)))
    assert run(["audit", "photos", "--relabel", "relabel.csv"]) == 2
    assert "--relabel needs a --backbone." in capsys.readouterr().err
    assert run(["audit", "photos", "--feature-views", "2"]) == 2
    assert "--feature-views needs a --backbone." in capsys.readouterr().err

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *args: None if name == "cleanvision" else find_spec(name, *args),
    )
    assert run(["audit", "photos", "--backbone", "tiny.keras"]) == 2
    message = capsys.readouterr().err
    assert 'pip install "keras-flowers[audit]"' in message and "cleanvision" in message
    with pytest.raises(InputError, match=r"cleanvision.*keras-flowers\[audit\]"):
        audit_with_backbone("photos", "tiny.keras")
    assert run(["audit", "photos"]) == 0


def test_train_cross_validates_the_head(capsys):
    line = ["train", "photos", "--backbone", "tiny.keras", "--epochs", "1"]
    assert run([*line, "--folds", "3", "--run-dir", "folded", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["cross_validation"]
    assert result["folds"] == len(result["accuracies"]) == 3
    low, high = result["accuracy_interval"]
    assert low < result["accuracy"] < high and result["photos"] == 37
    assert result["mean"] == pytest.approx(sum(result["accuracies"]) / 3)
    with Path("folded/out_of_fold.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    split = json.loads(Path("folded/split.json").read_text())
    assert {row["path"] for row in rows} == {one["path"] for one in split["photos"]}
    assert len(rows) == 37
    assert {row["fold"] for row in rows} == {"1", "2", "3"}
    is_right = [row["class_1"] == row["true_class"] for row in rows]
    assert sum(is_right) / 37 == pytest.approx(result["accuracy"])
    assert "Cross-validation" in Path("folded/report.html").read_text()

    # A finished run can be cross-validated later, in other folds.
    Path("folded/out_of_fold.csv").unlink()
    assert run(["train", "--resume", "folded", "--folds", "2"]) == 0
    assert "Cross-validation of a linear head, 2 folds, 37" in capsys.readouterr().out
    assert Path("folded/out_of_fold.csv").exists()


def test_folds_need_a_head_on_cached_features(capsys):
    for options, message in (
        (["--folds", "3"], "--folds needs a --backbone."),
        (["--folds", "3", "--backbone", "tiny.keras", "--augmentation"], "--backbone"),
        (
            ["--folds", "3", "--backbone", "tiny.keras", "--hidden-units", "8"],
            "hidden layers",
        ),
        (["--folds", "30", "--backbone", "tiny.keras"], "an image for each fold"),
    ):
        assert run(["train", "photos", *options, "--run-dir", "none"]) == 2
        assert message in capsys.readouterr().err
        assert not Path("none").exists()


def test_several_labels_per_image(capsys):
    paths = [path.relative_to("photos") for path in Path("photos").rglob("*.png")]
    given = {str(path): [path.parent.name, "png"] for path in paths}
    given["roses/005.png"] = ["png"]  # lacks its class
    rows = [f"{path},{'|'.join(labels)}" for path, labels in given.items()]
    Path("labels.csv").write_text("\n".join(["path,labels", *rows]))
    line = ["photos", "--labels", "labels.csv", "--label-separator", "|"]
    backbone = ["--backbone", "tiny.keras"]
    audit = ["audit", *line, *backbone, "--relabel", "relabel.csv", "--json"]
    assert run(audit) == 0
    kinds = found_by_kind(json.loads(capsys.readouterr().out)["findings"])
    issues = {finding["paths"][0]: finding for finding in kinds["label_issue"]}
    wrong, lacking = issues["daisy/wrong.png"], issues["roses/005.png"]
    assert wrong["given"] == ["daisy", "png"]
    assert "roses" in wrong["suggested"] and "daisy" not in wrong["suggested"]
    assert lacking["suggested"] == ["png", "roses"]
    assert "also roses (score 0." in lacking["message"]
    scores = [finding["score"] for finding in kinds["label_issue"]]
    assert scores == sorted(scores) and scores[-1] < 0.5
    assert len(issues) < 8
    loader = ImageDatasetLoader("photos", labels="relabel.csv", label_separator="|")
    records = {record.path: record.class_names for record in loader.audit().images}
    assert records["roses/005.png"] == ("png", "roses")
    assert records["tulips/000.png"] == ("png", "tulips")

    folds = ["--folds", "3", "--epochs", "1", "--run-dir", "labeled", "--json"]
    assert run(["train", *line, *backbone, *folds]) == 0
    result = json.loads(capsys.readouterr().out)["cross_validation"]
    scores = result["mean_average_precisions"]
    assert result["mean"] == pytest.approx(sum(scores) / 3)
    low, high = result["mean_average_precision_interval"]
    assert low < result["mean_average_precision"] < high
    assert result["mean_average_precision"] > 0.8
    with Path("labeled/out_of_fold.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["fold"] for row in rows} == {"1", "2", "3"}
    assert {row["true_labels"].split("|")[0] for row in rows} == {"daisy", "png"}
    page = Path("labeled/report.html").read_text()
    assert "Mean average precision on each fold" in page
