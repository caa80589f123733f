"""Replicas that are long gone may be forgotten, and what they acknowledged with them; the sync role finds uploads that nobody used.

Revision: 0005
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_DROP = "alter table replica_acks drop constraint fk_replica_acks_replicas"
_ADD = "alter table replica_acks add constraint fk_replica_acks_replicas foreign key (replica_id) references replicas (replica_id)"


def upgrade() -> None:
    op.execute(_DROP)
    op.execute(f"{_ADD} on delete cascade")
    op.execute("grant delete on replicas to turnout_runtime")
    op.execute("create policy sync_reads on artifacts for select to turnout_sync using (true)")
    op.execute("grant select (tenant_id, digest, created_at, removed_at) on artifacts to turnout_sync")


def downgrade() -> None:
    op.execute("revoke select (tenant_id, digest, created_at, removed_at) on artifacts from turnout_sync")
    op.execute("drop policy sync_reads on artifacts")
    op.execute("revoke delete on replicas from turnout_runtime")
    op.execute(_DROP)
    op.execute(_ADD)
