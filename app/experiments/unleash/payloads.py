"""What variants of a flag server mean: their payloads read, and written anew as places. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from app.errors import InvalidInput
from app.experiments.types import Variant
from app.experiments.unleash.types import Place, Target
from app.kernel.names import check_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from app.experiments.flags.document import Choice, Flag

LARGEST_VERSION = 2**31 - 1
_RIGHT = 'it must be like {"version": 3} or {"alias": "candidate"}, with "control": true for the control'


def target_of(choice: Choice) -> tuple[Target, str | None]:
    """What the choice asks for, and what is wrong with it, None where nothing is."""
    try:
        check_name("variant", choice.name)
    except InvalidInput as error:
        return Target(choice.name), error.message
    try:
        data = orjson.loads(choice.payload or "")
    except orjson.JSONDecodeError:
        return Target(choice.name), f"has no payload of JSON: {_RIGHT}."
    if not isinstance(data, dict):
        return Target(choice.name), f"has a payload that is no JSON object: {_RIGHT}."
    version, alias, control = data.get("version"), data.get("alias"), data.get("control", False)
    if (version is None) == (alias is None) or not isinstance(control, bool):
        return Target(choice.name), f"has a payload that does not name exactly one of version and alias: {_RIGHT}."
    if version is not None:
        if type(version) is not int or not 1 <= version <= LARGEST_VERSION:
            return Target(choice.name), f"has a payload whose version is {str(version)[:20]!r}: {_RIGHT}."
        return Target(choice.name, version=version, control=control), None
    if not isinstance(alias, str):
        return Target(choice.name), f"has a payload whose alias is no text: {_RIGHT}."
    try:
        return Target(choice.name, alias=check_name("alias", alias), control=control), None
    except InvalidInput as error:
        return Target(choice.name), error.message


def places_of(flag: Flag) -> Iterator[tuple[Place, Choice]]:
    """Each choice of the flag, with its place."""
    for number, strategy in enumerate(flag.strategies):
        for index, choice in enumerate(strategy.choices):
            yield (number, index), choice
    for index, choice in enumerate(flag.choices):
        yield (-1, index), choice


def written(place: Place) -> str:
    """The place as a payload: the evaluator does not tell which strategy held, so each variant carries its own."""
    return f"[{place[0]},{place[1]}]"


def read(payload: str | None) -> Place | None:
    """The place that `written` wrote."""
    if payload is None:
        return None
    strategy, choice = orjson.loads(payload)
    return strategy, choice


def arms_of(flag: Flag, targets: Mapping[Place, Target]) -> tuple[tuple[Variant, ...], list[str]]:
    """The arms of the experiment, in the order in which the flag names them, and what makes its figures hard to read."""
    arms: dict[str, Variant] = {}
    problems: list[str] = []
    for place, choice in places_of(flag):
        target = targets[place]
        if not target.understood:
            continue
        arm = Variant(target.variant, target.version, target.alias, choice.weight, target.control, shadow=False)
        first = arms.setdefault(arm.name, arm)
        if (first.version, first.alias) != (arm.version, arm.alias):
            problems.append(f"uses the variant name {arm.name!r} for different versions: give each version a name of its own.")
        elif first.weight != arm.weight:
            problems.append(
                f"gives {arm.name!r} different weights in its strategies: whether each arm has the units it should cannot be told."
            )
    controls = [name for name, arm in arms.items() if arm.control]
    if len(controls) > 1:
        problems.append(f"marks {len(controls)} variants as control: the first, {controls[0]!r}, is taken.")
        for name in controls[1:]:
            it = arms[name]
            arms[name] = Variant(it.name, it.version, it.alias, it.weight, control=False, shadow=False)
    return tuple(arms.values()), problems
