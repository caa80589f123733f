"""Strict JSON, bounded before and after it is read. It knows little else: the process that reads large bodies has it, too."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from app.errors import BadRequest, InvalidInput
from app.graphql.http.key_count import count, count_keys
from app.kernel.packed import LooseRows, many_in

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_NESTING = 100  # of arrays and objects; what we answer and store must go through JSON again, which takes 254
MAX_LIST = 20_000  # twice the rows of the largest batch, whose own refusal says more
MAX_INNER = 100_000  # in all the lists of a list's objects: categories of columns
MAX_CONTAINERS = 100_000  # arrays and objects in one request: the largest batch has a tenth of it
MAX_KEYS = 20_000  # in one object: twice the columns of the widest model
MAX_OPENINGS = 400_000  # of them, and in texts: counted before parsing, whose cost grows faster than their number
_FEW = MAX_KEYS * 5  # bytes: a key has two quotes, a colon, a digit, a comma; so many bytes have neither too many keys nor openings
_CONTAINERS = frozenset({list, dict})
_NO_LISTS = frozenset({str, float, int, bool, type(None), dict})


def read_object(body: bytes, known: Callable[[dict[str, Any]], None] | None = None, openings: int | None = None) -> dict[str, Any]:
    """The object that a request's body is; raises BadRequest. `known` may take out, before the rest is looked at, what does not nest.
    `openings`: its brackets and braces, where it is known that neither they nor its keys are too many.

    Of a name that stands twice in one object the last value counts, as RFC 8259 lets it; nothing before us reads the body, so no two
    readers can disagree. NaN, infinities, numbers beyond a double, lone surrogates, a byte order mark and what is no UTF-8 are refused.
    """
    if openings is None:
        openings = _openings(body, "The body")
    data = _json(body, "The body")
    if not isinstance(data, dict):
        if isinstance(data, list):
            raise BadRequest("The body is a JSON array: batches of operations are not served. Send one operation, with aliases if need be.")
        raise BadRequest("The body must be a JSON object with the document in `query`.")
    if known is not None:
        known(data)
    if openings > MAX_NESTING:
        _check_nesting(data)
    return data


def read_value(text: str, what: str) -> Any:
    """A JSON text inside a query string, None where it is empty; raises BadRequest. `what`: its name."""
    encoded = text.encode()
    openings = _openings(encoded, what)
    value = _json(encoded, what) if text else None
    if openings > MAX_NESTING:
        _check_nesting(value)
    return value


def check_lists(variables: dict[str, Any]) -> None:
    """Raises InvalidInput for lists that no argument takes: what they hold is coerced to its type one by one, on the event loop."""
    for name, value in variables.items():
        if type(value) is dict:
            for held in value.values():
                if type(held) not in _NO_LISTS:
                    _check_list(name, held, inside=True)
        elif type(value) not in _NO_LISTS:
            _check_list(name, value, inside=False)


def _check_list(name: str, held: Any, *, inside: bool) -> None:
    """`inside`: an object, which may be an input object with more of them in a list."""
    many = many_in(held)
    if many is not None and many.count > MAX_LIST:
        raise _too_long(name, many.count, MAX_LIST)
    each = many.rows if isinstance(many, LooseRows) else held
    if isinstance(each, list) and len(each) > MAX_LIST:
        raise _too_long(name, len(each), MAX_LIST)
    if isinstance(each, list) and inside:  # columns with their categories
        inner = sum(len(v) for item in each if isinstance(item, dict) for v in item.values() if isinstance(v, list))
        if inner > MAX_INNER:
            raise _too_long(name, inner, MAX_INNER)


def _too_long(name: str, size: int, most: int) -> InvalidInput:
    return InvalidInput(f"Variable '${name[:80]}' holds lists of {size:,}; at most {most:,} are taken.")


def _json(text: bytes, what: str) -> Any:
    """The text's value; raises BadRequest."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if not _is_utf8(text):
            raise BadRequest(f"{what} is not UTF-8, which JSON must be in.") from None
        raise BadRequest(f"{what} is not JSON: {error.msg} (line {error.lineno}, column {error.colno}).") from None


def _openings(text: bytes, what: str) -> int:
    """The text's brackets and braces; raises BadRequest where they, or the keys of an object, are too many."""
    openings = count(text, b"[") + count(text, b"{")
    if openings > MAX_OPENINGS:
        raise BadRequest(f"{what} has more than {MAX_OPENINGS:,} opening brackets and braces.")
    if len(text) > _FEW and count(text, b":") > MAX_KEYS and (keys := count_keys(text).largest) > MAX_KEYS:
        raise BadRequest(f"{what} has an object of {keys:,} keys; at most {MAX_KEYS:,} are taken.")
    return openings


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_nesting(data: Any) -> None:
    """Raises BadRequest where arrays and objects nest too deeply. No recursion, and flat lists of numbers are passed over in C."""
    level: list[Any] = [data]
    for _ in range(MAX_NESTING):
        inner: list[Any] = []
        for container in level:
            values = container.values() if isinstance(container, dict) else container
            if not _CONTAINERS.isdisjoint(map(type, values)):
                found = (value for value in values if type(value) in _CONTAINERS)
                inner.extend(islice(found, MAX_CONTAINERS + 1 - len(inner)))
                if len(inner) > MAX_CONTAINERS:
                    raise BadRequest(f"The request holds more than {MAX_CONTAINERS:,} arrays and objects.")
        if not inner:
            return
        level = inner
    raise BadRequest(f"The request nests arrays and objects more than {MAX_NESTING} deep.")
