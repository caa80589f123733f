"""Tenancy in full: other issuers' names, revoked tokens, registered documents, usage, tombstones, captured inputs, a chained audit log.

Revision: 0004
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = """
create table tenant_names (
  tenant_id uuid not null,
  issuer text not null,
  external_id text not null,
  created_at timestamptz not null default now(),
  created_by text not null,
  constraint pk_tenant_names primary key (issuer, external_id)
);

create table token_denials (
  tenant_id uuid not null,
  id uuid not null,
  jti text,
  subject text,
  issued_before timestamptz not null,
  expires_at timestamptz not null,
  constraint pk_token_denials primary key (tenant_id, id)
);

create table documents (
  tenant_id uuid not null,
  id text not null,
  body text not null,
  created_at timestamptz not null default now(),
  created_by text not null,
  constraint pk_documents primary key (tenant_id, id)
);

create table platform_documents (
  id text not null,
  body text not null,
  created_at timestamptz not null default now(),
  created_by text not null,
  constraint pk_platform_documents primary key (id)
);

create table usage_deltas (
  tenant_id uuid not null,
  id uuid not null default gen_random_uuid(),
  day date not null,
  model text not null,
  version integer not null,
  requests bigint not null,
  rows bigint not null,
  compute_us bigint not null,
  constraint pk_usage_deltas primary key (tenant_id, id)
);

create table usage_days (
  tenant_id uuid not null,
  day date not null,
  model text not null,
  version integer not null,
  requests bigint not null,
  rows bigint not null,
  compute_us bigint not null,
  constraint pk_usage_days primary key (tenant_id, day, model, version)
);

create table service_days (
  tenant_id uuid not null,
  day date not null,
  replica text not null,
  requests bigint not null,
  failed bigint not null,
  late bigint not null,
  constraint pk_service_days primary key (tenant_id, day, replica)
);

create table tombstones (
  tenant_id uuid not null,
  unit_hash text not null,
  id uuid not null,
  at timestamptz not null default now(),
  swept_at timestamptz,
  rows bigint not null default 0,
  constraint pk_tombstones primary key (tenant_id, unit_hash, id)
);
create index ix_tombstones_unswept on tombstones (at) where swept_at is null;

create table captured_inputs (
  tenant_id uuid not null,
  prediction_id uuid not null,
  at timestamptz not null,
  unit_hash text,
  sealed bytea not null,
  constraint pk_captured_inputs primary key (tenant_id, prediction_id)
);
create index ix_captured_inputs_of_unit on captured_inputs (tenant_id, unit_hash);
create index ix_captured_inputs_at on captured_inputs using brin (at);

create table audit_heads (
  tenant_id uuid not null,
  sequence bigint not null,
  seal bytea not null,
  constraint pk_audit_heads primary key (tenant_id)
);

create table audit_people (
  tenant_id uuid not null,
  pseudonym text not null,
  subject text,
  constraint pk_audit_people primary key (tenant_id, pseudonym)
);

alter table audit_entries
  add column sequence bigint,
  add column seal bytea,
  add constraint uq_audit_entries_tenant_id_sequence unique (tenant_id, sequence);

alter table model_versions add column origin jsonb
"""

# Only rows that were not there before are in `fresh`: usage is counted once, in the transaction in which the answers land.
TRIGGER = (
    """
create function count_usage() returns trigger language plpgsql as $$
begin
  insert into public.usage_deltas (tenant_id, day, model, version, requests, rows, compute_us)
  select tenant_id, (at at time zone 'UTC')::date, model, version, count(*), sum(rows), sum(compute_us) from fresh group by 1, 2, 3, 4;
  return null;
end $$""",
    """
create trigger usage_follows after insert on predictions
  referencing new table as fresh for each statement execute function count_usage()""",
)

OF_TENANTS = (
    "tenant_names", "token_denials", "documents", "usage_deltas", "usage_days", "service_days", "tombstones", "captured_inputs",
    "audit_heads", "audit_people",
)  # fmt: skip
WITH_REFERENCE = (
    "tenant_names", "token_denials", "documents", "usage_days", "service_days", "tombstones", "audit_heads", "audit_people",
)  # fmt: skip  # the log and what follows it outlive what they name

GRANTS = """
grant select, insert, delete on tenant_names, token_denials, documents, platform_documents to turnout_runtime;
grant select, delete on usage_deltas to turnout_runtime;
grant select, insert, update on usage_days, service_days, audit_heads, audit_people to turnout_runtime;
grant select, insert on tombstones to turnout_runtime;
grant select on captured_inputs to turnout_runtime;
grant insert on usage_deltas, captured_inputs to turnout_log;
grant delete on exposures, outcomes to turnout_runtime;
grant select (tenant_id, unit_hash, at) on tombstones to turnout_log;
grant select (tenant_id, at, swept_at) on tombstones to turnout_sync;
grant select (tenant_id, issuer, external_id) on tenant_names to turnout_sync;
grant select (tenant_id, id, jti, subject, issued_before, expires_at) on token_denials to turnout_sync;
grant select (tenant_id, id, body) on documents to turnout_sync;
grant select (id, body) on platform_documents to turnout_sync;
grant select (tenant_id) on usage_deltas to turnout_sync
"""


def upgrade() -> None:
    _run(TABLES)
    for table in OF_TENANTS:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"alter table {table} force row level security")
        op.execute(
            f"create policy tenant_isolation on {table} using (tenant_id = (select app_tenant()))"
            " with check (tenant_id = (select app_tenant()))"
        )
    for table in WITH_REFERENCE:
        op.execute(f"alter table {table} add constraint fk_{table}_tenants foreign key (tenant_id) references tenants (tenant_id)")
    for table in ("usage_deltas", "captured_inputs"):
        op.execute(f"create policy log_append on {table} for insert to turnout_log with check (true)")
    op.execute("create policy log_heeds on tombstones for select to turnout_log using (true)")
    for table in ("tenants", "tombstones"):
        op.execute(f"create policy owner_tends on {table} for select to current_user using (true)")
    for table in ("tenant_names", "token_denials", "documents", "usage_deltas", "tombstones"):
        op.execute(f"create policy sync_reads on {table} for select to turnout_sync using (true)")
    for statement in TRIGGER:
        op.execute(statement)
    _run(GRANTS)


def downgrade() -> None:
    op.execute("drop policy owner_tends on tenants")
    op.execute("revoke delete on exposures, outcomes from turnout_runtime")
    op.execute("drop trigger usage_follows on predictions")
    op.execute("drop function count_usage()")
    op.execute("alter table model_versions drop column origin")
    op.execute("alter table audit_entries drop column sequence, drop column seal")
    for table in ("platform_documents", *reversed(OF_TENANTS)):
        op.execute(f"drop table {table}")


def _run(statements: str) -> None:
    """The driver takes one statement at a time."""
    for statement in statements.split(";"):
        if statement.strip():
            op.execute(statement)
