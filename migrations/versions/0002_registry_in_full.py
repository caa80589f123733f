"""The registry in full: proofs and compiled models, lineage and retention of versions, replicas and what they have applied.

Revision: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UP = """
alter table model_versions
  add column proof jsonb,
  add column compiled_digest text,
  add column compiled_size_bytes bigint,
  add column artifact_deleted_at timestamptz,
  add column lineage jsonb,
  add column warning text,
  add column retired_at timestamptz;

alter table artifacts
  add column signer text,
  add column signature bytea,
  add column removed_at timestamptz;

alter table promotions add column generation bigint;

create table compiled_models (
  tenant_id uuid not null,
  digest text not null,
  data bytea not null,
  size_bytes bigint not null,
  mac bytea not null,
  created_at timestamptz not null default now(),
  constraint pk_compiled_models primary key (tenant_id, digest),
  constraint fk_compiled_models_tenants foreign key (tenant_id) references tenants (tenant_id),
  constraint ck_compiled_models_size_bytes check (size_bytes >= 0)
);
alter table compiled_models alter column data set storage external;

create table replicas (
  replica_id uuid not null,
  name text not null,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  joined_generation bigint not null default 0,
  generation bigint not null default 0,
  left_at timestamptz,
  constraint pk_replicas primary key (replica_id)
);

create table replica_acks (
  tenant_id uuid not null,
  replica_id uuid not null,
  generation bigint not null,
  at timestamptz not null default clock_timestamp(),
  cold jsonb,
  constraint pk_replica_acks primary key (tenant_id, replica_id, generation, at),
  constraint fk_replica_acks_tenants foreign key (tenant_id) references tenants (tenant_id),
  constraint fk_replica_acks_replicas foreign key (replica_id) references replicas (replica_id)
);

alter table compiled_models enable row level security;
alter table compiled_models force row level security;
create policy tenant_isolation on compiled_models
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));

alter table replica_acks enable row level security;
alter table replica_acks force row level security;
create policy tenant_isolation on replica_acks
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));

grant select, insert, delete on compiled_models, replica_acks to turnout_runtime;
grant select, insert, update on replicas to turnout_runtime;
grant update on artifacts to turnout_runtime;

grant select (proof, compiled_digest, compiled_size_bytes, artifact_deleted_at, retired_at) on model_versions to turnout_sync;
grant select (replica_id, name, started_at, seen_at, joined_generation, generation, left_at) on replicas to turnout_sync
"""

DOWN = """
drop table replica_acks;
drop table replicas;
drop table compiled_models;
alter table promotions drop column generation;
revoke update on artifacts from turnout_runtime;
alter table artifacts drop column signer, drop column signature, drop column removed_at;
alter table model_versions
  drop column proof,
  drop column compiled_digest,
  drop column compiled_size_bytes,
  drop column artifact_deleted_at,
  drop column lineage,
  drop column warning,
  drop column retired_at
"""


def upgrade() -> None:
    _run(UP)


def downgrade() -> None:
    _run(DOWN)


def _run(statements: str) -> None:
    """The driver takes one statement at a time."""
    for statement in statements.split(";"):
        op.execute(statement)
