"""Many tenants, each with models that serve: rows written straight as the owner, as if each had uploaded, registered and promoted.

    python -m tools.seed_tenants --home HOME --like TENANT/MODEL --tenants 10000 --models 10

`TENANT/MODEL` is a model of a running service whose version 1 is READY. Each new tenant, seed-00000 and on, has a secret of its own and
seals of its own over the same bytes, so that serving finds nothing amiss. For figures and tests: nothing is announced one by one, and
processes learn of all of it at once, by one change that says no more than "read everything".
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from app.kernel.home import MASTER_KEY
from app.tenancy.keys import MasterKey, TenantKeys, new_secret

TABLES = ("tenants", "artifacts", "artifact_chunks", "compiled_models", "models", "model_versions", "promotions", "aliases")
PREFIX = "seed-"

TEMPLATE = """
    select t.tenant_id, m.model_id, v.artifact_digest, v.compiled_digest, a.size_bytes, v.compiled_size_bytes, a.upload_id, t.limits
    from tenants t join models m using (tenant_id) join model_versions v using (tenant_id, model_id)
    join artifacts a on a.tenant_id = t.tenant_id and a.digest = v.artifact_digest
    where t.id = $1 and m.name = $2 and v.number = 1 and v.status = 'READY'"""

SEEDS = """create temp table seeds (
    tenant_id uuid, id text, secret bytea, upload_id uuid, artifact_mac bytea, graph_mac bytea, n int) on commit drop"""

# $1: the template's tenant, $2: its model, $3: how many models.
COPIES = [
    """insert into tenants (tenant_id, id, name, limits, wrapped_secret, created_at)
       select s.tenant_id, s.id, s.id, t.limits, s.secret, now() - interval '1 second' * s.n
       from seeds s, tenants t where t.tenant_id = $1 and $2::uuid is not null and $3::int > 0""",
    """insert into artifacts (tenant_id, digest, size_bytes, upload_id, mac, created_by)
       select s.tenant_id, a.digest, a.size_bytes, s.upload_id, s.artifact_mac, 'seed'
       from seeds s, artifacts a join model_versions v on (a.tenant_id, a.digest) = (v.tenant_id, v.artifact_digest)
       where v.tenant_id = $1 and v.model_id = $2 and v.number = 1 and $3::int > 0""",
    """insert into artifact_chunks (tenant_id, upload_id, seq, data, created_at)
       select s.tenant_id, s.upload_id, c.seq, c.data, now()
       from seeds s, artifact_chunks c join artifacts a using (tenant_id, upload_id)
       join model_versions v on (a.tenant_id, a.digest) = (v.tenant_id, v.artifact_digest)
       where v.tenant_id = $1 and v.model_id = $2 and v.number = 1 and $3::int > 0""",
    """insert into compiled_models (tenant_id, digest, data, size_bytes, mac)
       select s.tenant_id, c.digest, c.data, c.size_bytes, s.graph_mac
       from seeds s, compiled_models c join model_versions v on (c.tenant_id, c.digest) = (v.tenant_id, v.compiled_digest)
       where v.tenant_id = $1 and v.model_id = $2 and v.number = 1 and $3::int > 0""",
    """insert into models (tenant_id, model_id, name, folded_name, task, next_number)
       select s.tenant_id, gen_random_uuid(), 'model-' || k, 'model' || k, m.task, 3
       from seeds s, models m, generate_series(1, $3::int) k where m.tenant_id = $1 and m.model_id = $2""",
    """insert into model_versions (tenant_id, model_id, number, status, artifact_digest, size_bytes, registration_hash, runtime, signature,
         classes, environment, proof, compiled_digest, compiled_size_bytes, created_by)
       select m.tenant_id, m.model_id, k, v.status, v.artifact_digest, v.size_bytes, v.registration_hash || k, v.runtime, v.signature,
         v.classes, v.environment, v.proof, v.compiled_digest, v.compiled_size_bytes, 'seed'
       from seeds s join models m using (tenant_id), generate_series(1, 2) k, model_versions v
       where v.tenant_id = $1 and v.model_id = $2 and v.number = 1 and $3::int > 0""",
    """insert into promotions (tenant_id, model_id, alias, revision, number, by)
       select m.tenant_id, m.model_id, 'production', 1, 1, 'seed' from seeds s join models m using (tenant_id)
       where $1::uuid is not null and $2::uuid is not null and $3::int > 0""",
    """insert into aliases (tenant_id, model_id, name, number, revision)
       select m.tenant_id, m.model_id, 'production', 1, 1 from seeds s join models m using (tenant_id)
       where $1::uuid is not null and $2::uuid is not null and $3::int > 0""",
]
# Two generations and one row of news: replicas see that the outbox does not tell everything, and read everything.
ANNOUNCE = """
    with raised as (update routing_generation set generation = generation + 2 returning generation)
    select pg_notify('turnout_routing', generation::text) from raised"""


async def seed(owner_url: str, master_key: MasterKey, like: str, tenants: int, models: int) -> float:
    """The seconds that it took to add them, beside those that are there."""
    began = time.perf_counter()
    connection = await asyncpg.connect(owner_url)
    try:
        async with connection.transaction():
            for table in TABLES:
                await connection.execute(f"alter table {table} no force row level security")
            template = await connection.fetchrow(TEMPLATE, *like.split("/"))
            if template is None:
                raise SystemExit(f"there is no READY version 1 of {like}")
            there = await connection.fetchval("select count(*) from tenants where id like $1", f"{PREFIX}%")
            await connection.execute(SEEDS)
            rows = [_seed(master_key, template, number) for number in range(there, there + tenants)]
            await connection.copy_records_to_table("seeds", records=rows)
            for statement in COPIES:
                await connection.execute(statement, template["tenant_id"], template["model_id"], models)
            await connection.execute(ANNOUNCE)
            for table in TABLES:
                await connection.execute(f"alter table {table} force row level security")
        for table in TABLES:
            await connection.execute(f"analyze {table}")
    finally:
        await connection.close()
    return time.perf_counter() - began


def _seed(master_key: MasterKey, template: asyncpg.Record, number: int) -> tuple[Any, ...]:
    tenant_id, secret = uuid4(), new_secret()
    keys = TenantKeys.derive(tenant_id, secret)
    artifact = keys.artifact_mac(template["artifact_digest"], template["size_bytes"])
    graph = None
    if template["compiled_digest"] is not None:
        graph = keys.artifact_mac(template["compiled_digest"], template["compiled_size_bytes"])
    return tenant_id, f"{PREFIX}{number:05}", master_key.wrap(tenant_id, secret), uuid4(), artifact, graph, number


def owner_url(home: Path) -> str:
    """Of the embedded server, which runs already."""
    server = EmbeddedPostgres(home, die_with_parent=False)
    if not server.join():
        raise SystemExit(f"no embedded PostgreSQL runs in {home}: start the service first")
    return server.url(DatabaseRole.OWNER)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--like", required=True, metavar="TENANT/MODEL")
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--models", type=int, default=10)
    given = parser.parse_args()
    home = given.home.absolute()
    took = asyncio.run(seed(owner_url(home), MasterKey.load(home / MASTER_KEY), given.like, given.tenants, given.models))
    print(f"{given.tenants:,} tenants with {given.models} models each in {took:.1f} s")


if __name__ == "__main__":
    main()
