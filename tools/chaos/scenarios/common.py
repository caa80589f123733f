"""What many rows claim alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.chaos.crossing import judged
from tools.chaos.load import BUSY
from tools.chaos.rows import Claim

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tools.chaos.figures import Stretch
    from tools.chaos.history import Operation
    from tools.chaos.rows import Stage
    from tools.chaos.world import World

# A p99 of some hundred requests moves by so much on a machine with neighbours while nothing is broken.
NOISE_MS = 25.0
ANSWERED = 0.999
DRAINED_WITHIN_S = 30.0
MOST_APART = 2.0
# How long anything is waited for before it counts as never: what a row claims is the time that it took, which is `timed`.
PATIENCE_S = 120.0
_CROWDED = frozenset({BUSY, "RATE_LIMITED"})  # as a machine says that is too slow for the load


def clean(stage: Stage, world: World, operations: Iterable[Operation], within_s: float = 60.0, *, only_logged_of: str = "") -> list[Claim]:
    """Drained in time, and the checker's five zeros. `only_logged_of`: the model whose rows count, where the row asked others too."""
    took = world.drained(PATIENCE_S)
    verdict = world.verdict(operations, only_of=only_logged_of)
    if not verdict.clean:
        stage.say(verdict.examples())
    drained = within("drained", took, within_s)
    alike, apart = judged([crossing for found in world.crossings for crossing in found])
    words = Claim(alike, "another tenant's model answered, or in other words than none")
    clock = Claim(apart < MOST_APART, f"another tenant's model and none {apart:.1f}× apart in time", timed=True)
    return [drained, Claim(verdict.clean, f"checker {verdict}"), *(told for told in (words, clock) if not told.holds)]


def answered(part: Stretch, share: float = ANSWERED) -> Claim:
    """So many of the requests were answered. About time where all that is missing was refused because the machine was too slow."""
    others = "".join(f", {count} {code}" for code, count in sorted(part.codes.items()))
    crowded = sum(count for code, count in part.codes.items() if code in _CROWDED)
    told = f"{part.answered} of {part.asked} answered ({100 * part.success:.2f} %{others})"
    return Claim(part.success >= share, told, timed=part.answered > 0 and part.answered >= share * (part.asked - crowded))


def not_slower(before: Stretch, during: Stretch, factor: float) -> Claim:
    """The p99 is below `factor` times what it was, or not above it by more than noise."""
    most = max(factor * before.p99_ms, before.p99_ms + NOISE_MS)
    return Claim(during.p99_ms <= most, f"p99 {during.p99_ms:.0f} ms, before {before.p99_ms:.0f} ms", timed=True)


def within(what: str, took_s: float | None, most_s: float) -> Claim:
    """It came about, and in time."""
    if took_s is None:
        return Claim(holds=False, measured=f"{what}: never")
    return Claim(took_s <= most_s, f"{what} after {took_s:.1f} s", timed=True)
