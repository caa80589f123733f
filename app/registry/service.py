"""Use cases of the registry. Each checks the permission, opens one transaction, writes change, history, audit and outbox together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from app.audit import store as audit
from app.db.outbox import announce
from app.errors import Conflict, InvalidInput, NotPromotable
from app.kernel.context import Action
from app.kernel.names import check_name
from app.kernel.paging import Page, make_page, page_request
from app.registry import effect, life, rules, store
from app.registry.rows import PromotionRow
from app.registry.types import PRODUCTION, Alias, Fallback, Model, ModelVersion, Promotion, PromotionBlocker, VersionStatus

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database
    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.kernel.signature import Signature
    from app.registry.artifacts import ArtifactCache
    from app.registry.ports import Allowances, Announcer
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
        announced: Announcer,
        keys: TrustedKeys,
        artifacts: ArtifactCache,
    ) -> None:
        self._database = database
        self._clock = clock
        self._allowances = allowances
        self._announced = announced
        self._keys = keys
        self._artifacts = artifacts

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
            after = {"status": version.status.value, "artifactDigest": artifact.digest}
            await self._record(session, ctx, "registerModelVersion", _subject(model, row.number), None, after, None)
            await announce(session, ctx.tenant_id)
        self._announced.wake()
        return version

    async def update_model(self, ctx: RequestContext, name: str, changes: dict[str, Any]) -> Model:
        """The model with its changes: description, fallback (a Fallback), cache_seconds; what is left out stays."""
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
            await announce(session, ctx.tenant_id)
            value = store.model_value(row)
        self._announced.wake()
        return value

    async def blockers(self, ctx: RequestContext, model: str, version: int, alias: str) -> list[PromotionBlocker]:
        """What stands in the way of promoting this version to the alias; empty where nothing does."""
        ctx.require(Action.READ_REGISTRY)
        check_name("alias", alias)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row = await store.find_model(session, ctx.tenant_id, model)
            state = await store.alias_state(session, row, alias)
            return await _blockers(session, row, version, state)

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
        rules.check_text("reason", reason)
        if allow_breaking and not (reason or "").strip():
            raise InvalidInput("allowBreaking needs a reason: say why the alias's callers can bear it.")
        damage = await self._damage(ctx, model, version)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row = await store.find_model(session, ctx.tenant_id, model, lock=True)
            await store.find_version(session, row, version)
            state = await _expected(session, row, alias, expected_revision)
            if state.number == version:
                same = await store.promotion_at(session, row, alias, state.revision)
                assert same is not None  # noqa: S101  an alias has a history row for its revision: both are written together
                promotion = store.promotion_value(same, row.name)
            else:
                _refuse(row, alias, version, [*await _blockers(session, row, version, state), *damage], allow_breaking)
                parent = state.revision or None
                promotion = await self._move(session, ctx, row, alias, state, version, parent, "promote", reason)
        return await self._in_effect(ctx, promotion)

    async def rollback(
        self, ctx: RequestContext, model: str, alias: str = PRODUCTION, expected_revision: int | None = None, reason: str | None = None
    ) -> Promotion:
        """Points the alias at what it served before, one step down its history; raises Conflict at the first version."""
        ctx.require(Action.PROMOTE)
        check_name("alias", alias)
        rules.check_text("reason", reason)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row = await store.find_model(session, ctx.tenant_id, model, lock=True)
            state = await _expected(session, row, alias, expected_revision)
            target = await _previous(session, row, alias, state.revision)
            if target is None:
                raise Conflict(
                    f"The alias {alias!r} of {row.name!r} has no earlier version that can serve: there is nothing to roll back to."
                )
            promotion = await self._move(session, ctx, row, alias, state, target.number, target.parent_revision, "rollback", reason)
        return await self._in_effect(ctx, promotion)

    async def withdraw(self, ctx: RequestContext, model: str, number: int, reason: str) -> ModelVersion:
        """Takes the version out of every route at once: its aliases step back to what they served before, where there is something."""
        ctx.require(Action.WITHDRAW_VERSION)
        _check_reason(reason)
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
                target = await _previous(session, row, alias, state.revision)
                if target is not None:
                    why = f"version {number} was withdrawn: {reason}"
                    await self._move(session, ctx, row, alias, state, target.number, target.parent_revision, "rollback", why)
            generation = await self._status_changed(session, ctx, row, version.number, before, VersionStatus.WITHDRAWN, reason)
            value = store.version_value(version, row.name)
        await self._awaited(ctx.tenant_id, (generation, effect.NO_VERSION))
        return value

    async def archive(self, ctx: RequestContext, model: str, number: int, reason: str | None) -> ModelVersion:
        """Retires the version; raises Conflict while an alias points at it."""
        ctx.require(Action.ARCHIVE_VERSION)
        rules.check_text("reason", reason)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row = await store.find_model(session, ctx.tenant_id, model, lock=True)
            version = await store.find_version(session, row, number)
            if version.status == VersionStatus.ARCHIVED:
                return store.version_value(version, row.name)
            await life.check_unused(session, row, number)
            before = version.status
            version.status, version.status_reason, version.retired_at = VersionStatus.ARCHIVED.value, reason, self._clock.now()
            await session.flush()
            await self._status_changed(session, ctx, row, number, before, VersionStatus.ARCHIVED, reason)
            value = store.version_value(version, row.name)
        await self._announced.caught_up(ctx.tenant_id)
        return value

    async def _damage(self, ctx: RequestContext, model: str, number: int) -> list[PromotionBlocker]:
        """A blocker where the version's bytes are not to be used here: what serves now serves on. Raises NotFound."""
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row = await store.find_version(session, await store.find_model(session, ctx.tenant_id, model), number)
        if row.status != VersionStatus.READY or row.artifact_digest is None:
            return []
        refusal = await self._artifacts.refusal(ctx.tenant_id, row.artifact_digest)
        return [] if refusal is None else [PromotionBlocker("ARTIFACT_REFUSED", refusal, overridable=False)]

    async def _move(
        self,
        session: AsyncSession,
        ctx: RequestContext,
        model: ModelRow,
        alias: str,
        state: store.AliasState,
        number: int,
        parent_revision: int | None,
        action: str,
        reason: str | None,
    ) -> Promotion:
        row = PromotionRow(
            tenant_id=model.tenant_id,
            model_id=model.model_id,
            alias=alias,
            revision=state.revision + 1,
            number=number,
            previous_number=state.number,
            parent_revision=parent_revision,
            at=self._clock.now(),
            by=ctx.subject,
            reason=reason,
        )
        before = None if state.number is None else {"version": state.number, "revision": state.revision}
        after = {"version": number, "revision": row.revision}
        await self._record(session, ctx, action, f"alias:{model.name}/{alias}", before, after, reason)
        row.generation = await announce(session, ctx.tenant_id)  # before the row, which is written once and holds it
        await store.point_alias(session, model, row)
        return store.promotion_value(row, model.name)

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

    async def _in_effect(self, ctx: RequestContext, promotion: Promotion) -> Promotion:
        """The promotion with what is known of it, once that is all or the time is up; after its commit."""
        change = effect.change_of(promotion)
        return promotion if change is None else effect.told(promotion, await self._awaited(ctx.tenant_id, change))

    async def _awaited(self, tenant_id: UUID, change: effect.Change) -> effect.Effect:
        loop = asyncio.get_running_loop()
        end = loop.time() + effect.WAIT_S
        known = await effect.await_effect(self._database, tenant_id, change, end - loop.time())
        if not known.applied_by:  # no replica is on record, this one neither: at least it serves what it answers
            await self._announced.caught_up(tenant_id)
        return known

    async def _record(
        self, session: AsyncSession, ctx: RequestContext, action: str, subject: str, before: Any, after: Any, reason: str | None
    ) -> None:
        await audit.record(session, ctx, self._clock, action=action, subject=subject, before=before, after=after, reason=reason)


def _subject(model: ModelRow, number: int) -> str:
    return f"version:{model.name}/{number}"


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise InvalidInput("reason is empty: say why, for those who read the audit log.")
    rules.check_text("reason", reason)


def _check_changes(changes: dict[str, Any]) -> None:
    rules.check_text("description", changes.get("description"))
    rules.check_fallback(changes.get("fallback"))
    seconds = changes.get("cache_seconds")
    if seconds is not None and not 0 <= seconds <= 86_400:
        raise InvalidInput(f"cacheSeconds is {seconds}; it must be 0 (off) to 86,400.")


def _settings_of(row: ModelRow) -> dict[str, Any]:
    return {"description": row.description, "fallback": row.fallback, "cacheSeconds": row.cache_seconds}


def _refuse(model: ModelRow, alias: str, number: int, blockers: list[PromotionBlocker], allow_breaking: bool) -> None:
    """Raises NotPromotable with the blockers that stand; returns where there is none."""
    if standing := [b for b in blockers if not (allow_breaking and b.overridable)]:
        raise NotPromotable(
            f"Version {number} of {model.name!r} cannot be promoted to {alias!r}: {' '.join(b.message for b in standing)}",
            blockers=[b.to_json() for b in standing],
        )


async def _expected(session: AsyncSession, model: ModelRow, alias: str, expected: int | None) -> store.AliasState:
    """The alias as it stands; raises Conflict where the caller expected another revision (0: none yet)."""
    state = await store.alias_state(session, model, alias)
    if expected is not None and expected != state.revision:
        raise Conflict(f"The alias {alias!r} of {model.name!r} is at revision {state.revision}, not {expected}: look again, then decide.")
    return state


async def _previous(session: AsyncSession, model: ModelRow, alias: str, revision: int) -> PromotionRow | None:
    """The next step down the alias's history whose version can still serve; None at the bottom."""
    current = await store.promotion_at(session, model, alias, revision)
    while current is not None and current.parent_revision is not None:
        current = await store.promotion_at(session, model, alias, current.parent_revision)
        if current is not None and (await store.find_version(session, model, current.number)).status == VersionStatus.READY:
            return current
    return None


async def _blockers(session: AsyncSession, model: ModelRow, number: int, state: store.AliasState) -> list[PromotionBlocker]:
    candidate = store.version_value(await store.find_version(session, model, number), model.name)
    if state.number == number:
        return [b for b in rules.promotion_blockers(candidate.status, candidate.inspected, None, None, None) if not b.overridable]
    serving: Signature | None = None
    classes: tuple[str, ...] | None = None
    if state.number is not None:
        now = store.version_value(await store.find_version(session, model, state.number), model.name)
        serving, classes = now.inspected, now.classes
    return rules.promotion_blockers(candidate.status, candidate.inspected, candidate.classes, serving, classes)
