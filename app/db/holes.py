"""What a role could do to tenants' data beyond what it should, asked of PostgreSQL as that role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.db.privileges import GRANTS, DatabaseRole, Grant, Privilege

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import asyncpg

OLDEST_VERSION = 150000
# First minor of each major version without CVE-2024-10976 and CVE-2025-8713, both ways past row-level security.
_FIXED_IN = {15: 150014, 16: 160010, 17: 170006, 18: 180000}
_WORD = {DatabaseRole.OWNER: "owner", DatabaseRole.RUNTIME: "runtime", DatabaseRole.LOG: "log", DatabaseRole.SYNC: "sync"}
_NOTHING = Grant(frozenset())
_OURS = "n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'"

_ROLE = """
    select rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication,
           current_setting('server_version_num')::int as version, current_setting('server_version') as version_text
    from pg_roles where rolname = current_user"""

_MEMBERSHIPS = """
    select r.rolname, r.rolsuper or r.rolbypassrls as strong from pg_roles r
    where r.rolname <> current_user and pg_has_role(current_user, r.oid, 'member') order by 1"""

# Each relation of ours with what the role may do to it by table-wide grants, and to which columns by others.
_RELATIONS = f"""
    select case n.nspname when 'public' then '' else quote_ident(n.nspname) || '.' end || quote_ident(c.relname) as name,
           c.relkind::text as kind,
           pg_has_role(current_user, c.relowner, 'member') as owned,
           c.relrowsecurity as secured, c.relforcerowsecurity as forced,
           c.relispartition as partition,
           coalesce(c.reloptions::text ~ 'security_invoker=(true|on|1)', false) as invoker,
           exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped) as of_tenant,
           array(select p from unnest($1::text[]) p where has_table_privilege(c.oid, p)) as granted,
           array(select p || ' ' || a.attname from unnest($2::text[]) p, pg_attribute a
                 where has_any_column_privilege(c.oid, p) and not has_table_privilege(c.oid, p)
                   and a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and has_column_privilege(c.oid, a.attnum, p)) as columns
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and {_OURS}
    order by 1"""  # noqa: S608  constants of this module

# Policies that let rows of any tenant through, for whoever they are.
_POLICIES = f"""
    select c.relname as table, p.polname as name, p.polcmd::text as command,
           array(select case r when 0 then 'public' else pg_get_userbyid(r) end from unnest(p.polroles) r)::text[] as roles,
           p.polroles = array[c.relowner] as for_owner
    from pg_policy p join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace
    where {_OURS} and p.polpermissive
      and (coalesce(pg_get_expr(p.polqual, p.polrelid), $1) <> $1 or coalesce(pg_get_expr(p.polwithcheck, p.polrelid), $1) <> $1
           or (p.polqual is null and p.polwithcheck is null))
    order by 1, 2"""  # noqa: S608
_ISOLATION = "(tenant_id = ( SELECT app_tenant() AS app_tenant))"

_FUNCTIONS = f"""
    select f.oid::regprocedure::text as name, f.prosecdef as definer, pg_has_role(current_user, f.proowner, 'member') as owned
    from pg_proc f join pg_namespace n on n.oid = f.pronamespace
    where {_OURS} and ((f.prosecdef and has_function_privilege(f.oid, 'execute')) or pg_has_role(current_user, f.proowner, 'member'))
    order by 1"""  # noqa: S608

_CREATE_IN = f"""
    select 'schema ' || quote_ident(n.nspname) as place from pg_namespace n where {_OURS} and has_schema_privilege(n.oid, 'create')
    union all
    select 'database ' || quote_ident(d.datname) from pg_database d
    where d.datname = current_database() and has_database_privilege(d.oid, 'create')
    order by 1"""  # noqa: S608

_DEFAULTS = """
    select distinct case when a.grantee = 0 then 'public' else pg_get_userbyid(a.grantee) end as grantee,
           pg_get_userbyid(d.defaclrole) as maker
    from pg_default_acl d, aclexplode(d.defaclacl) a
    where d.defaclobjtype = 'r' and (a.grantee = 0 or (a.grantee <> d.defaclrole and pg_has_role(current_user, a.grantee, 'member')))
    order by 1, 2"""


async def find_holes(connection: asyncpg.Connection, role: DatabaseRole) -> list[str]:
    """What is wrong with `role`, as which `connection` is logged in, and with the tables that it sees."""
    me = await connection.fetchrow(_ROLE)
    if me["version"] < OLDEST_VERSION:
        return [f"The server is PostgreSQL {me['version_text']}; Turnout needs 15 or newer: upgrade it."]
    who = f"The {_WORD[role]} role {me['rolname']}"
    holes = list(_attribute_holes(me, role, who))
    if me["rolsuper"]:
        return holes  # may do everything, so all that follows would be true and say nothing
    memberships = await connection.fetch(_MEMBERSHIPS)
    holes += _membership_holes(memberships, me["rolname"], role, who)
    table_wide = [p.value for p in Privilege if p is not Privilege.MAINTAIN or me["version"] >= 170000]
    relations = await connection.fetch(_RELATIONS, table_wide, ["SELECT", "INSERT", "UPDATE", "REFERENCES"])
    holes += _security_holes(relations)
    holes += _policy_holes(await connection.fetch(_POLICIES, _ISOLATION))
    if role is DatabaseRole.OWNER:
        return holes
    for relation in relations:
        holes += _relation_holes(relation, GRANTS[role].get(relation["name"], _NOTHING), me["rolname"], who)
    holes += _missing(relations, GRANTS[role], who)
    holes += _function_holes(await connection.fetch(_FUNCTIONS), me["rolname"], who)
    for row in await connection.fetch(_CREATE_IN):
        cure = f"revoke create on {row['place']} from {me['rolname']}, public"
        holes.append(f"{who} may make things in the {row['place']}, and what it makes it owns: {cure}.")
    for row in await connection.fetch(_DEFAULTS):
        cure = f"alter default privileges for role {row['maker']} revoke all on tables from {row['grantee']}"
        holes.append(f"{who} gets privileges on every new table, and so on partitions past their parent's policies: {cure}.")
    return holes


async def find_warnings(connection: asyncpg.Connection) -> list[str]:
    """Known faults of the server's version."""
    version = int(await connection.fetchval("select current_setting('server_version_num')"))
    fixed = _FIXED_IN.get(version // 10000)
    if fixed is None or version >= fixed:
        return []
    warning = (
        f"PostgreSQL {version // 10000}.{version % 10000} has known ways past row-level security (CVE-2024-10976, CVE-2025-8713): "
        f"upgrade it to {fixed // 10000}.{fixed % 10000} or newer."
    )
    return [warning]


def _attribute_holes(me: asyncpg.Record, role: DatabaseRole, who: str) -> Iterator[str]:
    name = me["rolname"]
    if me["rolsuper"]:
        yield f"{who} is a superuser, whom row-level security does not bind: alter role {name} nosuperuser, or use another role."
    if me["rolbypassrls"]:
        yield f"{who} may bypass row-level security: alter role {name} nobypassrls."
    if role is not DatabaseRole.OWNER:
        if me["rolcreaterole"]:
            yield f"{who} may make and change roles: alter role {name} nocreaterole."
        if me["rolcreatedb"]:
            yield f"{who} may make databases: alter role {name} nocreatedb."
        if me["rolreplication"]:
            yield f"{who} may copy the whole server by replication: alter role {name} noreplication."


def _membership_holes(memberships: Sequence[asyncpg.Record], name: str, role: DatabaseRole, who: str) -> Iterator[str]:
    for row in memberships:
        if row["strong"]:
            yield f"{who} is a member of {row['rolname']}, whom row-level security does not bind: revoke {row['rolname']} from {name}."
        elif role not in {DatabaseRole.OWNER, row["rolname"]}:
            yield f"{who} is a member of {row['rolname']} and may do what that role may: revoke {row['rolname']} from {name}."


def _security_holes(relations: Sequence[asyncpg.Record]) -> Iterator[str]:
    """Tables of tenants, whoever asks. Partitions need no policy of their own: nobody is granted anything on them."""
    for row in relations:
        if row["kind"] in {"r", "p"} and row["of_tenant"] and not row["partition"]:
            alter = f"alter table {row['name']}"
            if not row["secured"]:
                yield f"Row-level security is off on the table {row['name']}: {alter} enable row level security."
            if not row["forced"]:
                yield f"Row-level security does not bind the owner of the table {row['name']}: {alter} force row level security."


def _policy_holes(policies: Sequence[asyncpg.Record]) -> Iterator[str]:
    for row in policies:
        table, roles = row["table"], list(row["roles"])
        known = (
            (row["name"] == "sync_reads" and row["command"] == "r" and roles == [DatabaseRole.SYNC] and table in GRANTS[DatabaseRole.SYNC])
            or (row["name"] == "log_append" and row["command"] == "a" and roles == [DatabaseRole.LOG] and table in GRANTS[DatabaseRole.LOG])
            or (row["name"] == "log_heeds" and row["command"] == "r" and roles == [DatabaseRole.LOG] and table == "tombstones")
            or (row["name"] == "owner_trims" and table == "outbox" and row["for_owner"])
            or (row["name"] == "owner_tends" and row["command"] == "r" and table in {"tenants", "tombstones"} and row["for_owner"])
        )
        if not known:
            cure = f"drop policy {row['name']} on {table}"
            yield f"The policy {row['name']} lets {', '.join(roles)} past the isolation of tenants on the table {table}: {cure}."


def _relation_holes(row: asyncpg.Record, wanted: Grant, name: str, who: str) -> Iterator[str]:
    table = row["name"]
    if row["owned"]:
        yield f"{who} owns {table} and may change it and its policies: alter table {table} owner to the owner role."
        return
    granted, columns = set(row["granted"]), [text.split(" ", 1) for text in row["columns"]]
    if row["kind"] == "v" and (granted or columns) and not row["invoker"]:
        yield (
            f"{who} may use the view {table}, which shows what its owner may see: alter view {table} set (security_invoker = true), "
            f"and revoke all on {table} from {name}, public."
        )
        return
    if row["kind"] == "m" and (granted or columns):
        yield f"{who} may use the materialized view {table}, on which no policy works: revoke all on {table} from {name}, public."
        return
    extra = granted - (set() if wanted.columns else set(wanted.privileges))
    if extra:
        listed = ", ".join(sorted(extra))
        what = f"the partition {table}, past the policies of its parent" if row["partition"] else f"the table {table}"
        yield f"{who} may {listed} on {what}: revoke {listed} on {table} from {name}, public."
    for privilege, column in columns:
        if privilege not in wanted.privileges or column not in wanted.columns:
            yield f"{who} may {privilege} the column {column} of {table}: revoke {privilege} ({column}) on {table} from {name}, public."


def _missing(relations: Sequence[asyncpg.Record], wanted: dict[str, Grant], who: str) -> Iterator[str]:
    """What the role needs and has not: it would fail later, in the middle of something."""
    by_name = {row["name"]: row for row in relations}
    for table, grant in wanted.items():
        row = by_name.get(table)
        if row is None:
            yield f"The table {table} is missing: run turnout migrate."
            continue
        columns = {text.split(" ", 1)[1] for text in row["columns"] if text.startswith("SELECT ")}
        lacking = sorted(set(grant.privileges) - set(row["granted"])) if not grant.columns else []
        for privilege in lacking:
            yield f"{who} may not {privilege} on {table}: grant {privilege} on {table} to it."
        if "SELECT" not in row["granted"] and (absent := sorted(grant.columns - columns)):
            listed = ", ".join(absent)
            yield f"{who} may not SELECT the columns {listed} of {table}: grant select ({listed}) on {table} to it."


def _function_holes(functions: Sequence[asyncpg.Record], name: str, who: str) -> Iterator[str]:
    for row in functions:
        if row["owned"]:
            yield f"{who} owns the function {row['name']} and may change it: alter function {row['name']} owner to the owner role."
        elif row["definer"]:
            cure = f"revoke execute on function {row['name']} from {name}, public"
            yield f"{who} may call {row['name']}, which runs with the rights of its owner (SECURITY DEFINER): {cure}."
