"""The page of an audit: what it shows, and that it needs and runs nothing else."""

import dataclasses
import re

import pytest
from image_drawing import draw_data_set, draw_image

from keras_flowers import Finding, InputError, scan, write_audit_report
from keras_flowers.data.findings import KINDS, FindingKind

HOSTILE = "<img src=x onerror=alert(1)>\n\udcff & .jpg"


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    root = draw_data_set(
        tmp_path_factory.mktemp("audit") / "photos", {"daisy": 3, "roses": 3}
    )
    copied = (root / "daisy/001.jpg").read_bytes()
    (root / "roses/conflict.jpg").write_bytes(copied)
    draw_image(root / "roses" / "small.png", 4, size=(40, 30), format_name="PNG")
    (root / "daisy" / HOSTILE).write_bytes(b"\xff\xd8\xff cut")
    (root / "roses" / ".DS_Store").touch()
    return scan(root)


def written(path, audit, **options):
    write_audit_report(path, audit, **options)
    return path.read_text(encoding="utf-8")


def test_the_page_has_the_findings_the_worst_first_with_their_images(audit, tmp_path):
    text = written(tmp_path / "audit.html", audit)
    order = re.findall(r'<section id="(\w+)"', text)
    assert order == [
        "label_conflict",
        "corrupt",
        "near_duplicate",
        "clutter",
        "classes",
    ]
    sections = dict(zip(order, re.split(r"<section id=", text)[1:], strict=True))
    assert sections["label_conflict"].count("<img ") == 2
    assert sections["near_duplicate"].count("<img ") == 2
    assert "40 x 30 PNG" in sections["near_duplicate"]
    # The copy is marked; of a conflict, there is no original.
    assert sections["near_duplicate"].count('class="mark"') == 1
    assert sections["label_conflict"].count('class="mark"') == 0
    for kind in ("label_conflict", "near_duplicate"):
        assert f"--exclude-kinds {kind}" in sections[kind]
    assert "<img " not in sections["corrupt"]
    assert KINDS["corrupt"].meaning[1:] in sections["corrupt"]


def test_the_page_loads_and_runs_nothing(audit, tmp_path):
    text = written(tmp_path / "audit.html", audit)
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;\\n\\udcff &amp; .jpg" in text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(a.startswith(("data:", "#")) for a in addresses)
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text


def test_a_new_kind_needs_no_other_page(audit, tmp_path, monkeypatch):
    kind = FindingKind("label_issue", "a label that is improbable", "used", "all")
    monkeypatch.setattr("keras_flowers.data.findings.KINDS", {kind.name: kind, **KINDS})
    details = {"given": "daisy", "suggested": "roses", "score": 0.03125}
    issue = Finding(
        "label_issue", ("daisy/000.jpg",), "probably roses", details=details
    )
    text = written(tmp_path / "a.html", dataclasses.replace(audit, findings=(issue,)))
    section = text.split('<section id="label_issue"')[1].split("</section>")[0]
    assert section.count("<img ") == 1
    for name, value in {
        "given": "daisy",
        "suggested": "roses",
        "score": "0.031",
    }.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in section


def test_long_lists_are_cut_and_the_page_says_so(audit, tmp_path):
    many = tuple(
        Finding("duplicate", tuple(f"daisy/{i}-{k}.jpg" for k in range(12)), "copies")
        for i in range(130)
    )
    one = Finding("duplicate", ("daisy/000.jpg", *many[0].paths), "copies")
    text = written(
        tmp_path / "a.html", dataclasses.replace(audit, findings=(one, *many))
    )
    assert "Duplicate (131)" in text
    assert "31 more findings are left out here." in text
    assert "5 more images are left out here." in text
    clean = written(tmp_path / "b.html", dataclasses.replace(audit, findings=()))
    assert "every file can be read" in clean


def test_a_page_that_cannot_be_written_is_named(audit, tmp_path):
    with pytest.raises(InputError, match="none/audit.html` cannot be written"):
        write_audit_report(tmp_path / "none" / "audit.html", audit)
