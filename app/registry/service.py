"""Use cases of the registry. Each checks the permission, opens one transaction, writes change, history, audit and outbox together."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.audit import store as audit
from app.audit.rules import check_optional_reason, check_reason
from app.db.outbox import announce
from app.errors import Conflict, InvalidInput
from app.kernel.context import Action
from app.kernel.names import check_name
from app.kernel.paging import Page, make_page, page_request
from app.registry import aliases, effect, life, rules, store
from app.registry.standing import bytes_of, standing
from app.registry.types import PRODUCTION, Alias, Fallback, Model, ModelVersion, Promotion, PromotionBlocker, VersionStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database
    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.registry.artifacts import ArtifactCache
    from app.registry.everywhere import Everywhere
    from app.registry.ports import Allowances, ExperimentGuard
    from app.registry.rows import ModelRow
    from app.registry.signing import TrustedKeys
    from app.registry.types import VersionRegistration


class RegistryService:
    """Models, versions and aliases of the caller's tenant."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        allowances: Allowances,
        everywhere: Everywhere,
        keys: TrustedKeys,
        artifacts: ArtifactCache,
        experiments: ExperimentGuard,
    ) -> None:
        self._database = database
        self._clock = clock
        self._allowances = allowances
        self._everywhere = everywhere
        self._keys = keys
        self._artifacts = artifacts
        self._experiments = experiments

    async def model(self, ctx: RequestContext, name: str) -> Model:
        """The model; raises NotFound."""
        ctx.require(Action.READ_REGISTRY)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            return store.model_value(await store.find_model(session, ctx.tenant_id, name))

    async def models(self, ctx: RequestContext, first: int, after: str | None) -> Page[Model]:
        """Models by name."""
        ctx.require(Action.READ_REGISTRY)
        page = page_request("models", first, after)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            return make_page("models", page, await store.list_models(session, ctx.tenant_id, page))

    async def version(self, ctx: RequestContext, model: Model, number: int) -> ModelVersion:
        """One version of the model; raises NotFound."""
        ctx.require(Action.READ_REGISTRY)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row = await store.find_model(session, ctx.tenant_id, model.name)
            return store.version_value(await store.find_version(session, row, number), row.name)

    async def versions(self, ctx: RequestContext, model: Model, first: int, after: str | None) -> Page[ModelVersion]:
        """The model's versions, highest number first."""
        ctx.require(Action.READ_REGISTRY)
        page = page_request("versions", first, after)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            return make_page("versions", page, await store.list_versions(session, ctx.tenant_id, model, page))

    async def history(self, ctx: RequestContext, alias: Alias, first: int, after: str | None) -> Page[Promotion]:
        """What the alias stood for, newest first."""
        ctx.require(Action.READ_REGISTRY)
        page = page_request("history", first, after)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            promotions = await store.list_promotions(session, ctx.tenant_id, alias, page)
            told = await effect.of_promotions(session, ctx.tenant_id, [p for _, p in promotions], self._clock.now())
            told = await self._beside_experiments(session, ctx, told)
            return make_page("history", page, [(key, promotion) for (key, _), promotion in zip(promotions, told, strict=True)])

    async def aliases_of(self, ctx: RequestContext, models: list[UUID]) -> dict[UUID, list[Alias]]:
        """Each model's aliases, in one query."""
        ctx.require(Action.READ_REGISTRY)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            return await store.aliases_of(session, ctx.tenant_id, models)

    async def versions_by_key(self, ctx: RequestContext, keys: list[tuple[UUID, int]]) -> dict[tuple[UUID, int], ModelVersion]:
        """Versions by (model, number), in one query."""
        ctx.require(Action.READ_REGISTRY)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            return await store.versions_by_key(session, ctx.tenant_id, keys)

    async def register(self, ctx: RequestContext, registration: VersionRegistration) -> ModelVersion:
        """A new version with status VALIDATING, or the version that the same artifact and input made before.

        Raises InvalidInput, NotFound (the artifact), Conflict (name, task or limit).
        """
        ctx.require(Action.REGISTER_VERSION)
        # A sample may have millions of values: looked at in a thread, they hold up nobody else.
        await asyncio.to_thread(rules.check_registration, registration)
        fingerprint = await asyncio.to_thread(rules.registration_hash, registration)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            artifact = await store.find_artifact(session, ctx.tenant_id, registration.artifact_digest, self._keys)
            model = await store.open_model(session, ctx.tenant_id, registration, self._allowances.max_models(ctx.tenant_id))
            before = await store.same_registration(session, model, fingerprint)
            if before is not None:
                return store.version_value(before, model.name)
            await life.check_parent(session, model, registration)
            row = await store.add_version(session, model, registration, artifact, fingerprint, ctx.subject, self._clock.now())
            version = store.version_value(row, model.name)
            after: dict[str, Any] = {"status": version.status.value, "artifactDigest": artifact.digest}
            after |= {} if version.origin is None else {"origin": version.origin.to_json()}
            await self._record(session, ctx, "registerModelVersion", _subject(model, row.number), None, after, None)
            await announce(session, ctx.tenant_id)
        self._everywhere.wake()
        return version

    async def registered(self, ctx: RequestContext, registration: VersionRegistration) -> ModelVersion | None:
        """The version that the same registration made before, whose bytes are still there; or None."""
        fingerprint = await asyncio.to_thread(rules.registration_hash, registration)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            found = await store.registered(session, ctx.tenant_id, registration.model, fingerprint)
            return None if found is None else store.version_value(found, registration.model)

    async def update_model(self, ctx: RequestContext, name: str, changes: dict[str, Any]) -> Model:
        """The model with its changes: description, fallback (a Fallback), cache_seconds; what is left out stays.

        Every replica that is heard of answers by them when this returns, or two seconds are over.
        """
        ctx.require(Action.UPDATE_MODEL)
        _check_changes(changes)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row = await store.find_model(session, ctx.tenant_id, name, lock=True)
            before = _settings_of(row)
            fallback: Fallback | None = changes.get("fallback")
            if fallback is not None:
                await life.check_fallback(session, row, fallback)
            if "description" in changes:
                row.description = changes["description"]
            if "fallback" in changes:
                row.fallback = None if fallback is None else fallback.to_json()
            if changes.get("cache_seconds") is not None:
                row.cache_seconds = changes["cache_seconds"]
            await session.flush()
            await self._record(session, ctx, "updateModel", f"model:{row.name}", before, _settings_of(row), None)
            generation = await announce(session, ctx.tenant_id)
            value = store.model_value(row)
        await self._everywhere.in_force(ctx.tenant_id, generation)
        return value

    async def blockers(self, ctx: RequestContext, model: str, version: int, alias: str) -> list[PromotionBlocker]:
        """What stands in the way of promoting this version to the alias; empty where nothing does."""
        ctx.require(Action.READ_REGISTRY)
        check_name("alias", alias)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row = await store.find_model(session, ctx.tenant_id, model)
            return aliases.blockers(await standing(session, row, alias, version))

    async def promote(
        self,
        ctx: RequestContext,
        model: str,
        version: int,
        alias: str = PRODUCTION,
        expected_revision: int | None = None,
        allow_breaking: bool = False,
        reason: str | None = None,
    ) -> Promotion:
        """Points the alias at the version. What already serves: no change, the same revision.

        Raises NotFound, Conflict (another revision than expected), NotPromotable with every blocker.
        """
        ctx.require(Action.PROMOTE)
        check_name("alias", alias)
        check_optional_reason(reason)
        if allow_breaking and not (reason or "").strip():
            raise InvalidInput("allowBreaking needs a reason: say why the alias's callers can bear it.")
        damage = await self.damage(ctx, model, version)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            promotion, _ = await self.promote_in(session, ctx, model, version, alias, expected_revision, allow_breaking, reason, damage)
        return await self.in_effect(ctx, promotion)

    async def promote_in(
        self,
        session: AsyncSession,
        ctx: RequestContext,
        model: str,
        version: int,
        alias: str,
        expected_revision: int | None,
        allow_breaking: bool,
        reason: str | None,
        damage: Sequence[PromotionBlocker],
    ) -> tuple[Promotion, bool]:
        """As `promote`, in the caller's transaction: the promotion, and whether the alias moved, which then is announced.

        `damage`: what `damage` found before the transaction, for it may read the version's bytes. After the commit: `in_effect`.
        """
        ctx.require(Action.PROMOTE)
        row = await store.find_model(session, ctx.tenant_id, model, lock=True)
        now = await standing(session, row, alias, version)
        state = now.state
        aliases.check_expected(row, alias, state, expected_revision)
        moved = state.number != version
        if moved:
            aliases.refuse(row, alias, version, [*aliases.blockers(now), *damage], allow_breaking)
            parent = state.revision or None
            promotion = await aliases.move(session, ctx, self._clock, row, alias, state, version, parent, "promote", reason)
        else:
            same = await store.promotion_at(session, row, alias, state.revision)
            assert same is not None  # noqa: S101  an alias has a history row for its revision: both are written together
            promotion = store.promotion_value(same, row.name)
        (promotion,) = await self._beside_experiments(session, ctx, [promotion])
        return promotion, moved

    async def rollback(
        self, ctx: RequestContext, model: str, alias: str = PRODUCTION, expected_revision: int | None = None, reason: str | None = None
    ) -> Promotion:
        """Points the alias at what it served before, one step down its history; raises Conflict at the first version."""
        ctx.require(Action.PROMOTE)
        check_name("alias", alias)
        check_optional_reason(reason)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row = await store.find_model(session, ctx.tenant_id, model, lock=True)
            state = await aliases.expected_state(session, row, alias, expected_revision)
            target = await aliases.previous(session, row, alias, state.revision)
            if target is None:
                raise Conflict(
                    f"The alias {alias!r} of {row.name!r} has no earlier version that can serve: there is nothing to roll back to."
                )
            parent = target.parent_revision
            moved = await aliases.move(session, ctx, self._clock, row, alias, state, target.number, parent, "rollback", reason)
            (promotion,) = await self._beside_experiments(session, ctx, [moved])
        return await self.in_effect(ctx, promotion)

    async def withdraw(self, ctx: RequestContext, model: str, number: int, reason: str) -> ModelVersion:
        """Takes the version out of every route at once: its aliases step back to what they served before, where there is something.

        Every replica that is heard of has done so when this returns, or two seconds are over; the aliases' histories tell who. Where
        none steps back there is no promotion to tell it, and the log names who was not heard.
        """
        ctx.require(Action.WITHDRAW_VERSION)
        check_reason(reason)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row = await store.find_model(session, ctx.tenant_id, model, lock=True)
            version = await store.find_version(session, row, number)
            if version.status == VersionStatus.WITHDRAWN:
                return store.version_value(version, row.name)
            before = version.status
            version.status, version.status_reason, version.retired_at = VersionStatus.WITHDRAWN.value, reason, self._clock.now()
            await session.flush()
            for alias in await store.aliases_serving(session, row, number):
                state = await store.alias_state(session, row, alias)
                target = await aliases.previous(session, row, alias, state.revision)
                if target is not None:
                    why = f"version {number} was withdrawn: {reason}"
                    parent = target.parent_revision
                    await aliases.move(session, ctx, self._clock, row, alias, state, target.number, parent, "rollback", why)
            generation = await self._status_changed(session, ctx, row, version.number, before, VersionStatus.WITHDRAWN, reason)
            value = store.version_value(version, row.name)
        await self._everywhere.in_force(ctx.tenant_id, generation)
        return value

    async def archive(self, ctx: RequestContext, model: str, number: int, reason: str | None) -> ModelVersion:
        """Retires the version; raises Conflict while an alias, a fallback or an experiment needs it."""
        ctx.require(Action.ARCHIVE_VERSION)
        check_optional_reason(reason)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row = await store.find_model(session, ctx.tenant_id, model, lock=True)
            version = await store.find_version(session, row, number)
            if version.status == VersionStatus.ARCHIVED:
                return store.version_value(version, row.name)
            await life.check_unused(session, row, number)
            life.check_no_experiment(row, number, await self._experiments.using(session, ctx.tenant_id, row.model_id, number))
            before = version.status
            version.status, version.status_reason, version.retired_at = VersionStatus.ARCHIVED.value, reason, self._clock.now()
            await session.flush()
            generation = await self._status_changed(session, ctx, row, number, before, VersionStatus.ARCHIVED, reason)
            value = store.version_value(version, row.name)
        await self._everywhere.in_force(ctx.tenant_id, generation)
        return value

    async def damage(self, ctx: RequestContext, model: str, number: int) -> list[PromotionBlocker]:
        """A blocker where the version's bytes are not to be used here: what serves now serves on. Raises NotFound."""
        async with self._database.tenant_read(ctx.tenant_id) as reading:
            status, digest = await bytes_of(reading, ctx.tenant_id, model, number)
        if status is not VersionStatus.READY or digest is None:
            return []
        refusal = await self._artifacts.refusal(ctx.tenant_id, digest)
        return [] if refusal is None else [PromotionBlocker("ARTIFACT_REFUSED", refusal, overridable=False)]

    async def _beside_experiments(self, session: AsyncSession, ctx: RequestContext, promotions: Sequence[Promotion]) -> list[Promotion]:
        """The promotions with the experiments in which their previous version answers on."""
        before = {p: (p.model_id, p.previous_version) for p in promotions if p.previous_version is not None}
        served = await self._experiments.still_serving(session, ctx.tenant_id, set(before.values()))
        return [replace(p, still_served_by=served.get(before[p], ()) if p in before else ()) for p in promotions]

    async def _status_changed(
        self,
        session: AsyncSession,
        ctx: RequestContext,
        model: ModelRow,
        number: int,
        before: str,
        after: VersionStatus,
        reason: str | None,
    ) -> int:
        action = "withdrawModelVersion" if after is VersionStatus.WITHDRAWN else "archiveModelVersion"
        await self._record(session, ctx, action, _subject(model, number), {"status": before}, {"status": after.value}, reason)
        return await announce(session, ctx.tenant_id)

    async def in_effect(self, ctx: RequestContext, promotion: Promotion) -> Promotion:
        """The promotion with what is known of it, once that is all or the time is up; after its commit."""
        change = effect.change_of(promotion)
        return promotion if change is None else effect.told(promotion, await self._everywhere.effect_of(ctx.tenant_id, change))

    async def _record(
        self, session: AsyncSession, ctx: RequestContext, action: str, subject: str, before: Any, after: Any, reason: str | None
    ) -> None:
        await audit.record(session, ctx, self._clock, action=action, subject=subject, before=before, after=after, reason=reason)


def _subject(model: ModelRow, number: int) -> str:
    return f"version:{model.name}/{number}"


def _check_changes(changes: dict[str, Any]) -> None:
    rules.check_text("description", changes.get("description"))
    rules.check_fallback(changes.get("fallback"))
    seconds = changes.get("cache_seconds")
    if seconds is not None and not 0 <= seconds <= 86_400:
        raise InvalidInput(f"cacheSeconds is {seconds}; it must be 0 (off) to 86,400.")


def _settings_of(row: ModelRow) -> dict[str, Any]:
    return {"description": row.description, "fallback": row.fallback, "cacheSeconds": row.cache_seconds}
