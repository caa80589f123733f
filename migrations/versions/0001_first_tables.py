"""The first tables, their row-level security and grants.

Revision: 0001
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
create table tenants (
  tenant_id uuid not null,
  id text not null,
  name text not null,
  status text not null default 'ACTIVE',
  limits jsonb not null default '{}'::jsonb,
  settings jsonb not null default '{}'::jsonb,
  wrapped_secret bytea not null,
  pseudonym_generation integer not null default 1,
  assignment_generation integer not null default 1,
  created_at timestamptz not null default now(),
  constraint pk_tenants primary key (tenant_id),
  constraint uq_tenants_id unique (id),
  constraint ck_tenants_status check (status in ('ACTIVE', 'SUSPENDED', 'ERASED'))
);

create table models (
  tenant_id uuid not null,
  model_id uuid not null,
  name text not null,
  folded_name text not null,
  task text not null,
  description text,
  fallback jsonb,
  cache_seconds integer not null default 0,
  next_number integer not null default 1,
  created_at timestamptz not null default now(),
  constraint pk_models primary key (tenant_id, model_id),
  constraint uq_models_tenant_id_name unique (tenant_id, name),
  constraint uq_models_tenant_id_folded_name unique (tenant_id, folded_name),
  constraint fk_models_tenants foreign key (tenant_id) references tenants (tenant_id),
  constraint ck_models_task check (task in ('CLASSIFICATION', 'REGRESSION')),
  constraint ck_models_cache_seconds check (cache_seconds >= 0),
  constraint ck_models_next_number check (next_number >= 1)
);

create table artifacts (
  tenant_id uuid not null,
  digest text not null,
  size_bytes bigint not null,
  upload_id uuid not null,
  mac bytea not null,
  created_at timestamptz not null default now(),
  created_by text not null,
  constraint pk_artifacts primary key (tenant_id, digest),
  constraint fk_artifacts_tenants foreign key (tenant_id) references tenants (tenant_id),
  constraint ck_artifacts_size_bytes check (size_bytes >= 0)
);

create table artifact_chunks (
  tenant_id uuid not null,
  upload_id uuid not null,
  seq integer not null,
  data bytea not null,
  created_at timestamptz not null default now(),
  constraint pk_artifact_chunks primary key (tenant_id, upload_id, seq),
  constraint fk_artifact_chunks_tenants foreign key (tenant_id) references tenants (tenant_id),
  constraint ck_artifact_chunks_seq check (seq >= 0)
);
alter table artifact_chunks alter column data set storage external;

create table model_versions (
  tenant_id uuid not null,
  model_id uuid not null,
  number integer not null,
  status text not null,
  status_reason text,
  artifact_digest text,
  size_bytes bigint,
  registration_hash text not null,
  runtime text,
  signature jsonb,
  classes jsonb,
  given_columns jsonb,
  sample jsonb,
  metrics jsonb,
  tags jsonb,
  description text,
  environment jsonb,
  created_at timestamptz not null default now(),
  created_by text not null,
  claimed_until timestamptz,
  constraint pk_model_versions primary key (tenant_id, model_id, number),
  constraint fk_model_versions_models foreign key (tenant_id, model_id) references models (tenant_id, model_id),
  constraint fk_model_versions_artifacts foreign key (tenant_id, artifact_digest) references artifacts (tenant_id, digest),
  constraint ck_model_versions_number check (number >= 1),
  constraint ck_model_versions_status check (status in ('VALIDATING', 'READY', 'FAILED', 'WITHDRAWN', 'ARCHIVED')),
  constraint ck_model_versions_runtime check (runtime in ('ONNX', 'SKLEARN', 'OPEN_INFERENCE'))
);
create index ix_model_versions_tenant_id_model_id_registration_hash on model_versions (tenant_id, model_id, registration_hash);

create table aliases (
  tenant_id uuid not null,
  model_id uuid not null,
  name text not null,
  number integer not null,
  revision integer not null,
  constraint pk_aliases primary key (tenant_id, model_id, name),
  constraint fk_aliases_model_versions
    foreign key (tenant_id, model_id, number) references model_versions (tenant_id, model_id, number),
  constraint ck_aliases_revision check (revision >= 1)
);

create table promotions (
  tenant_id uuid not null,
  model_id uuid not null,
  alias text not null,
  revision integer not null,
  number integer not null,
  previous_number integer,
  parent_revision integer,
  at timestamptz not null default now(),
  by text not null,
  reason text,
  constraint pk_promotions primary key (tenant_id, model_id, alias, revision),
  constraint fk_promotions_model_versions
    foreign key (tenant_id, model_id, number) references model_versions (tenant_id, model_id, number),
  constraint ck_promotions_revision check (revision >= 1)
);

create table audit_entries (
  tenant_id uuid not null,
  id uuid not null,
  at timestamptz not null default now(),
  actor text not null,
  action text not null,
  subject text not null,
  before jsonb,
  after jsonb,
  reason text,
  constraint pk_audit_entries primary key (tenant_id, id)
);
create index ix_audit_entries_newest_first on audit_entries (tenant_id, at desc, id desc);

create table outbox (
  generation bigint not null,
  tenant_id uuid not null,
  at timestamptz not null default now(),
  constraint pk_outbox primary key (generation, tenant_id)
);

create table routing_generation (
  singleton boolean not null default true,
  generation bigint not null default 0,
  constraint pk_routing_generation primary key (singleton),
  constraint ck_routing_generation_singleton check (singleton)
);
insert into routing_generation default values;

create table predictions (
  tenant_id uuid not null,
  id uuid not null,
  at timestamptz not null,
  model text not null,
  version integer not null,
  reason text not null,
  unit_hash text,
  key_generation integer not null,
  experiment text,
  variant text,
  propensity double precision,
  flag_revision bigint,
  rows integer not null,
  compute_us integer not null,
  score double precision,
  degraded boolean not null,
  constraint pk_predictions primary key (tenant_id, id, at),
  constraint ck_predictions_rows check (rows >= 0),
  constraint ck_predictions_compute_us check (compute_us >= 0)
) partition by range (at);
create index ix_predictions_newest_first on predictions (tenant_id, at desc);
create index ix_predictions_at on predictions using brin (at);
"""

# A setting that was local to a transaction reads as '' afterwards, hence nullif: no tenant is null, and null equals nothing.
TENANT_FUNCTION = """
create function app_tenant() returns uuid language sql stable parallel safe
  as $$ select nullif(pg_catalog.current_setting('app.tenant_id', true), '')::uuid $$
"""

SYNC_READS_ALL_TENANTS_OF = ("tenants", "models", "model_versions", "aliases", "outbox")
TENANT_TABLES = (*SYNC_READS_ALL_TENANTS_OF, "artifacts", "artifact_chunks", "promotions", "audit_entries", "predictions")

# The sub-select makes PostgreSQL call the function once a statement, not once a row.
ISOLATION = """
alter table {table} enable row level security;
alter table {table} force row level security;
create policy tenant_isolation on {table}
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
"""

OTHER_POLICIES = """
create policy log_append on predictions for insert to turnout_log with check (true);
create policy owner_trims on outbox to current_user using (true) with check (true);
"""

GRANTS = """
revoke create on schema public from public;
grant usage on schema public to turnout_runtime, turnout_log, turnout_sync;

grant select, insert, update on tenants, models, model_versions, aliases to turnout_runtime;
grant select, insert on artifacts, promotions, audit_entries to turnout_runtime;
grant select, insert, delete on artifact_chunks to turnout_runtime;
grant insert on outbox to turnout_runtime;
grant select, update on routing_generation to turnout_runtime;
grant select on predictions to turnout_runtime;

grant insert on predictions to turnout_log;

grant select (tenant_id, id, name, status, limits, settings, wrapped_secret, pseudonym_generation, assignment_generation, created_at)
  on tenants to turnout_sync;
grant select (tenant_id, model_id, name, task, cache_seconds, fallback) on models to turnout_sync;
grant select (tenant_id, model_id, number, status, artifact_digest, size_bytes, runtime, signature, classes)
  on model_versions to turnout_sync;
grant select (tenant_id, model_id, name, number, revision) on aliases to turnout_sync;
grant select (generation, tenant_id, at) on outbox to turnout_sync;
grant select (singleton, generation) on routing_generation to turnout_sync;
"""


def upgrade() -> None:
    _run(TABLES)
    op.execute(TENANT_FUNCTION)
    for table in TENANT_TABLES:
        _run(ISOLATION.format(table=table))
    for table in SYNC_READS_ALL_TENANTS_OF:
        op.execute(f"create policy sync_reads on {table} for select to turnout_sync using (true)")
    _run(OTHER_POLICIES)
    _run(GRANTS)


def downgrade() -> None:
    for table in ("predictions", "routing_generation", "outbox", "audit_entries", "promotions", "aliases"):
        op.execute(f"drop table {table}")
    for table in ("model_versions", "artifact_chunks", "artifacts", "models", "tenants"):  # what refers to a table before the table
        op.execute(f"drop table {table}")
    op.execute("drop function app_tenant()")
    op.execute("revoke usage on schema public from turnout_runtime, turnout_log, turnout_sync")


def _run(statements: str) -> None:
    """The driver takes one statement at a time."""
    for statement in statements.split(";"):
        if statement.strip():
            op.execute(statement)
