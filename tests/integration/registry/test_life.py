"""Lineage, fallbacks and archiving: what a version's life depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from app.errors import Conflict, InvalidInput, NotFound
from app.kernel.inspection import InspectionReport
from app.registry.types import Fallback, FallbackKind, Lineage

if TYPE_CHECKING:
    from tests.integration.registry.conftest import Registry

pytestmark = pytest.mark.integration
A, B, C = b"a model", b"another model", b"a third"


async def test_lineage_is_kept_and_part_of_what_makes_a_registration_the_same(registry: Registry) -> None:
    first = await registry.ready(A)
    lineage = Lineage("s3://data/2026-03.parquet", "4f2c1d", "nightly/77", first)
    second = await registry.register(A, lineage=lineage)
    assert second.lineage == lineage
    assert second.number == first + 1
    assert (await registry.register(A, lineage=lineage)).number == second.number
    assert (await registry.register(A)).number == first


async def test_a_parent_that_is_not_there_is_refused(registry: Registry) -> None:
    await registry.ready(A)
    with pytest.raises(InvalidInput, match=r"lineage\.parentVersion is 9, and the model 'risk' has no such version"):
        await registry.register(A, lineage=Lineage(parent_version=9))


@pytest.mark.parametrize("lineage", [Lineage(git_commit=""), Lineage(training_data="x" * 1001), Lineage(pipeline_run="a\0b")])
async def test_lineage_that_cannot_be_kept_is_refused(registry: Registry, lineage: Lineage) -> None:
    await registry.upload(A)
    with pytest.raises(InvalidInput, match=r"lineage\."):
        await registry.register(A, lineage=lineage)


async def test_what_the_inspection_found_is_shown(registry: Registry) -> None:
    await registry.upload(A)
    found = {"python": "3.13.1", "scikit-learn": "1.9.1", "numpy": "2.4.6", "trained_with": "scikit-learn 1.7.2"}
    number = await registry.checked(await registry.register(A), InspectionReport(None, *_of_ready(), found, ("answers may differ",)))
    version = await registry.service.version(registry.ctx, await registry.service.model(registry.ctx, "risk"), number)
    assert version.warning == "answers may differ"
    assert version.status_reason is None
    assert version.environment is not None
    assert version.environment.trained_with == "scikit-learn 1.7.2"
    assert (version.environment.python, version.environment.estimator) == ("3.13.1", "DummyClassifier")


def _of_ready() -> tuple[Any, Any, Any]:
    from tests.integration.registry.conftest import READY

    return READY.signature, READY.classes, READY.estimator


async def set_fallback(registry: Registry, *fallback: Any) -> None:
    await registry.service.update_model(registry.ctx, "risk", {"fallback": Fallback(FallbackKind(fallback[0]), *fallback[1:])})


async def test_a_fallback_that_fits_is_kept(registry: Registry) -> None:
    number = await registry.ready(A)
    for fallback in (("VERSION", number), ("ANSWER", None, "yes"), ("PREVIOUS",), ("NONE",)):
        await set_fallback(registry, *fallback)
        assert (await registry.service.model(registry.ctx, "risk")).fallback == Fallback(FallbackKind(fallback[0]), *fallback[1:])


async def test_a_fallback_that_cannot_answer_is_refused(registry: Registry) -> None:
    await registry.ready(A)
    await registry.upload(B)
    await registry.register(B)
    with pytest.raises(InvalidInput, match=r"fallback\.version 2 is VALIDATING: only a version that is READY can answer"):
        await set_fallback(registry, "VERSION", 2)
    with pytest.raises(NotFound):
        await set_fallback(registry, "VERSION", 9)
    with pytest.raises(InvalidInput, match="'maybe' is no class of the model: it has no, yes"):
        await set_fallback(registry, "ANSWER", None, "maybe")
    with pytest.raises(InvalidInput, match="must be a label"):
        await set_fallback(registry, "ANSWER", None, 0.5)


async def test_the_classes_that_count_are_those_that_callers_know(registry: Registry) -> None:
    served = await registry.ready(A)
    await registry.service.promote(registry.ctx, "risk", served)
    await registry.upload(B)
    signature, _, name = _of_ready()
    await registry.checked(await registry.register(B), InspectionReport(None, signature, ("maybe",), name, {}, ()))
    with pytest.raises(InvalidInput, match="'maybe' is no class"):
        await set_fallback(registry, "ANSWER", None, "maybe")


async def test_before_a_version_is_ready_any_label_may_be_the_answer(registry: Registry) -> None:
    await registry.upload(A)
    await registry.register(A)
    await set_fallback(registry, "ANSWER", None, "whatever")


async def test_what_an_alias_or_the_fallback_uses_is_not_archived(registry: Registry) -> None:
    first, second = await registry.ready(A), await registry.ready(B)
    await registry.service.promote(registry.ctx, "risk", first)
    await set_fallback(registry, "VERSION", second)
    with pytest.raises(Conflict, match="serves production"):
        await registry.service.archive(registry.ctx, "risk", first, None)
    with pytest.raises(Conflict, match="is the model's fallback"):
        await registry.service.archive(registry.ctx, "risk", second, None)
    await set_fallback(registry, "PREVIOUS")
    await registry.service.archive(registry.ctx, "risk", second, None)
