"""The operators' public documents about tenants, and what commands do with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.cli.client import Client

_TENANT = """id name status createdAt
  limits { requestsPerSecond burst rowsPerDay maxModels maxArtifactBytes maxStoredBytes concurrency }
  settings { durability captureInputs retentionDays outcomeWindowDays holdoutPercent }
  names { issuer externalId }"""
CREATE = f"""mutation CreateTenant($input: CreateTenantInput!) {{ createTenant(input: $input) {{ {_TENANT} }} }}"""
SHOW = f"""query Tenant($id: String!) {{ tenant(id: $id) {{ {_TENANT} }} }}"""
LIST = f"""query Tenants($after: String) {{
  tenants(first: 100, after: $after) {{ edges {{ node {{ {_TENANT} }} }} pageInfo {{ endCursor hasNextPage }} }}
}}"""
LIMITS = f"""mutation Limits($id: String!, $limits: TenantLimitsInput!) {{
  updateTenantLimits(tenant: $id, limits: $limits) {{ {_TENANT} }}
}}"""
SETTINGS = f"""mutation Settings($id: String!, $settings: TenantSettingsInput!) {{
  updateTenantSettings(tenant: $id, settings: $settings) {{ {_TENANT} }}
}}"""
SUSPEND = f"""mutation Suspend($id: String!, $reason: String!) {{ suspendTenant(tenant: $id, reason: $reason) {{ {_TENANT} }} }}"""
RESUME = f"""mutation Resume($id: String!, $reason: String) {{ resumeTenant(tenant: $id, reason: $reason) {{ {_TENANT} }} }}"""
MAP = f"""mutation Map($id: String!, $issuer: String!, $externalId: String!) {{
  mapTenantName(tenant: $id, issuer: $issuer, externalId: $externalId) {{ {_TENANT} }}
}}"""
UNMAP = f"""mutation Unmap($id: String!, $issuer: String!, $externalId: String!) {{
  unmapTenantName(tenant: $id, issuer: $issuer, externalId: $externalId) {{ {_TENANT} }}
}}"""
REVOKE = """mutation Revoke($id: String, $subject: String, $jti: String, $reason: String!) {
  revokeTokens(tenant: $id, subject: $subject, jti: $jti, reason: $reason)
}"""
ERASE = """mutation Erase($id: String!, $confirm: String!, $reason: String!) {
  eraseTenant(tenant: $id, confirm: $confirm, reason: $reason) { id at rows }
}"""


def create(client: Client, id_: str, name: str) -> dict[str, Any]:
    """The new tenant."""
    return dict(client.query(CREATE, input={"id": id_, "name": name})["createTenant"])


def show(client: Client, id_: str) -> dict[str, Any]:
    return dict(client.query(SHOW, id=id_)["tenant"])


def listed(client: Client) -> Iterator[dict[str, Any]]:
    """Every tenant but erased ones, newest first."""
    after = None
    while True:
        page = client.query(LIST, after=after)["tenants"]
        for edge in page["edges"]:
            yield dict(edge["node"])
        if not page["pageInfo"]["hasNextPage"]:
            return
        after = page["pageInfo"]["endCursor"]


def limits(client: Client, id_: str, given: dict[str, Any]) -> dict[str, Any]:
    """The tenant with these limits; those that are not given stay."""
    return dict(client.query(LIMITS, id=id_, limits=given)["updateTenantLimits"])


def settings(client: Client, id_: str, given: dict[str, Any]) -> dict[str, Any]:
    """The tenant with these settings; those that are not given stay."""
    return dict(client.query(SETTINGS, id=id_, settings=given)["updateTenantSettings"])


def suspend(client: Client, id_: str, reason: str) -> dict[str, Any]:
    return dict(client.query(SUSPEND, id=id_, reason=reason)["suspendTenant"])


def resume(client: Client, id_: str, reason: str | None) -> dict[str, Any]:
    return dict(client.query(RESUME, id=id_, reason=reason)["resumeTenant"])


def map_name(client: Client, id_: str, issuer: str, external_id: str) -> dict[str, Any]:
    return dict(client.query(MAP, id=id_, issuer=issuer, externalId=external_id)["mapTenantName"])


def unmap_name(client: Client, id_: str, issuer: str, external_id: str) -> dict[str, Any]:
    return dict(client.query(UNMAP, id=id_, issuer=issuer, externalId=external_id)["unmapTenantName"])


def revoke(client: Client, id_: str | None, subject: str | None, jti: str | None, reason: str) -> bool:
    """`id_`: None for an ADMIN's own tenant."""
    return bool(client.query(REVOKE, id=id_, subject=subject, jti=jti, reason=reason)["revokeTokens"])


def erase(client: Client, id_: str, confirm: str, reason: str) -> dict[str, Any]:
    """When it was erased, and how many rows are gone by now."""
    return dict(client.query(ERASE, id=id_, confirm=confirm, reason=reason)["eraseTenant"])
