import json

import pytest

from keras_flowers import Finding, InputError
from keras_flowers.data.audit import scan
from keras_flowers.data.findings import (
    KINDS,
    AuditError,
    FindingKind,
    adding_findings,
    group_findings,
    summarize_findings,
)


def test_a_finding_has_the_defaults_of_its_kind():
    duplicate = Finding("duplicate", ("a", "b", "c"), "copies")
    assert duplicate.action == "used, in the same split"
    assert duplicate.exclude == ("b", "c")
    assert Finding("label_conflict", ("a", "b"), "").exclude == ("a", "b")
    assert Finding("imbalance", ("a", "b"), "").exclude == ()
    assert Finding("corrupt", ("a",), "", exclude=()).exclude == ()
    assert Finding("missing_class", ("a",), "", "left out").action == "left out"
    with pytest.raises(InputError, match="one of .*corrupt.* Received: 'odd'"):
        Finding("odd", (), "")


def test_findings_are_grouped_and_counted_with_the_worst_first():
    found = [
        Finding("clutter", (".git",), "clutter"),
        Finding("corrupt", ("b",), "second"),
        Finding("label_conflict", ("a", "b"), "conflict"),
        Finding("corrupt", ("a",), "third"),
    ]
    groups = group_findings(found)
    assert [kind.name for kind, _ in groups] == ["label_conflict", "corrupt", "clutter"]
    assert [finding.message for finding in groups[1][1]] == ["second", "third"]
    assert (
        summarize_findings(found)
        == "4 findings: label conflict (1), corrupt (2), clutter (1)"
    )
    assert summarize_findings([]) == "No findings"


def test_a_new_kind_needs_one_entry(monkeypatch):
    """Its details reach the JSON file without any further code."""
    kind = FindingKind("label_issue", "a label that is improbable", "used", "all")
    monkeypatch.setattr("keras_flowers.data.findings.KINDS", {**KINDS, kind.name: kind})
    details = {"given": "daisy", "suggested": "rose", "score": 0.03}
    finding = Finding("label_issue", ("a.jpg",), "probably a rose", details=details)
    assert hash(finding) == hash(Finding("label_issue", ("a.jpg",), "probably a rose"))
    assert json.loads(json.dumps(finding.to_json())) == {
        "kind": "label_issue",
        "paths": ["a.jpg"],
        "message": "probably a rose",
        "action": "used",
        "exclude": ["a.jpg"],
        **details,
    }
    assert group_findings([finding]) == [(kind, [finding])]


def test_an_error_about_data_has_what_was_found_before(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"\xff\xd8\xff broken")
    (tmp_path / "b" / "1.jpg").touch()
    with pytest.raises(AuditError, match="readable images") as error:
        scan(tmp_path)
    kinds = [finding.kind for finding in error.value.findings]
    assert {"corrupt", "empty_file"} <= set(kinds)
    with pytest.raises(AuditError, match="^words$"), adding_findings(()):
        raise InputError("words")
