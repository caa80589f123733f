"""Who may do what to which table: one table, from which the boot check works and to which the migrations are compared."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DatabaseRole(StrEnum):
    """The four roles, by their names in PostgreSQL. Owner: migrations and maintenance, in the parent process alone."""

    OWNER = "turnout_owner"
    RUNTIME = "turnout_runtime"
    LOG = "turnout_log"
    SYNC = "turnout_sync"


SERVING_ROLES = (DatabaseRole.RUNTIME, DatabaseRole.LOG, DatabaseRole.SYNC)


class Privilege(StrEnum):
    SELECT = "SELECT"
    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    TRUNCATE = "TRUNCATE"
    REFERENCES = "REFERENCES"
    TRIGGER = "TRIGGER"
    MAINTAIN = "MAINTAIN"  # PostgreSQL 17 and newer


@dataclass(frozen=True, slots=True)
class Grant:
    """What one role may do to one table. `columns`: only these may be read, and nothing else done."""

    privileges: frozenset[Privilege]
    columns: frozenset[str] = frozenset()  # empty: the whole table


def _on(*privileges: Privilege) -> Grant:
    return Grant(frozenset(privileges))


def _columns(names: str) -> Grant:
    return Grant(frozenset({Privilege.SELECT}), frozenset(names.split()))


_S, _I, _U, _D = Privilege.SELECT, Privilege.INSERT, Privilege.UPDATE, Privilege.DELETE

GRANTS: dict[DatabaseRole, dict[str, Grant]] = {
    DatabaseRole.RUNTIME: {
        "tenants": _on(_S, _I, _U),
        "models": _on(_S, _I, _U),
        "artifacts": _on(_S, _I, _U),
        "artifact_chunks": _on(_S, _I, _D),
        "compiled_models": _on(_S, _I, _D),
        "model_versions": _on(_S, _I, _U),
        "aliases": _on(_S, _I, _U),
        "promotions": _on(_S, _I),
        "replicas": _on(_S, _I, _U, _D),
        "replica_acks": _on(_S, _I, _D),
        "audit_entries": _on(_S, _I),
        "outbox": _on(_I),
        "routing_generation": _on(_S, _U),
        "predictions": _on(_S),
        "shadow_answers": _on(_S),
        "experiments": _on(_S, _I, _U),
        "metrics": _on(_S, _I),
        "exposure_queue": _on(_S, _D),
        "covariate_queue": _on(_S, _D),
        "exposures": _on(_S, _I, _U, _D),
        "exposure_tallies": _on(_S, _I, _U),
        "outcomes": _on(_S, _I, _U, _D),
        "stale_units": _on(_S, _I, _D),
        "unit_values": _on(_S, _I, _U, _D),
        "metric_sums": _on(_S, _I, _U),
        "looks": _on(_S, _I),
        "flag_documents": _on(_S, _I, _U),
        "tenant_names": _on(_S, _I, _D),
        "token_denials": _on(_S, _I, _D),
        "documents": _on(_S, _I, _D),
        "platform_documents": _on(_S, _I, _D),
        "usage_deltas": _on(_S, _D),
        "usage_days": _on(_S, _I, _U),
        "service_days": _on(_S, _I, _U),
        "audit_heads": _on(_S, _I, _U),
        "audit_people": _on(_S, _I, _U),
        "tombstones": _on(_S, _I),
        "captured_inputs": _on(_S),
    },
    DatabaseRole.LOG: {
        "predictions": _on(_I),
        "exposure_queue": _on(_I),
        "covariate_queue": _on(_I),
        "shadow_answers": _on(_I),
        "usage_deltas": _on(_I),
        "captured_inputs": _on(_I),
        "tombstones": _columns("tenant_id unit_hash at"),
    },
    DatabaseRole.SYNC: {
        "tenants": _columns(
            "tenant_id id name status limits settings wrapped_secret pseudonym_generation assignment_generation created_at"
        ),
        "models": _columns("tenant_id model_id name task cache_seconds fallback"),
        "model_versions": _columns(
            "tenant_id model_id number status artifact_digest size_bytes runtime signature classes "
            "proof compiled_digest compiled_size_bytes artifact_deleted_at retired_at"
        ),
        "artifacts": _columns("tenant_id digest created_at removed_at"),
        "aliases": _columns("tenant_id model_id name number revision"),
        "promotions": _columns("tenant_id model_id alias revision number parent_revision"),
        "experiments": _columns(
            "tenant_id key model_id model status source rollout variants layer slots targeting overrides guardrails revision"
        ),
        "exposure_queue": _columns("tenant_id"),
        "covariate_queue": _columns("tenant_id"),
        "stale_units": _columns("tenant_id"),
        "outcomes": _columns("tenant_id pending"),
        "flag_documents": _columns("source revision document fetched_at"),
        "tenant_names": _columns("tenant_id issuer external_id"),
        "token_denials": _columns("tenant_id id jti subject issued_before expires_at"),
        "documents": _columns("tenant_id id body"),
        "platform_documents": _columns("id body"),
        "usage_deltas": _columns("tenant_id"),
        "tombstones": _columns("tenant_id at swept_at"),
        "outbox": _columns("generation tenant_id at"),
        "replicas": _columns("replica_id name started_at seen_at joined_generation generation left_at"),
        "routing_generation": _columns("singleton generation"),
    },
}
