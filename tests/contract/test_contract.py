"""The schema holds the contract, but for a named list that only shrinks."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    Undefined,
    build_schema,
    value_from_ast_untyped,
)

from app.graphql.export import sdl

pytestmark = pytest.mark.unit

HERE = Path(__file__).parent
COMMITTED = HERE.parent.parent / "app" / "graphql" / "schema.graphql"

# What the contract names and later work brings. Entries only ever leave this list: a test fails when one is there already.
LATER: set[str] = set()


def missing_from(ours: GraphQLSchema, contract: GraphQLSchema) -> set[str]:
    """Everything that the contract says and our schema does not say alike, as "Type", "Type.field" or "Type.field(arg)"."""
    missing: set[str] = set()
    for name, theirs in contract.type_map.items():
        if name.startswith("__"):
            continue
        mine = ours.type_map.get(name)
        if mine is None or type(mine) is not type(theirs):
            missing.add(name)
        else:
            missing |= {f"{name}.{part}" for part in missing_parts(mine, theirs)}
    return missing


def missing_parts(mine: GraphQLNamedType, theirs: GraphQLNamedType) -> set[str]:
    if isinstance(theirs, GraphQLEnumType):
        assert isinstance(mine, GraphQLEnumType)
        return set(theirs.values) - set(mine.values)
    if isinstance(theirs, GraphQLInputObjectType):
        assert isinstance(mine, GraphQLInputObjectType)
        return {n for n, f in theirs.fields.items() if n not in mine.fields or signature_of(mine.fields[n]) != signature_of(f)}
    if not isinstance(theirs, GraphQLObjectType):
        return set()
    assert isinstance(mine, GraphQLObjectType)
    missing = set()
    for name, field in theirs.fields.items():
        ours = mine.fields.get(name)
        if ours is None or str(ours.type) != str(field.type):
            missing.add(name)
            continue
        missing |= {
            f"{name}({arg})"
            for arg, value in field.args.items()
            if arg not in ours.args or signature_of(ours.args[arg]) != signature_of(value)
        }
    return missing


def signature_of(value) -> tuple[str, object]:
    default = getattr(value, "default", None)
    literal = getattr(default, "literal", None)
    plain = getattr(default, "value", value.default_value if default is None else Undefined)
    if literal is not None:
        plain = value_from_ast_untyped(literal)
    return str(value.type), None if plain is Undefined else plain


@pytest.fixture(scope="module")
def contract() -> GraphQLSchema:
    return build_schema((HERE / "contract.graphql").read_text())


@pytest.fixture(scope="module")
def ours() -> GraphQLSchema:
    return build_schema(sdl())


def test_the_schema_holds_the_contract_but_for_the_named_list(ours: GraphQLSchema, contract: GraphQLSchema) -> None:
    assert missing_from(ours, contract) == LATER


def test_the_comparison_sees_a_missing_field_a_changed_type_and_a_changed_default(contract: GraphQLSchema) -> None:
    text = (HERE / "contract.graphql").read_text()
    for old, new, seen in [
        ("  variant: String\n", "", "Prediction.variant"),
        ("type Viewer { tenant: String!", "type Viewer { tenant: String", "Viewer.tenant"),
        ("required: Boolean! = true", "required: Boolean! = false", "ColumnInput.required"),
        ('alias: String! = "production"): [', 'alias: String! = "prod"): [', "Query.promotionBlockers(alias)"),
        ("enum Task { CLASSIFICATION REGRESSION }", "enum Task { CLASSIFICATION }", "Task.REGRESSION"),
    ]:
        assert old in text
        assert missing_from(build_schema(text.replace(old, new, 1)), contract) == {seen}


def test_the_committed_schema_is_the_code() -> None:
    assert COMMITTED.read_text() == sdl(), "run `make schema` and commit what it writes"


def test_all_error_codes_are_in_the_schema(ours: GraphQLSchema) -> None:
    codes = ours.type_map["ErrorCode"]
    assert isinstance(codes, GraphQLEnumType)
    assert len(codes.values) == 25
