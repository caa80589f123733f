"""Replicas that are long gone may be forgotten, and what they acknowledged with them.

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


def downgrade() -> None:
    op.execute("revoke delete on replicas from turnout_runtime")
    op.execute(_DROP)
    op.execute(_ADD)
