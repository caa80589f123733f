"""The ratios of the first aims, by turns: our service, the floor and the best model server run at the same time, and are asked one
after the other, a second each, in rounds. Of a machine that is faster in one minute than in the next every ratio of a round is as true
as that of another, and the median of the rounds is what is told.
"""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tools.bench import measuring, models, servers
from tools.bench.figures import ECHO, GATHERING, TURNOUT
from tools.bench.load import NoFiguresError
from tools.bench.measuring import say
from tools.bench.turnout import Turnout

if TYPE_CHECKING:
    from tools.bench.figures import Results
    from tools.bench.load import Load, Target
    from tools.bench.measuring import Bench

ROUNDS, TURN_S = 9, 1.0


def measure(bench: Bench, results: Results) -> None:
    """Adds `by_turns` to the notes: what the ratios were in each round. Nothing where there is no other server to be had."""
    best = results.best_model_server(32)
    names = [ECHO, *({best.server, GATHERING} if best else ())]
    say(f"by turns: Turnout, {', '.join(names)}")
    try:
        with contextlib.ExitStack() as running:
            targets = {TURNOUT: _ours(running, bench)}
            for server in servers.OTHERS:
                if server.name in names and server.name not in results.missing:
                    observed, place = running.enter_context(measuring.started(server, bench, models.BOOSTED))
                    observed.pin()
                    targets[server.name] = measuring.target_of(server, place, models.BOOSTED, 1)
            for name, target in targets.items():
                _good(name, bench.loader.checked(target, 32, measuring.CHECK_S))
            rounds = [_round(bench, targets) for _ in range(ROUNDS)]
    except NoFiguresError as error:
        results.missing["ratios by turns"] = str(error)
        return
    results.notes["by_turns"] = noted(rounds, best.server if best else "")
    say(f"  {results.notes['by_turns']}")


def _ours(running: contextlib.ExitStack, bench: Bench) -> Target:
    turnout = Turnout(bench.folder / "home", bench.cores)
    running.callback(turnout.stop)
    return turnout.one(models.BOOSTED)


@dataclass(frozen=True)
class Round:
    """What was seen in one round, by server: by 32 connections of each, and by one of ours and the floor."""

    many: dict[str, Load]
    alone: dict[str, Load]


def _round(bench: Bench, targets: dict[str, Target]) -> Round:
    seen = Round({}, {})
    for name, target in targets.items():
        seen.many[name] = _good(name, bench.loader.run(target, 32, TURN_S))
        if name in {TURNOUT, ECHO}:
            seen.alone[name] = _good(name, bench.loader.run(target, 1, TURN_S))
    return seen


def _good(name: str, load: Load) -> Load:
    """Itself; raises NoFiguresError where not every answer was one."""
    if load.bad or load.refused:
        raise NoFiguresError(f"{name}: {load.bad} bad, {load.refused} refused: {load.sample}")
    return load


def noted(rounds: list[Round], best: str) -> dict[str, Any]:
    """The ratios of each round, by what they are to: `best`, GATHERING, the echo; and that of the medians at one connection."""
    ratios = {name: [each.many[TURNOUT].per_second / each.many[name].per_second for each in rounds] for name in rounds[0].many}
    del ratios[TURNOUT]
    p50 = [each.alone[TURNOUT].p50_ms / each.alone[ECHO].p50_ms for each in rounds]
    return {"rounds": len(rounds), "best": best, "p50": _told(p50), "per_second": {name: _told(each) for name, each in ratios.items()}}


def _told(each: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(each), 3), "least": round(min(each), 3), "most": round(max(each), 3)}
