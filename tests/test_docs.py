"""The documentation is true: its programs run, its options and links exist."""

import copy
import dataclasses
import json
import re
import runpy
from pathlib import Path

import click
import jsonschema
import numpy as np
import pytest
import yaml
from keras_flowers_cli.main import commands
from PIL import Image

from keras_flowers import ImageClassifier, ImageDatasetLoader
from keras_flowers.models import backbone_presets
from keras_flowers.models.backbone_presets import Network, backbone_names, named_network

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = re.compile(r"^```(?:sh|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)
YAML = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
# The smallest size that every network in the examples accepts.
SMALL = (32, 32)
FLOWERS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def option_names(command):
    return {
        name
        for option in command.params
        for name in (*option.opts, *option.secondary_opts)
        if name.startswith("--")
    }


def draw_flower_images(folder):
    """Draws 8 noisy images per class, each class with its own brightness."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(FLOWERS):
        (folder / name).mkdir(parents=True)
        for index in range(8):
            noise = generator.integers(-40, 40, (24, 32, 3))
            pixels = np.clip(40 + 45 * label + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:03}.jpg")


def replace_large_images_and_downloads(monkeypatch):
    """Makes every named network small, with random weights."""
    networks = {
        name: dataclasses.replace(named_network(name), side=SMALL[0])
        for name in backbone_names()
    }
    monkeypatch.setattr(backbone_presets, "_BY_NAME", networks)
    build = Network.build
    monkeypatch.setattr(
        Network, "build", lambda network, size, weights=None: build(network, size)
    )


@pytest.fixture
def small_world(tmp_path, monkeypatch):
    """A folder with small images under the name of the large data set."""
    draw_flower_images(tmp_path / "flower_photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(tmp_path / "cache"))
    # An example sets it. Here it has no effect and must not outlive the test.
    monkeypatch.setenv("TF_CPU_ALLOCATOR_USE_BFC", "false")
    defaults = ImageDatasetLoader.__init__.__defaults__
    assert (256, 256) in defaults
    small = tuple(SMALL if value == (256, 256) else value for value in defaults)
    monkeypatch.setattr(ImageDatasetLoader.__init__, "__defaults__", small)
    of_no_size, *others = ImageClassifier.__init__.__defaults__
    assert of_no_size is None
    monkeypatch.setattr(ImageClassifier.__init__, "__defaults__", (SMALL, *others))
    replace_large_images_and_downloads(monkeypatch)


def make_small(program):
    program = program.replace("epochs=15", "epochs=1")
    program = program.replace("trials=20", "trials=2").replace("=(5, 15)", "=1")
    return re.sub(
        r"\b(?:128, 128|224, 224|256, 256)\b", f"{SMALL[0]}, {SMALL[1]}", program
    )


@pytest.mark.parametrize(
    "page", [page for page in PAGES if PYTHON.search(page.read_text())], ids=name_of
)
def test_the_programs_of_a_page_run(page, small_world):
    """They run one after the other in one namespace, as a reader runs them."""
    text = page.read_text()
    names = {"__name__": "__main__"}
    for block in PYTHON.finditer(text):
        lines_before = text.count("\n", 0, block.start(1))
        program = "\n" * lines_before + make_small(block[1])
        exec(compile(program, str(page), "exec"), names)


def test_the_lesson_the_readme_and_every_api_page_hold_programs():
    pages = [ROOT / "README.md", DOCS / "lesson.md", *DOCS.glob("api/*.md")]
    assert [
        name_of(page) for page in pages if not PYTHON.search(page.read_text())
    ] == []


def section_of(command):
    text = (DOCS / "cli.md").read_text()
    found = re.search(
        rf"^## keras-flowers {command}\n(.*?)(?=^## |\Z)",
        text,
        re.DOTALL | re.MULTILINE,
    )
    assert found, f"docs/cli.md has no section on {command}"
    return found[1]


def test_the_command_line_page_knows_exactly_the_commands():
    text = (DOCS / "cli.md").read_text()
    sections = re.findall(r"^## keras-flowers (.*)$", text, re.MULTILINE)
    assert sorted(sections) == sorted(commands.commands)
    for name in sections:
        assert f"[`{name}`](#keras-flowers-{name})" in text


@pytest.mark.parametrize("name", commands.commands)
def test_the_command_line_page_names_exactly_the_options(name):
    assert set(OPTION.findall(section_of(name))) == option_names(
        commands.commands[name]
    )


@pytest.mark.parametrize("name", commands.commands)
def test_the_command_line_page_gives_the_defaults(name):
    rows = {}
    for line in section_of(name).splitlines():
        if line.startswith("| `--"):
            option, _, default = (cell.strip() for cell in line[1:-1].split(" | "))
            rows[option.split("`")[1]] = default
    options = [p for p in commands.commands[name].params if isinstance(p, click.Option)]
    assert set(rows) == {option.opts[0] for option in options}
    for option in options:
        in_help = re.search(r"\[default: (.*)\]", option.help)
        assert rows[option.opts[0]] == (in_help[1] if in_help else "")
        if option.default not in (None, False):
            assert in_help


def test_the_generated_tables_are_up_to_date():
    program = runpy.run_path(str(DOCS / "write_tables.py"))
    for name, write in (
        ("cli.md", program["write_option_tables"]),
        ("design.md", program["write_module_tables"]),
        ("guides/clean.md", program["write_finding_table"]),
    ):
        page = (DOCS / name).read_text()
        assert write(page) == page, "python docs/write_tables.py"
    options, modules = (DOCS / n for n in ("cli.md", "design.md"))
    changed = options.read_text().replace("| 15; ", "| 16; ")
    assert program["write_option_tables"](changed) == options.read_text() != changed
    changed = modules.read_text().replace("| `errors` |", "| `mistakes` |")
    assert program["write_module_tables"](changed) == modules.read_text() != changed
    findings = (DOCS / "guides" / "clean.md").read_text()
    changed = findings.replace("| `corrupt` |", "| `broken` |")
    assert program["write_finding_table"](changed) == findings != changed


def command_lines(page):
    for block in SHELL.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|", line):
                words = part.split("#")[0].split()
                if words[:1] == ["keras-flowers"]:
                    yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_command_lines_use_what_exists(page):
    for name, *words in command_lines(page):
        if name in ("COMMAND", "--version"):
            continue
        assert name in commands.commands
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        assert used <= option_names(commands.commands[name]), words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_the_text_exist(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    known = set.union(*map(option_names, commands.commands.values()))
    for quoted in re.findall(r"`(--[^`]*)`", prose):
        assert set(OPTION.findall(quoted)) <= known | {"--help", "--version"}, quoted


def test_every_benchmark_is_described():
    text = (DOCS / "performance.md").read_text()
    programs = {path.name for path in (ROOT / "benchmarks").glob("*.py")} - {
        "common.py"
    }
    assert {name for name in programs if f"benchmarks/{name}" not in text} == set()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_links_between_files_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_the_manifest_of_kubernetes_is_valid():
    (text,) = YAML.findall((DOCS / "guides" / "devices.md").read_text())
    manifest = yaml.safe_load(text)
    schema = json.loads(Path(__file__).with_name("jobset_schema.json").read_text())
    jsonschema.validate(manifest, schema)
    (job,) = manifest["spec"]["replicatedJobs"]
    pods = job["template"]["spec"]
    (container,) = pods["template"]["spec"]["containers"]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    # JobSet names a pod JOBSET-JOB-NUMBER-NUMBER, in the domain of the JobSet.
    name = manifest["metadata"]["name"]
    host, _, port = environment["KERAS_DISTRIBUTION_JOB_ADDRESSES"].partition(":")
    assert host == f"{name}-{job['name']}-0-0.{name}" and port.isdecimal()
    count = environment["KERAS_DISTRIBUTION_NUM_PROCESSES"]
    assert pods["completions"] == pods["parallelism"] == int(count)
    # The schema finds a wrong name, a missing one and a wrong kind.
    for change in (
        {"containers": [{**container, "enviroment": []}]},
        {"containers": [{**container, "env": [{"value": "jax"}]}]},
        {"containers": [{**container, "command": "keras-flowers train"}]},
    ):
        wrong = copy.deepcopy(manifest)
        spec = wrong["spec"]["replicatedJobs"][0]["template"]["spec"]
        spec["template"]["spec"].update(change)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
