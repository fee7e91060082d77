"""The rules of the house, checked on the syntax trees of the sources."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras_flowers.callbacks
import keras_flowers.tuning
import pytest

import keras_flowers
import keras_flowers.export

ROOT = Path(__file__).parents[1]

PACKAGES = {
    "keras_flowers": ROOT / "keras_flowers",
    **{
        f"keras_flowers.{name}": ROOT / "keras_flowers" / name
        for name in (
            "data",
            "layers",
            "models",
            "plots",
            "evaluation",
            "training",
            "explanation",
            "export",
        )
    },
    "keras_flowers.callbacks": ROOT / "callbacks",
    "keras_flowers.tuning": ROOT / "tuning",
    "keras_flowers_cli": ROOT / "cli",
    "keras_flowers_runtime": ROOT / "runtime",
    "keras_flowers_serving": ROOT / "serving",
    "keras_flowers_settings": ROOT / "settings",
}
MODULES = [path for folder in PACKAGES.values() for path in folder.glob("*.py")]
BACKEND_FREE = (
    "keras_flowers/metrics.py",
    "keras_flowers/layers/",
    "keras_flowers/models/",
    "keras_flowers/training/schedules.py",
)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports(tree, *, module_level=False):
    """Yields the modules that a tree imports, those for type checkers aside."""
    nodes = tree.body if module_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tree_of(path):
    return ast.parse(path.read_text(), str(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_private_of_keras_is_used(path):
    for name in imports(tree_of(path)):
        parts = name.split(".")
        is_foreign = parts[0] in ("keras", "keras_tuner", "tensorflow", "tensorboard")
        private = [p for p in parts if p in ("src", "python") or p.startswith("_")]
        assert not (is_foreign and private), f"{name_of(path)} imports {name}"


def test_packages_import_only_packages_below_them(tmp_path):
    """import-linter reads the sources as setup.cfg lays them out."""
    for name, folder in PACKAGES.items():
        shutil.copytree(folder, tmp_path.joinpath(*name.split(".")), dirs_exist_ok=True)
    result = subprocess.run(
        [
            Path(sys.executable).with_name("lint-imports"),
            "--no-cache",
            ROOT / ".importlinter",
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_tensorflow_is_imported_only_where_it_is_the_point(path):
    names = [name.split(".")[0] for name in imports(tree_of(path), module_level=True)]
    assert "tensorflow" not in names, "import it inside the function that needs it"
    if name_of(path).startswith(BACKEND_FREE):
        assert "tensorflow" not in [n.split(".")[0] for n in imports(tree_of(path))]


@pytest.mark.parametrize("path", sorted((ROOT / "cli").glob("*.py")), ids=name_of)
def test_the_command_line_starts_without_keras(path):
    imported_late = {"devices", "epoch_lines"}
    if path.stem in imported_late:
        return  # imported only by functions, as this test sees of the others
    slow = {
        "keras",
        "tensorflow",
        "keras_flowers",
        "keras_flowers_runtime",
        "keras_flowers_serving",
        "numpy",
        "matplotlib",
    }
    slow |= {f"keras_flowers_cli.{name}" for name in imported_late}
    for name in imports(tree_of(path), module_level=True):
        assert not {name, name.split(".")[0]} & slow, f"{name_of(path)} imports {name}"
        assert name != "keras_flowers_cli.devices"


def test_every_package_folder_is_mapped_and_every_mapped_folder_exists():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(setup["options"]["packages"].split()) == set(PACKAGES)
    lines = setup["options"]["package_dir"].strip().splitlines()
    mapped = {
        name.strip(): folder.strip()
        for name, folder in (line.split("=") for line in lines)
    }
    assert mapped == {name: name_of(path) for name, path in PACKAGES.items()}
    for folder in PACKAGES.values():
        assert (folder / "__init__.py").exists()
    found = {p.parent for p in (ROOT / "keras_flowers").rglob("__init__.py")}
    assert found <= set(PACKAGES.values()), "name every package in setup.cfg"


def test_the_container_installs_what_setup_cfg_names():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    known = "\n".join(
        (setup["options"]["install_requires"], extras["serve"], extras["onnx"])
    )
    lines = (ROOT / "docker" / "requirements.txt").read_text().splitlines()
    needed = {line for line in lines if not line.startswith("#")}
    assert needed <= set(known.split())
    assert set(extras["serve"].split()) < needed
    assert not any("tensorflow" in line or "keras" in line for line in needed)
    docker = (ROOT / "docker" / "Dockerfile").read_text()
    assert "docker/requirements.txt" in docker
    assert "--no-deps" in docker


def public_symbols():
    for module in (
        keras_flowers,
        keras_flowers.callbacks,
        keras_flowers.export,
        keras_flowers.tuning,
    ):
        path = Path(module.__file__)
        for node in tree_of(path).body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    assert alias.asname == alias.name, "re-export explicitly"
                    if not alias.name.startswith("__"):
                        yield module, alias.name


@pytest.mark.parametrize(
    ("module", "name"),
    sorted(public_symbols(), key=str),
    ids=lambda value: getattr(value, "__name__", value),
)
def test_public_symbols_are_documented(module, name):
    symbol = getattr(module, name)
    assert symbol.__doc__, f"{name} has no docstring"
    page = ROOT / "docs" / "api" / f"{name}.md"
    assert page.exists(), f"{name} has no page {page.name}"
    assert f"::: {module.__name__}.{name}" in page.read_text()
    assert f"{page.name}" in (ROOT / "mkdocs.yml").read_text()


def test_the_readme_has_the_two_set_up_commands_and_ci_calls_the_second():
    blocks = re.findall(
        r"```(?:sh|bash)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    first, second = blocks[0].strip().splitlines()
    assert first == "pip install . && keras-flowers train sample"
    assert second == 'pip install -e ".[test]" && pytest'
    assert second in (ROOT / ".ci" / "run").read_text()
