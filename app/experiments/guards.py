"""What experiments answer to the registry: which of them need a version."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from app.experiments import store
from app.experiments.types import ExperimentStatus

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_NEEDS = (ExperimentStatus.DRAFT, ExperimentStatus.RUNNING)


class ExperimentsOfVersions:
    """Asked inside the registry's transactions; one a process."""

    async def using(self, session: AsyncSession, tenant_id: UUID, model_id: UUID, number: int) -> list[tuple[str, str]]:
        """(key, status) of each DRAFT or RUNNING experiment with the version among its variants, shadows included, by key."""
        found = await store.with_version(session, tenant_id, [(model_id, number)], _NEEDS)
        return [(key, status.value) for _, key, status, variants in found if any(v.version == number for v in variants)]

    async def still_serving(
        self, session: AsyncSession, tenant_id: UUID, versions: Collection[tuple[UUID, int]]
    ) -> dict[tuple[UUID, int], tuple[str, ...]]:
        """Of each (model, number): the keys of RUNNING experiments in which it still answers; in one query."""
        if not versions:
            return {}
        served: dict[tuple[UUID, int], list[str]] = defaultdict(list)
        for model_id, key, _, variants in await store.with_version(session, tenant_id, versions, (ExperimentStatus.RUNNING,)):
            for number in {variant.version for variant in variants if variant.version is not None and not variant.shadow}:
                served[model_id, number].append(key)
        return {version: tuple(served[version]) for version in versions if version in served}
