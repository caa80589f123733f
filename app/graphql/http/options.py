"""How the endpoint is set."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.graphql.limits import Limits

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """Units in the names; `app/main.py` fills it from the settings."""

    development: bool = False  # everybody may introspect, and errors suggest names
    max_body_bytes: int = 8 * MIB
    max_body_bytes_under_way: int = 256 * MIB  # of large bodies, in one process
    request_timeout_s: float = 10.0
    max_in_flight: int = 512  # requests under way in one process
    grace_s: float = 0.1  # so that services tell the deadline field by field before the whole request is cut
    unseen_document_cost: int = 4  # tokens, beside the one that every request costs
    cors_origins: tuple[str, ...] = ()
    plans: bool = True  # documents that can be planned run without graphql-core's executor, with the same answers
    limits: Limits = field(default_factory=Limits)
    document_share_chars: int = 64 * 1024  # of one tenant
    document_total_chars: int = 512 * 1024
