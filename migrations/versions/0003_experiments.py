"""Experiments: what is compared, who saw what, what happened afterwards, and the sums from which results are read.

Revision: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
create table experiments (
  tenant_id uuid not null,
  key text not null,
  model_id uuid not null,
  model text not null,
  status text not null,
  source text not null,
  hypothesis text,
  rollout double precision not null,
  variants jsonb not null,
  primary_metric text,
  secondary_metrics jsonb not null,
  guardrails jsonb not null,
  planned_units bigint,
  planned_looks integer not null,
  layer text,
  slots jsonb not null,
  targeting jsonb not null,
  overrides jsonb not null,
  created_at timestamptz not null default now(),
  created_by text not null,
  started_at timestamptz,
  ended_at timestamptz,
  revision integer not null default 1,
  constraint pk_experiments primary key (tenant_id, key),
  constraint fk_experiments_models foreign key (tenant_id, model_id) references models (tenant_id, model_id),
  constraint ck_experiments_status check (status in ('DRAFT', 'RUNNING', 'STOPPED', 'CONCLUDED')),
  constraint ck_experiments_source check (source in ('TURNOUT', 'UNLEASH')),
  constraint ck_experiments_rollout check (rollout >= 0 and rollout <= 100),
  constraint ck_experiments_planned_looks check (planned_looks >= 1)
);
create unique index uq_experiments_alone on experiments (tenant_id, model_id)
  where status = 'RUNNING' and source = 'TURNOUT' and layer is null;
create index ix_experiments_newest_first on experiments (tenant_id, created_at desc, key);

create table metrics (
  tenant_id uuid not null,
  name text not null,
  kind text not null,
  direction text not null,
  aggregation text not null,
  created_at timestamptz not null default now(),
  constraint pk_metrics primary key (tenant_id, name),
  constraint ck_metrics_kind check (kind in ('PROPORTION', 'MEAN')),
  constraint ck_metrics_direction check (direction in ('INCREASE', 'DECREASE')),
  constraint ck_metrics_aggregation check (aggregation in ('ANY', 'SUM', 'MEAN', 'LAST'))
);

create table exposure_queue (
  tenant_id uuid not null,
  id uuid not null,
  at timestamptz not null,
  experiment text not null,
  variant text not null,
  version integer not null,
  unit_hash text not null,
  propensity double precision,
  score double precision,
  constraint pk_exposure_queue primary key (tenant_id, id)
);

create table exposures (
  tenant_id uuid not null,
  experiment text not null,
  unit_hash text not null,
  variant text not null,
  version integer not null,
  first_at timestamptz not null,
  prediction_id uuid not null,
  requests bigint not null,
  propensity double precision,
  covariate double precision,
  constraint pk_exposures primary key (tenant_id, experiment, unit_hash)
);
create index ix_exposures_tenant_id_unit_hash on exposures (tenant_id, unit_hash);

create table exposure_tallies (
  tenant_id uuid not null,
  experiment text not null,
  variant text not null,
  units bigint not null default 0,
  requests bigint not null default 0,
  covered bigint not null default 0,
  cov_total numeric not null default 0,
  cov_squares numeric not null default 0,
  constraint pk_exposure_tallies primary key (tenant_id, experiment, variant)
);

create table outcomes (
  tenant_id uuid not null,
  id uuid not null,
  metric text not null,
  value double precision not null,
  occurred_at timestamptz not null,
  recorded_at timestamptz not null default now(),
  prediction_id uuid,
  row integer,
  unit_hash text,
  pending boolean not null,
  dedup_key text not null,
  constraint pk_outcomes primary key (tenant_id, id),
  constraint uq_outcomes_tenant_id_dedup_key unique (tenant_id, dedup_key)
);
create index ix_outcomes_pending on outcomes (tenant_id, prediction_id) where pending;
create index ix_outcomes_of_unit on outcomes (tenant_id, unit_hash, metric);
create index ix_outcomes_of_prediction on outcomes (tenant_id, prediction_id, metric);

create table stale_units (
  tenant_id uuid not null,
  unit_hash text not null,
  mark uuid not null default gen_random_uuid(),
  constraint pk_stale_units primary key (tenant_id, unit_hash, mark)
);

create table covariate_queue (
  tenant_id uuid not null,
  prediction_id uuid not null,
  experiment text not null,
  unit_hash text not null,
  constraint pk_covariate_queue primary key (tenant_id, prediction_id)
);

create table unit_values (
  tenant_id uuid not null,
  experiment text not null,
  metric text not null,
  unit_hash text not null,
  variant text not null,
  value double precision not null,
  covariate double precision,
  constraint pk_unit_values primary key (tenant_id, experiment, metric, unit_hash)
);

create table metric_sums (
  tenant_id uuid not null,
  experiment text not null,
  metric text not null,
  variant text not null,
  counted bigint not null default 0,
  total numeric not null default 0,
  squares numeric not null default 0,
  both_counted bigint not null default 0,
  both_total numeric not null default 0,
  both_squares numeric not null default 0,
  both_cov_total numeric not null default 0,
  both_cov_squares numeric not null default 0,
  cross_products numeric not null default 0,
  constraint pk_metric_sums primary key (tenant_id, experiment, metric, variant)
);

create table looks (
  tenant_id uuid not null,
  experiment text not null,
  look integer not null,
  at timestamptz not null default now(),
  units bigint not null,
  sums jsonb not null,
  constraint pk_looks primary key (tenant_id, experiment, look)
);

create table shadow_answers (
  tenant_id uuid not null,
  prediction_id uuid not null,
  variant text not null,
  row integer not null,
  kind text not null,
  at timestamptz not null,
  experiment text not null,
  unit_hash text,
  version integer not null,
  served_variant text,
  served_version integer not null,
  served_label text,
  served_score double precision,
  label text,
  score double precision,
  compute_us integer not null,
  constraint pk_shadow_answers primary key (tenant_id, prediction_id, kind, variant, row),
  constraint ck_shadow_answers_kind check (kind in ('SHADOW', 'COVARIATE'))
);
create index ix_shadow_answers_of_experiment on shadow_answers (tenant_id, experiment, kind, variant);
create index ix_shadow_answers_at on shadow_answers using brin (at);

create table flag_documents (
  source text not null,
  revision bigint not null,
  document jsonb not null,
  fetched_at timestamptz not null default now(),
  constraint pk_flag_documents primary key (source)
)
"""

# Only rows that were not there before are in `fresh`, so a record that the drain writes twice is counted once. As the inserting role.
TRIGGER = (
    """
create function queue_exposures() returns trigger language plpgsql as $$
begin
  insert into public.exposure_queue (tenant_id, id, at, experiment, variant, version, unit_hash, propensity, score)
  select tenant_id, id, at, experiment, variant, version, unit_hash, propensity, score from fresh
  where experiment is not null and variant is not null and unit_hash is not null and reason = 'EXPERIMENT';
  return null;
end $$""",
    """
create trigger exposures_follow after insert on predictions
  referencing new table as fresh for each statement execute function queue_exposures()""",
    """
create function queue_covariates() returns trigger language plpgsql as $$
begin
  insert into public.covariate_queue (tenant_id, prediction_id, experiment, unit_hash)
  select tenant_id, prediction_id, experiment, unit_hash from fresh
  where kind = 'COVARIATE' and row = 0 and unit_hash is not null and score is not null
  on conflict do nothing;
  return null;
end $$""",
    """
create trigger covariates_follow after insert on shadow_answers
  referencing new table as fresh for each statement execute function queue_covariates()""",
)

OF_TENANTS = (
    "experiments", "metrics", "exposure_queue", "exposures", "exposure_tallies", "outcomes", "stale_units", "unit_values",
    "metric_sums", "looks", "shadow_answers", "covariate_queue",
)  # fmt: skip
WITH_REFERENCE = (
    "experiments", "metrics", "exposures", "exposure_tallies", "outcomes", "stale_units", "unit_values", "metric_sums", "looks",
)  # fmt: skip  # the log and its queue outlive what they name, and a reference costs a look-up a row

GRANTS = """
grant select, insert, update on experiments, exposures, exposure_tallies, outcomes, metric_sums, flag_documents to turnout_runtime;
grant select, insert on metrics, looks to turnout_runtime;
grant select, delete on exposure_queue, covariate_queue to turnout_runtime;
grant select, insert, delete on stale_units to turnout_runtime;
grant select, insert, update, delete on unit_values to turnout_runtime;
grant select on shadow_answers to turnout_runtime;
grant insert on exposure_queue, covariate_queue, shadow_answers to turnout_log;
grant select (tenant_id, key, model_id, model, status, source, rollout, variants, layer, slots, targeting, overrides, guardrails, revision)
  on experiments to turnout_sync;
grant select (tenant_id) on exposure_queue, covariate_queue, stale_units to turnout_sync;
grant select (tenant_id, pending) on outcomes to turnout_sync;
grant select (source, revision, document, fetched_at) on flag_documents to turnout_sync
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
    for table in ("exposure_queue", "covariate_queue", "shadow_answers"):
        op.execute(f"create policy log_append on {table} for insert to turnout_log with check (true)")
    for table in ("experiments", "exposure_queue", "covariate_queue", "stale_units", "outcomes"):
        op.execute(f"create policy sync_reads on {table} for select to turnout_sync using (true)")
    for statement in TRIGGER:
        op.execute(statement)
    _run(GRANTS)


def downgrade() -> None:
    op.execute("drop trigger exposures_follow on predictions")
    op.execute("drop function queue_exposures()")
    for table in ("flag_documents", *reversed(OF_TENANTS)):
        op.execute(f"drop table {table}")
    op.execute("drop function queue_covariates()")


def _run(statements: str) -> None:
    """The driver takes one statement at a time."""
    for statement in statements.split(";"):
        if statement.strip():
            op.execute(statement)
