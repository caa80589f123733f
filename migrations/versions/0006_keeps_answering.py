"""What fell back counts in its arm; serving reads what an alias pointed at before.

Revision: 0006
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS = """
alter table exposure_queue add column fell_back boolean not null default false;
alter table exposures add column fallbacks bigint not null default 0;
alter table exposure_tallies add column fell_back bigint not null default 0
"""

# A fallback's answer is an exposure of the arm that was to answer; its score is another version's, and no covariate.
QUEUE = """
create or replace function queue_exposures() returns trigger language plpgsql as $$
begin
  insert into public.exposure_queue (tenant_id, id, at, experiment, variant, version, unit_hash, propensity, score, fell_back)
  select tenant_id, id, at, experiment, variant, version, unit_hash, propensity,
    case when reason = 'EXPERIMENT' then score end, reason = 'FALLBACK' from fresh
  where experiment is not null and variant is not null and unit_hash is not null and reason in ('EXPERIMENT', 'FALLBACK');
  return null;
end $$"""
QUEUE_BEFORE = """
create or replace function queue_exposures() returns trigger language plpgsql as $$
begin
  insert into public.exposure_queue (tenant_id, id, at, experiment, variant, version, unit_hash, propensity, score)
  select tenant_id, id, at, experiment, variant, version, unit_hash, propensity, score from fresh
  where experiment is not null and variant is not null and unit_hash is not null and reason = 'EXPERIMENT';
  return null;
end $$"""
_PROMOTIONS = "(tenant_id, model_id, alias, revision, number, parent_revision) on promotions"


def upgrade() -> None:
    for statement in COLUMNS.split(";"):
        op.execute(statement)
    op.execute(QUEUE)
    op.execute("create policy sync_reads on promotions for select to turnout_sync using (true)")
    op.execute(f"grant select {_PROMOTIONS} to turnout_sync")


def downgrade() -> None:
    op.execute(f"revoke select {_PROMOTIONS} from turnout_sync")  # noqa: S608  constants
    op.execute("drop policy sync_reads on promotions")
    op.execute(QUEUE_BEFORE)
    for table, column in (("exposure_tallies", "fell_back"), ("exposures", "fallbacks"), ("exposure_queue", "fell_back")):
        op.execute(f"alter table {table} drop column {column}")
