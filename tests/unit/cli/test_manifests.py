"""Files that hold documents, as people and build tools write them."""

import json

import click
import pytest

from app.cli.documents import _with_sources
from app.cli.manifests import ListedDocument, read_documents

pytestmark = pytest.mark.unit
A, B = "query A{viewer{tenant}}", "query B{viewer{subject}}"


def written(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_a_folder_is_its_graphql_files_at_any_depth_as_they_are(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.gql").write_bytes(B.encode() + b"\r\n")
    written(tmp_path / "a.graphql", A)
    written(tmp_path / "package.json", {})
    assert read_documents(tmp_path) == [ListedDocument(None, A, "a.graphql"), ListedDocument(None, B + "\r\n", "deep/b.gql")]
    assert read_documents(tmp_path / "a.graphql") == [ListedDocument(None, A, "a.graphql")]


def test_apollos_manifest(tmp_path):
    operations = [{"id": "1", "body": A, "name": "A", "type": "query"}, {"id": "2", "body": B}]
    path = written(tmp_path / "m.json", {"format": "apollo-persisted-query-manifest", "version": 1, "operations": operations})
    assert read_documents(path) == [ListedDocument("1", A, "m.json: A"), ListedDocument("2", B, "m.json: 2")]


def test_an_object_of_ids_and_texts_as_relay_graphql_codegen_and_gql_tada_write_it(tmp_path):
    assert read_documents(written(tmp_path / "m.json", {"md5": A, "x": B})) == [
        ListedDocument("md5", A, "m.json: md5"), ListedDocument("x", B, "m.json: x"),
    ]  # fmt: skip


def test_apollo_kotlins_operation_output(tmp_path):
    path = written(tmp_path / "m.json", {"hash": {"name": "A", "type": "query", "source": A}})
    assert read_documents(path) == [ListedDocument("hash", A, "m.json: A")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{", "neither a .graphql file nor JSON"), ([], "no manifest"), ("1", "no manifest"), ({}, "lists no document"), ({"a": 1}, "'a' is no document"),
        ({"a": {"text": "x"}}, "'a' is no document"), ({"format": "apollo-persisted-query-manifest", "version": 2, "operations": []}, "version 1"),
        ({"format": "other", "version": 1, "operations": []}, "format"),
        ({"format": "apollo-persisted-query-manifest", "version": 1, "operations": [{"id": 1, "body": "x"}]}, r"operations\[0\]"),
        ("[" * 100_000, "neither"),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_told_with_the_file_and_what_would_be_right(tmp_path, data, said):
    with pytest.raises(click.ClickException, match=said) as caught:
        read_documents(written(tmp_path / "m.json", data))
    assert "m.json" in caught.value.message


def test_a_folder_without_documents_and_a_file_that_is_no_text_are_told(tmp_path):
    with pytest.raises(click.ClickException, match=r"holds no \.graphql"):
        read_documents(tmp_path)
    (tmp_path / "a.graphql").write_bytes(b"\xff")
    with pytest.raises(click.ClickException, match=r"a\.graphql is not UTF-8"):
        read_documents(tmp_path)


def test_a_refusal_names_the_file_in_place_of_the_id_that_the_service_knows():
    listed = [ListedDocument(None, A, "a.graphql"), ListedDocument("short", B, "b")]
    import hashlib

    assert _with_sources(f"{hashlib.sha256(A.encode()).hexdigest()}: no. short: no.", listed) == "a.graphql: no. short: no."
