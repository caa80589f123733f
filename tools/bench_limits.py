"""How near to its limit a tenant is held, and what that costs, where several processes and a Valkey server hold it together.

    python -m tools.bench_limits [--seconds 60] [--workers 4]

A tenant with 100 requests a second and a burst of 100 asks for four times as many, over connections to all processes: once with the
server there, once with it killed, started, frozen and woken meanwhile. Told are the accepted requests as a share of what the limit
allows in that time, the errors, which are all that is neither an answer nor RATE_LIMITED, and the slowest answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.valkey import own_valkey
from tools.bench import service as bench
from tools.bench_fairness import endless, paced

if TYPE_CHECKING:
    from tests.support.valkey import Valkey

PER_S, BURST, TIMES, CONNECTIONS = 100, 100, 4, 16
QUERY = "{ viewer { tenant } }"


async def troubled(valkey: Valkey, seconds: float) -> None:
    """In six equal parts: there, killed, there, frozen, there."""
    part = seconds / 6
    for what in (valkey.kill, valkey.start, valkey.freeze, valkey.thaw):
        await asyncio.sleep(part)
        await asyncio.to_thread(what)


async def measure(port: int, request: bytes, seconds: float, trouble: Valkey | None) -> str:
    meanwhile = None if trouble is None else asyncio.create_task(troubled(trouble, seconds))
    times, statuses = await paced(port, endless(request), CONNECTIONS, TIMES * PER_S, seconds)
    if meanwhile is not None:
        await meanwhile
    allowed, accepted = PER_S * seconds + BURST, statuses.pop(200, 0)
    refused = statuses.pop(429, 0)
    ordered = sorted(times)
    return (
        f"accepted {accepted:,} of {allowed:,.0f} allowed ({accepted / allowed:.1%}), refused {refused:,}, errors {statuses.total()}   "
        f"p50 {ordered[len(ordered) // 2]:.1f} p99 {ordered[int(len(ordered) * 0.99)]:.1f} max {ordered[-1]:.1f} ms"
    )


def prepare(home: Path, port: int) -> bytes:
    """A tenant with the limit; its request, whose document is known by then."""
    bench.make_tenant(home, port)
    token = bench.run(bench.turnout(home, "token", "--subject", "bench", "--tenant", bench.TENANT, "--role", "PREDICTOR"))
    request = bench.request_bytes("/graphql", json.dumps({"query": QUERY}).encode(), token)
    for _ in range(40):
        asyncio.run(bench.ask(port, request))
    bench.limit_tenant(home, port, bench.TENANT, {"requestsPerSecond": PER_S, "burst": BURST})
    return request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", default="4")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as name, own_valkey() as valkey:
        home = Path(name) / "home"
        home.parent.chmod(0o711)
        service, port = bench.start_service(home, "--workers", given.workers, settings=[f"TURNOUT_REDIS_URL={valkey.url}"])
        try:
            request = prepare(home, port)
            for what, trouble in (("Valkey there", None), ("Valkey in trouble", valkey)):
                time.sleep(BURST / PER_S + 1)  # the burst is full again
                told = asyncio.run(measure(port, request, given.seconds, trouble))
                print(f"{what:18} {told}   load {os.getloadavg()[0]:.1f}", flush=True)
        finally:
            service.send_signal(signal.SIGINT)
            service.wait(30)


if __name__ == "__main__":
    main()
