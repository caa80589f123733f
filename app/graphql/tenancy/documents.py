"""Registered documents: listed, registered and removed by a tenant, and by operators for all tenants."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import strawberry
from graphql import GraphQLError, OperationDefinitionNode, parse

from app.errors import InvalidInput
from app.graphql.context import Info, root_field, root_mutation
from app.graphql.errors import ErrorMapper
from app.graphql.examining import Examiner
from app.graphql.limits import Limits
from app.graphql.paging import PageInfo, connection, first_of
from app.graphql.scalars import given
from app.kernel.context import Action
from app.tenancy.documents import types
from app.tenancy.documents.rules import MOST_DOCUMENTS, identified

_SHOWN = 100  # problems in one answer
_REPLACE = "`replace`: an id may get another text; else that is a CONFLICT, for clients that are out there mean the old one."
_HEARD = "Every replica knows them when this returns."


@strawberry.type(description="A GraphQL document that clients may name in place of sending it: `documentId` in the request.")
class RegisteredDocument:
    id: str
    text: str
    created_at: datetime
    created_by: str

    @strawberry.field(description="The names of its operations.")
    @staticmethod
    def operations(root: strawberry.Parent[types.RegisteredDocument]) -> list[str]:
        try:
            document = parse(root.text)
        except GraphQLError:  # registered by another version of Turnout
            return []
        return [node.name.value for node in document.definitions if isinstance(node, OperationDefinitionNode) and node.name]


@strawberry.type
class RegisteredDocumentEdge:
    cursor: str
    node: RegisteredDocument


@strawberry.type
class RegisteredDocumentConnection:
    edges: list[RegisteredDocumentEdge]
    page_info: PageInfo


@strawberry.input
class DocumentInput:
    text: str
    id: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="By which clients name it; left out, the SHA-256 of the text in hexadecimal digits. 64 of them must be that.",
    )


@strawberry.type
class DocumentQuery:
    @root_field(Action.READ_DOCUMENTS, "Your tenant's registered documents, newest first.", graphql_type=RegisteredDocumentConnection)
    async def documents(self, info: Info, first: int | None = 20, after: str | None = strawberry.UNSET) -> Any:
        page = await info.context.services.documents.documents(info.context.request, first_of(first), given(after))
        return connection(RegisteredDocumentConnection, RegisteredDocumentEdge, page)

    @root_field(
        Action.MANAGE_PLATFORM_DOCUMENTS,
        "Platform operators only: documents registered for all tenants, newest first.",
        graphql_type=RegisteredDocumentConnection,
    )
    async def platform_documents(self, info: Info, first: int | None = 20, after: str | None = strawberry.UNSET) -> Any:
        page = await info.context.services.documents.documents(info.context.request, first_of(first), given(after), for_all=True)
        return connection(RegisteredDocumentConnection, RegisteredDocumentEdge, page)


@strawberry.type
class DocumentMutation:
    @root_mutation(
        Action.MANAGE_DOCUMENTS,
        f"Register documents: all, or none where one does not fit this schema. What is registered already stays. {_REPLACE} {_HEARD}",
        graphql_type=list[RegisteredDocument] | None,
    )
    async def register_documents(self, info: Info, documents: list[DocumentInput], replace: bool = False) -> Any:
        return await _register(info, documents, for_all=False, replace=replace)

    @root_mutation(Action.MANAGE_DOCUMENTS, f"Documents that no client sends any more; those that were there. {_HEARD}")
    async def remove_documents(self, info: Info, ids: list[str]) -> list[str] | None:
        return await info.context.services.documents.remove(info.context.request, ids)

    @root_mutation(
        Action.MANAGE_PLATFORM_DOCUMENTS,
        f"Platform operators only: as registerDocuments, for all tenants. A tenant's own go first. {_REPLACE}",
        graphql_type=list[RegisteredDocument] | None,
    )
    async def register_platform_documents(self, info: Info, documents: list[DocumentInput], replace: bool = False) -> Any:
        return await _register(info, documents, for_all=True, replace=replace)

    @root_mutation(Action.MANAGE_PLATFORM_DOCUMENTS, "Platform operators only: as removeDocuments, for all tenants.")
    async def remove_platform_documents(self, info: Info, ids: list[str]) -> list[str] | None:
        return await info.context.services.documents.remove(info.context.request, ids, for_all=True)


async def _register(info: Info, inputs: list[DocumentInput], *, for_all: bool, replace: bool) -> list[types.RegisteredDocument]:
    service, ctx = info.context.services.documents, info.context.request
    service.may_register(ctx, for_all=for_all)  # before anything is looked at
    if len(inputs) > MOST_DOCUMENTS:
        raise InvalidInput(f"documents holds {len(inputs):,}; at most {MOST_DOCUMENTS:,} may be registered.")
    named = [identified(given(each.id), each.text) for each in inputs]
    examiner = Examiner(info.schema._schema, Limits(), ErrorMapper(suggestions=False), suggestions=False)  # noqa: SLF001  as in the handler
    problems: list[dict[str, Any]] = []
    for document in {document.text: document for document in named}.values():
        problems += [{"name": document.id, "problem": text} for text in _problems(examiner, document, ctx.request_id)]
        if len(problems) >= _SHOWN:
            break
        await asyncio.sleep(0)  # a document takes some milliseconds, and others wait
    if problems:
        first = f"{problems[0]['name']}: {problems[0]['problem']}"
        raise InvalidInput(f"Nothing was registered, for not all documents fit this schema. {first}", problems=problems[:_SHOWN])
    return await service.register(ctx, named, for_all=for_all, replace=replace)


def _problems(examiner: Examiner, document: types.DocumentText, request_id: str) -> list[str]:
    """What is wrong with it, one sentence each; empty where it may be run."""
    found = examiner.look_at(document.sha256, document.text, request_id, may_introspect=False)
    if found.introspects:
        return ["It asks for the schema, which is for operators alone: such a document is not registered."]
    return [problem.message for problem in found.problems]
