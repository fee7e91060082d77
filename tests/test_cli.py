import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import pytest
from helpers import draw_photos
from keras_flowers_cli.main import run

COUNTS = {"daisy": 8, "roses": 7, "tulips": 6}
SMALL = ["--image-size", "8", "--hidden-units", "8", "--epochs", "2"]
RESULTS = {
    "audit.json",
    "config.json",
    "history.csv",
    "history.json",
    "history.png",
    "model.keras",
    "split.json",
}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory, trained once, and its photos."""
    folder = tmp_path_factory.mktemp("trained")
    photos = draw_photos(folder / "photos", COUNTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_FLOWERS_CACHE", str(folder / "cache"))
        code = run(["train", str(photos), *SMALL, "--run-dir", str(folder / "run")])
    assert code == 0
    return folder


def files(folder):
    return {path.name for path in folder.iterdir()}


def assert_bad_input(capsys, arguments, *named):
    """Exit code 2, one or two lines on stderr that name what is wrong."""
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) <= 2, error
    assert error.startswith("error: ")
    assert "Traceback" not in error
    for text in named:
        assert text in error, error


# --- train


def test_train_says_what_it_found_and_writes_the_run(tmp_path, capsys):
    photos = draw_photos(tmp_path / "photos", COUNTS)
    (photos / "daisy" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert run(["train", str(photos), *SMALL]) == 0
    shown = capsys.readouterr().out
    for text in (
        "daisy/broken.jpg",
        "CPU",
        "No GPU is in use",
        "Epoch 2/2",
        "val_accuracy",
        "model.keras",
    ):
        assert text in shown, text
    (directory,) = (tmp_path / "runs").iterdir()
    assert directory.name.startswith("photos-")
    assert files(directory) == RESULTS


def test_train_json_is_json_alone_on_stdout(tmp_path, capsys):
    photos = draw_photos(tmp_path / "photos", COUNTS)
    assert run(["train", str(photos), *SMALL, "--run-dir", "run", "--json"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result["run_directory"] == "run"
    assert len(result["history"]["val_accuracy"]) == 2
    assert result["counts"]["validation"] == {"daisy": 2, "roses": 1, "tulips": 1}
    assert "Epoch 2/2" in shown.err


def test_every_option_of_train_arrives(tmp_path):
    photos = draw_photos(tmp_path / "photos", COUNTS)
    options = (
        "--epochs 1 --batch-size 4 --image-size 8x10 --hidden-units 6,5 --dropout 0.1 "
        "--optimizer sgd --learning-rate 0.5 --validation-split 0.3 --test-split 0.2 "
        "--seed 7 --no-augmentation --early-stopping 3 --class-weights balanced "
        "--mixed-precision --run-dir run --cache-dir other --disk-budget 1MB "
        "--max-extracted-size 2GB --max-extracted-files 50"
    )
    assert run(["train", str(photos), *options.split()]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    loader = config["loader"]["config"]
    assert (
        loader
        | {
            "data": str(photos.absolute()),
            "image_size": [8, 10],
            "batch_size": 4,
            "validation_split": 0.3,
            "test_split": 0.2,
            "seed": 7,
            "cache_directory": "other",
            "disk_budget": 10**6,
            "max_extracted_size": 2 * 10**9,
            "max_extracted_files": 50,
        }
        == loader
    )
    model = config["model"]["config"]
    assert model["hidden_units"] == [6, 5]
    assert model["dropout"] == 0.1
    assert model["augmentation"] is False
    assert model["seed"] == 7
    assert (config["epochs"], config["early_stopping"]) == (1, 3)
    assert config["class_weights"] == "balanced"
    trained = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert trained.optimizer.name.lower() == "sgd"
    assert float(trained.optimizer.learning_rate) == 0.5
    assert trained.layers[-2].compute_dtype == "bfloat16"


def test_train_repeats_a_run_from_its_config(trained, capsys):
    again = trained / "again"
    config = trained / "run" / "config.json"
    assert run(["train", "--config", str(config), "--run-dir", str(again)]) == 0
    capsys.readouterr()
    first, second = (
        json.loads((trained / name / "history.json").read_text())
        for name in ("run", "again")
    )
    assert first["val_loss"] == second["val_loss"]


def test_train_beyond_the_disk_budget_says_so_in_one_line(tmp_path, capsys):
    photos = draw_photos(tmp_path / "photos", COUNTS)
    assert run(["train", str(photos), *SMALL, "--disk-budget", "0"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len([line for line in shown if "decoded on the fly" in line]) == 1


def test_ctrl_c_saves_and_ends_with_130(tmp_path, capsys, monkeypatch):
    photos = draw_photos(tmp_path / "photos", COUNTS)
    fit = keras.Model.fit

    def interrupted(self, *arguments, **options):
        fit(self, *arguments, **options | {"epochs": 1})
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "fit", interrupted)
    assert run(["train", str(photos), *SMALL, "--run-dir", "run"]) == 130
    assert "Interrupted" in capsys.readouterr().out
    assert files(tmp_path / "run") == RESULTS


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("train", ["DATA", "--config"]),
        ("train photos --config missing.json", ["--config"]),
        ("train photos --epochs 0", ["--epochs", "0"]),
        ("train photos --epochs many", ["--epochs", "many"]),
        ("train photos --batch-size -1", ["--batch-size"]),
        ("train photos --image-size 0", ["--image-size"]),
        ("train photos --image-size 100000", ["--image-size", "4096"]),
        ("train photos --image-size big", ["--image-size", "big"]),
        ("train photos --hidden-units 5,x", ["--hidden-units", "5,x"]),
        ("train photos --learning-rate 0", ["--learning-rate"]),
        ("train photos --learning-rate nan", ["--learning-rate"]),
        ("train photos --optimizer magic", ["--optimizer", "magic", "adam"]),
        ("train photos --validation-split 1", ["--validation-split"]),
        ("train photos --validation-split 0.6 --test-split 0.5", ["--test-split"]),
        ("train photos --early-stopping 2 --validation-split 0", ["--early-stopping"]),
        ("train photos --class-weights odd", ["--class-weights", "odd"]),
        ("train photos --disk-budget lots", ["--disk-budget", "lots"]),
        ("train photos --fast", ["--fast"]),
        ("fly", ["fly"]),
        ("predict", ["MODEL"]),
        ("predict model.keras", ["model.keras"]),
        ("evaluate missing.keras photos", ["missing.keras"]),
        ("sample", ["DIRECTORY"]),
        ("sample photos --photos-per-class 0", ["--photos-per-class"]),
        ("audit", ["DATA"]),
        ("doctor now", ["now"]),
    ],
)
def test_usage_errors(capsys, tmp_path, arguments, named):
    before = files(tmp_path)
    assert_bad_input(capsys, arguments.split(), *named)
    assert files(tmp_path) == before


def test_an_option_beside_config_is_refused(capsys, trained):
    config = trained / "run" / "config.json"
    assert_bad_input(
        capsys, ["train", "--config", config, "--epochs", "3"], "--config", "--epochs"
    )


def empty_folder(folder):
    folder.mkdir()


def one_class(folder):
    draw_photos(folder, {"daisy": 3})


def photos_without_class_folders(folder):
    draw_photos(folder, {"daisy": 3})
    for photo in (folder / "daisy").iterdir():
        photo.rename(folder / photo.name)
    (folder / "daisy").rmdir()


def a_class_too_small_to_split(folder):
    draw_photos(folder, {"daisy": 5, "roses": 1})


def no_readable_photo(folder):
    for name in ("daisy", "roses"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.jpg").write_bytes(b"\xff\xd8\xff")


def a_text_file(folder):
    folder.write_text("not photos")


def an_archive_that_escapes(folder):
    with zipfile.ZipFile(folder, "w") as archive:
        archive.writestr("../evil.jpg", b"\xff\xd8\xff")


@pytest.mark.parametrize("command", ["train", "audit"])
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda folder: None, "bad"),
        (empty_folder, "bad"),
        (one_class, "daisy"),
        (photos_without_class_folders, "class"),
        (a_class_too_small_to_split, "roses"),
        (no_readable_photo, "bad"),
        (a_text_file, "bad"),
        (an_archive_that_escapes, "evil.jpg"),
    ],
)
def test_bad_data(capsys, tmp_path, command, make, named):
    if command == "audit" and make is a_class_too_small_to_split:
        return  # an audit is fine with it
    make(tmp_path / "bad")
    before = sorted(path for path in (tmp_path / "bad").rglob("*"))
    assert_bad_input(capsys, [command, "bad"], named)
    assert sorted(path for path in (tmp_path / "bad").rglob("*")) == before
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "evil.jpg").exists()


def test_a_url_that_does_not_answer(capsys):
    url = "http://127.0.0.1:9/photos.tgz"
    assert_bad_input(capsys, ["train", url], url)


def test_a_run_directory_that_holds_a_run(capsys, trained):
    photos, directory = trained / "photos", trained / "run"
    before = {path: path.read_bytes() for path in directory.iterdir()}
    assert_bad_input(
        capsys, ["train", photos, *SMALL, "--run-dir", directory], str(directory)
    )
    assert {path: path.read_bytes() for path in directory.iterdir()} == before


def test_a_run_directory_that_cannot_be_written(capsys, trained):
    (trained / "file").write_text("")
    place = trained / "file" / "run"
    assert_bad_input(
        capsys, ["train", trained / "photos", *SMALL, "--run-dir", place], "file"
    )


def test_a_full_disk(capsys, trained, monkeypatch):
    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device", "model.keras")

    monkeypatch.setattr(keras.Model, "save", full)
    arguments = ["train", trained / "photos", *SMALL, "--run-dir", "run"]
    assert_bad_input(capsys, arguments, "No space left", "model.keras")


def test_debug_shows_the_traceback(capsys):
    assert run(["train", "missing", "--debug"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "error: " in shown


def test_a_defect_is_told_apart_from_bad_input(capsys, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("a defect\nwith details")

    monkeypatch.setattr("keras_flowers.catalog.scan", broken)
    draw_photos(Path("photos"), COUNTS)
    assert run(["audit", "photos"]) == 1
    shown = capsys.readouterr().err
    assert shown == "unexpected RuntimeError: a defect (--debug shows where)\n"


# --- predict


def test_predict_photos_and_folders(trained, capsys, tmp_path):
    model = trained / "run" / "model.keras"
    photo = trained / "photos" / "roses" / "000.png"
    folder = trained / "photos" / "tulips"
    arguments = ["predict", model, photo, folder, "--csv", "out.csv", "--json"]
    assert run(list(map(str, arguments))) == 0
    shown = capsys.readouterr()
    results = json.loads(shown.out)
    assert [result["path"] for result in results] == [
        str(photo),
        *(str(folder / f"{i:03}.png") for i in range(6)),
    ]
    for result in results:
        assert len(result["top"]) == 3
        assert result["class"] == result["top"][0]["class"]
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "path,class,daisy,roses,tulips"
    assert len(lines) == 8


def test_predict_top(trained, capsys):
    arguments = ["predict", "run/model.keras", "photos/roses/000.png", "--top", "1"]
    arguments[1:3] = [str(trained / argument) for argument in arguments[1:3]]
    assert run([*arguments, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert len(result["top"]) == 1
    assert run(arguments) == 0
    assert "000.png" in capsys.readouterr().out


def test_predict_goes_on_after_a_bad_photo(trained, capsys, tmp_path):
    (tmp_path / "note.jpg").write_text("not a photo")
    good = trained / "photos" / "roses" / "000.png"
    arguments = ["predict", trained / "run" / "model.keras", "note.jpg", good, "--json"]
    assert run(list(map(str, arguments))) == 2
    shown = capsys.readouterr()
    assert [result["path"] for result in json.loads(shown.out)] == [str(good)]
    errors = [line for line in shown.err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "note.jpg" in errors[0]


def test_predict_in_a_folder_a_bad_photo_is_reported_only(trained, capsys, tmp_path):
    folder = draw_photos(tmp_path / "new", {"daisy": 2}) / "daisy"
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert run(["predict", str(trained / "run" / "model.keras"), str(folder)]) == 0
    assert "broken.jpg" in capsys.readouterr().err


def test_predict_without_a_photo(trained, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = ["predict", trained / "run" / "model.keras", "empty"]
    assert_bad_input(capsys, arguments, "no photo")


def an_h5_file(path):
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    return path.rename(path.with_suffix(".h5"))


def a_text(path):
    path.write_text("not a model")
    return path


def another_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "not a model")
    return path


def a_cut_model(path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def unsafe_code(path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)])
    model.save(path)
    return path


def another_model(path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    return path


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize(
    "make", [an_h5_file, a_text, another_zip, a_cut_model, unsafe_code, another_model]
)
def test_model_files_that_are_none(capsys, trained, tmp_path, command, make):
    path = make(tmp_path / "model.keras")
    photos = trained / "photos"
    assert_bad_input(capsys, [command, path, photos], path.name)
    assert not (tmp_path / "evaluation").exists()


# --- evaluate


def test_evaluate_all_photos(trained, capsys, tmp_path):
    model, photos = trained / "run" / "model.keras", trained / "photos"
    arguments = ["evaluate", model, photos, "--output-dir", "report", "--json"]
    assert run(list(map(str, arguments))) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["photos"] == 21
    assert sum(map(sum, result["confusion_matrix"])) == 21
    assert files(tmp_path / "report") == {"evaluation.json", "confusion_matrix.png"}


def test_evaluate_the_split_of_a_run(trained, capsys):
    model, photos = trained / "run" / "model.keras", trained / "photos"
    manifest = trained / "run" / "split.json"
    arguments = ["evaluate", model, photos, "--split-manifest", manifest]
    assert run(list(map(str, arguments))) == 0
    shown = capsys.readouterr().out
    assert "4 photos" in shown
    assert "F1" in shown
    assert files(trained / "run" / "evaluation") == {
        "evaluation.json",
        "confusion_matrix.png",
    }
    history = json.loads((trained / "run" / "history.json").read_text())
    report = json.loads((trained / "run/evaluation/evaluation.json").read_text())
    assert report["accuracy"] == pytest.approx(history["val_accuracy"][-1])


def test_evaluate_unknown_classes(trained, capsys, tmp_path):
    photos = draw_photos(tmp_path / "photos", COUNTS)
    (photos / "tulips").rename(photos / "lilies")
    arguments = ["evaluate", trained / "run" / "model.keras", photos]
    assert_bad_input(capsys, arguments, "lilies")


def test_split_needs_a_manifest(trained, capsys):
    arguments = ["evaluate", trained / "run" / "model.keras", "x", "--split", "test"]
    assert_bad_input(capsys, arguments, "--split-manifest")


def test_a_manifest_that_is_none(trained, capsys, tmp_path):
    (tmp_path / "split.json").write_text("{}")
    arguments = ["evaluate", trained / "run" / "model.keras", trained / "photos"]
    assert_bad_input(
        capsys, [*arguments, "--split-manifest", "split.json"], "split.json"
    )


# --- the others


def test_audit_reports_findings(tmp_path, capsys):
    photos = draw_photos(tmp_path / "photos", COUNTS)
    (photos / "daisy" / "empty.jpg").touch()
    (photos / "roses" / "copy.png").write_bytes(
        (photos / "daisy" / "000.png").read_bytes()
    )
    assert run(["audit", str(photos)]) == 0
    shown = capsys.readouterr().out
    assert "daisy/empty.jpg" in shown
    assert "label conflict" in shown
    assert run(["audit", str(photos), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["counts"] == COUNTS | {"roses": 8}
    assert {f["kind"] for f in result["findings"]} >= {"empty_file", "label_conflict"}


def test_sample_writes_plain_folders(tmp_path, capsys):
    assert run(["sample", "flowers", "--photos-per-class", "2"]) == 0
    assert len(list((tmp_path / "flowers").glob("*/*.jpg"))) == 10
    assert_bad_input(capsys, ["sample", "flowers"], "flowers")


def test_doctor(capsys):
    assert run(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["keras"] == keras.__version__
    assert facts["xla"] == "works"
    assert {"device", "missing_for_a_gpu", "mixed_precision", "cache_size"} <= set(
        facts
    )


def test_help_version_and_usage_errors_do_not_import_keras():
    script = (
        "import sys\n"
        "from keras_flowers_cli.main import run\n"
        "assert run(['--help']) == 0\n"
        "assert run(['train', '--help']) == 0\n"
        "assert run(['--version']) == 0\n"
        "assert run([]) == 2\n"
        "assert run(['train', 'photos', '--epochs', '0']) == 2\n"
        "slow = {'keras', 'tensorflow', 'numpy', 'keras_flowers'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_installed_command_answers():
    command = [sys.executable, "-c", "from keras_flowers_cli.main import main; main()"]
    shown = subprocess.run([*command, "--version"], check=True, capture_output=True)
    assert shown.stdout.decode().startswith("keras-flowers, version")
    failed = subprocess.run([*command, "fly"], check=False, capture_output=True)
    assert failed.returncode == 2
