"""Beside every load: one tenant asks for another's model, and for one that nobody has. It must never be able to tell which is which."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tools.chaos.link import Link, post

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

THEIRS, NOBODYS = "secret", "nobody"  # names of one length
_EVERY_S = 0.2
_LEAST_TO_COMPARE = 10


@dataclass(frozen=True, slots=True)
class Crossing:
    """One such question: the code, the text without the name, whether anything of the other tenant's was given, seconds."""

    name: str
    code: str
    text: str
    given: bool
    took_s: float


async def probe(ports: Sequence[int], token: str, found: list[Crossing], stopped: Callable[[], bool]) -> None:
    """Asks both by turns until `stopped`; what was broken or refused for other reasons tells nothing and is left out."""
    link = Link(ports)
    for name in itertools.cycle((THEIRS, NOBODYS)):
        if stopped():
            break
        body = json.dumps({"query": f'{{ predict(model: "{name}", features: [0.1, 0.2, 0.3]) {{ id }} }}'}).encode()
        try:
            await link.open()
            began = time.monotonic()
            _, raw = await asyncio.wait_for(link.exchange(post("/graphql", body, token)), 10)
            crossing = read(name, json.loads(raw), time.monotonic() - began)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError, IndexError):
            link.close()
        else:
            if crossing.given or crossing.code == "NOT_FOUND":
                found.append(crossing)
        await asyncio.sleep(_EVERY_S)
    link.close()


def read(name: str, answer: dict[str, Any], took_s: float) -> Crossing:
    """What an answer said."""
    given = bool((answer.get("data") or {}).get("predict"))
    error = (answer.get("errors") or [{"message": "", "extensions": {"code": ""}}])[0]
    return Crossing(name, str(error["extensions"]["code"]), str(error["message"]).replace(name, "?"), given, took_s)


def judged(found: Sequence[Crossing]) -> tuple[bool, float]:
    """Whether no answer told the two names apart; and how many times as long the slower one took (medians; 1 of too few)."""
    texts = {crossing.text for crossing in found}
    times = [[each.took_s for each in found if each.name == name] for name in (THEIRS, NOBODYS)]
    apart = 1.0
    if min(map(len, times)) >= _LEAST_TO_COMPARE:
        middle = sorted(map(statistics.median, times))
        apart = middle[1] / middle[0]
    return len(texts) <= 1 and not any(crossing.given for crossing in found), apart
