"""Plans and graphql-core's executor answer alike: `python -m tools.equal_plans --documents 20000` generates so many requests and compares.

What is compared of each: status, headers and every byte of the answer, what the predictor was asked, what was counted and logged. The first
difference ends it, with the smallest request that shows it.
"""

from __future__ import annotations

import argparse
import sys
import time

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.support.prediction_documents import Request, requests
from tests.support.two_ways import TwoWays


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare plans with graphql-core's executor on generated documents.")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args()
    started = time.monotonic()
    ways = TwoWays()

    @settings(
        max_examples=asked.documents,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests())
    def compare(request: Request) -> None:
        planned, ordinary = ways.ask(request)
        assert planned == ordinary, f"with a plan:\n{planned}\nwithout:\n{ordinary}"
        if ways.asked % 1000 == 0:
            print(f"{ways.asked:,} compared, {time.monotonic() - started:.0f} s", flush=True)

    (compare if asked.seed is None else seed(asked.seed)(compare))()
    ran, planned = ways.planned.ran, ways.planned.ran - ways.planned.executed
    print(f"{ways.asked:,} requests, {ran:,} of them ran, {planned:,} by a plan; differences: 0")
    ways.close()
    if planned <= ways.asked / 2:
        sys.exit("fewer than half of them were planned")


if __name__ == "__main__":
    main()
