"""Whether time tells a tenant what another one has: calls about another tenant's things and about things that are nowhere, by turns.

    python -m tools.bench_isolation [--calls 1000]

For each kind of call the medians of both and how far they are apart. Turns change places each time, so that a drifting machine drifts
for both, and the names have one length.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from tools import bench_promotion, bench_scale
from tools.bench import service as bench

THEIRS, NOWHERE = "tumour", "absent"
DIGEST = "f" * 64
CALLS = {
    "model": '{ model(name: "NAME") { name description } }',
    "version": '{ model(name: "NAME") { version(number: 1) { number status } } }',
    "predict": '{ predict(model: "NAME", features: [1, 2]) { id } }',
    "predict by version": '{ predict(model: "NAME", features: [1, 2], version: 1) { id } }',
    "blockers": '{ promotionBlockers(model: "NAME", version: 1) { code } }',
    "experiment": '{ experiment(key: "NAME") { key } }',
    "promote": 'mutation { promote(model: "NAME", version: 1) { revision } }',
    "register their artifact": """mutation {
        registerModelVersion(input: {model: "mine", task: CLASSIFICATION, artifactDigest: "NAME"}) { number } }""",
}


async def medians(port: int, requests: tuple[bytes, bytes], calls: int) -> list[float]:
    """Microseconds of the one and the other, over one connection each."""
    times: tuple[list[float], list[float]] = ([], [])
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in requests]
    for turn in range(calls + 20):
        for which in (0, 1) if turn % 2 else (1, 0):
            reader, writer = streams[which]
            began = time.perf_counter()
            writer.write(requests[which])
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n", 1)[0]))
            if turn >= 20:  # everything has been done once by then
                times[which].append(1e6 * (time.perf_counter() - began))
            assert b"NOT_FOUND" in body, body
    for _, writer in streams:
        writer.close()
    return [statistics.median(each) for each in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as folder:
        Path(folder).chmod(0o711)
        home = Path(folder) / "home"
        service, port, _ = bench_scale.start(home)
        try:
            for tenant in (bench.TENANT, "bench-stranger"):
                bench.make_tenant(home, port, tenant)
            bench.make_model(home)
            owner, stranger = (
                bench.run(bench.turnout(home, "token", "--subject", "bench", "--tenant", tenant, "--role", "ADMIN"))
                for tenant in (bench.TENANT, "bench-stranger")
            )
            asyncio.run(bench_promotion.ask(port, owner, bench_promotion.CREATE, input=theirs_experiment()))
            asked = '{ model(name: "tumour") { version(number: 1) { artifactDigest } } }'
            digest = asyncio.run(bench_promotion.ask(port, owner, asked))["model"]["version"]["artifactDigest"]
            for title, document in CALLS.items():
                names = (digest, DIGEST) if "artifact" in title else (THEIRS, NOWHERE)
                bodies = [json.dumps({"query": document.replace("NAME", name)}).encode() for name in names]
                one, other = (bench.request_bytes("/graphql", body, stranger) for body in bodies)
                theirs, nowhere = asyncio.run(medians(port, (one, other), given.calls))
                apart = 100 * abs(theirs - nowhere) / min(theirs, nowhere)
                print(f"{title:24} theirs {theirs:7.0f} µs   nowhere {nowhere:7.0f} µs   {apart:4.1f} % apart", flush=True)
        finally:
            bench_scale.stop(service)


def theirs_experiment() -> dict[str, object]:
    """An experiment whose key is the model's name."""
    arms = [{"name": "control", "version": 1, "control": True}, {"name": "treatment", "version": 1}]
    return {**bench_promotion.EXPERIMENT, "key": THEIRS, "variants": arms}


if __name__ == "__main__":
    main()
