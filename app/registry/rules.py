"""Pure decisions of the registry: what may be registered, what stands in the way of a promotion."""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING, Any

import orjson

from app.errors import InvalidInput
from app.kernel.names import check_name
from app.kernel.signature import Column, ColumnType, Signature, Task
from app.registry.types import FallbackKind, PromotionBlocker, VersionStatus

if TYPE_CHECKING:
    from app.registry.types import Fallback, Lineage, VersionRegistration

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SAMPLE_ROWS = range(5, 1001)
_MOST_COLUMNS = 10_000
_LONGEST_COLUMN_NAME = 256
_MOST_CLASSES = 1_000
_LONGEST_CLASS = 256
_MOST_CATEGORY_CHARACTERS = 1_000_000
_LARGEST_JSON_BYTES = 64 * 1024
_LONGEST_TEXT = 10_000
_LONGEST_LINEAGE = 1_000
_LARGEST_WHOLE = 2**53
_WIDER_TYPES = {(ColumnType.INTEGER, ColumnType.NUMBER)}  # what callers of the left send, the right takes


def check_registration(registration: VersionRegistration) -> None:
    """Returns where it may be registered; raises InvalidInput that names the field and what would be right."""
    check_name("model", registration.model)
    if not _DIGEST.fullmatch(registration.artifact_digest):
        raise InvalidInput("artifactDigest must be the 64 small hex digits that POST /artifacts answered with.")
    if registration.sample and len(registration.sample) not in _SAMPLE_ROWS:
        raise InvalidInput(f"sample has {len(registration.sample)} rows; it must have 5 to 1,000, or be left out.")
    if registration.columns is not None:
        check_columns(registration.columns)
    check_storable("sample", list(registration.sample))
    for name, value in (("metrics", registration.metrics), ("tags", registration.tags)):
        if value is not None and not isinstance(value, dict):
            raise InvalidInput(f"{name} must be a JSON object.")
        _check_size(name, value)
        check_storable(name, value)
    check_text("description", registration.description)
    if registration.lineage is not None:
        _check_lineage(registration.lineage)


def _check_lineage(lineage: Lineage) -> None:
    named = {"trainingData": lineage.training_data, "gitCommit": lineage.git_commit, "pipelineRun": lineage.pipeline_run}
    for name, text in named.items():
        if text is not None and not 1 <= len(text) <= _LONGEST_LINEAGE:
            raise InvalidInput(f"lineage.{name} has {len(text)} characters; it must have 1 to {_LONGEST_LINEAGE:,}, or be left out.")
        check_text(f"lineage.{name}", text)


def _check_size(name: str, value: Any) -> None:
    try:
        size = len(orjson.dumps(value))
    except TypeError:  # a number beyond 64 bits, written into the document: the next check names it
        return
    if size > _LARGEST_JSON_BYTES:
        raise InvalidInput(f"{name} is larger than 64 KiB.")


def check_text(name: str, text: str | None) -> None:
    """Returns where a free text may be stored; raises InvalidInput where it is too long or holds a NUL."""
    if text is not None and len(text) > _LONGEST_TEXT:
        raise InvalidInput(f"{name} has {len(text)} characters; at most {_LONGEST_TEXT:,} are kept.")
    if text is not None and "\0" in text:
        raise InvalidInput(f"{name} holds a NUL character, which cannot be stored.")


def check_storable(name: str, value: Any) -> None:
    """Returns where the JSON value can be stored and read again unchanged; raises InvalidInput for what cannot."""
    level = [value]
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += [*item, *item.values()]
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, str) and "\0" in item:
                raise InvalidInput(f"{name} holds a NUL character, which cannot be stored.")
            elif isinstance(item, int) and abs(item) > _LARGEST_WHOLE:
                raise InvalidInput(f"{name} holds a whole number beyond 2^53, which JSON does not carry exactly.")
            elif isinstance(item, float) and not math.isfinite(item):
                raise InvalidInput(f"{name} holds a number that is not finite.")
        level = inner


def check_columns(columns: tuple[Column, ...]) -> None:
    """Returns where the columns make a signature; raises InvalidInput."""
    if not 1 <= len(columns) <= _MOST_COLUMNS:
        raise InvalidInput(f"signature has {len(columns):,} columns; it must have 1 to {_MOST_COLUMNS:,}, or be left out.")
    seen: set[str] = set()
    for column in columns:
        where = f"signature column {column.name!r}"
        if not 1 <= len(column.name) <= _LONGEST_COLUMN_NAME or "\0" in column.name:
            raise InvalidInput(f"{where[:300]}: a name has 1 to {_LONGEST_COLUMN_NAME} characters and no NUL.")
        if column.name in seen:
            raise InvalidInput(f"{where} is there twice.")
        seen.add(column.name)
        ranged = column.minimum is not None or column.maximum is not None
        if ranged and column.type not in (ColumnType.NUMBER, ColumnType.INTEGER):
            raise InvalidInput(f"{where} is {column.type}: minimum and maximum are for NUMBER and INTEGER.")
        check_storable(where, [column.minimum, column.maximum, list(column.categories or ())])
        if column.minimum is not None and column.maximum is not None and column.minimum > column.maximum:
            raise InvalidInput(f"{where} has a minimum above its maximum.")
        if column.categories is not None and column.type is not ColumnType.STRING:
            raise InvalidInput(f"{where} is {column.type}: categories are for STRING.")

    written_out = sum(len(category) for column in columns for category in column.categories or ())
    if written_out > _MOST_CATEGORY_CHARACTERS:
        raise InvalidInput(
            f"signature has categories of {written_out:,} characters in all; at most {_MOST_CATEGORY_CHARACTERS:,} are kept."
        )


def check_classes(classes: tuple[str, ...] | None) -> None:
    """Returns where the classes may be answered with, each by name for each row; raises InvalidInput."""
    if classes is None:
        return
    if len(classes) > _MOST_CLASSES:
        raise InvalidInput(f"The estimator has {len(classes):,} classes; at most {_MOST_CLASSES:,} are served.")
    for label in classes:
        if len(label) > _LONGEST_CLASS or "\0" in label:
            raise InvalidInput(f"class {label[:40]!r}: a class has at most {_LONGEST_CLASS} characters and no NUL.")


def check_fallback(fallback: Fallback | None) -> None:
    """Returns where the fallback is whole: VERSION names a version, ANSWER an answer, the others neither; raises InvalidInput."""
    if fallback is None:
        return
    if (fallback.kind is FallbackKind.VERSION) != (fallback.version is not None):
        raise InvalidInput("fallback.version goes with kind VERSION, and only with it.")
    if (fallback.kind is FallbackKind.ANSWER) != (fallback.answer is not None):
        raise InvalidInput("fallback.answer goes with kind ANSWER, and only with it.")
    if fallback.answer is not None and not isinstance(fallback.answer, str | int | float):
        raise InvalidInput("fallback.answer must be a label (a text) or a number.")
    check_storable("fallback.answer", fallback.answer)


def check_fallback_fits(fallback: Fallback, task: Task, classes: frozenset[str] | None, status: VersionStatus | None) -> None:
    """Returns where the fallback could answer for the model; raises InvalidInput.

    `classes`: the labels that callers know; None where no version has told them yet. `status`: of the version that it names.
    """
    if status is not None and status is not VersionStatus.READY:
        raise InvalidInput(f"fallback.version {fallback.version} is {status}: only a version that is READY can answer.")
    answer = fallback.answer
    if answer is None:
        return
    if task is Task.REGRESSION:
        if isinstance(answer, bool) or not isinstance(answer, int | float):
            raise InvalidInput("fallback.answer must be a number: the model is a REGRESSION.")
    elif not isinstance(answer, str):
        raise InvalidInput("fallback.answer must be a label (a text): the model is a CLASSIFICATION.")
    elif classes is not None and answer not in classes:
        raise InvalidInput(f"fallback.answer {answer[:100]!r} is no class of the model: it has {_listed(tuple(sorted(classes)))}.")


def registration_hash(registration: VersionRegistration) -> str:
    """The same for the same artifact and input, whatever the order of keys: what makes a repeated registration the same version."""
    columns = None if registration.columns is None else [c.to_json() for c in registration.columns]
    parts: list[Any] = [registration.task.value, registration.artifact_digest, columns, list(registration.sample)]
    parts += [registration.metrics, registration.tags, registration.description]
    if registration.lineage is not None:  # not a null where there is none: fingerprints of earlier registrations stay what they are
        parts.append(registration.lineage.to_json())
    if registration.origin is not None:
        parts.append({"origin": registration.origin.to_json()})
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def promotion_blockers(
    status: VersionStatus,
    candidate: Signature | None,
    candidate_classes: tuple[str, ...] | None,
    serving: Signature | None,
    serving_classes: tuple[str, ...] | None,
) -> list[PromotionBlocker]:
    """All that stands in the way of pointing an alias that serves `serving` (None: nothing yet) at the candidate: one of each kind."""
    if status is not VersionStatus.READY or candidate is None:
        return [PromotionBlocker(_STATUS_CODES[status], _STATUS_TEXTS[status], overridable=False)]
    if serving is None:
        return []
    texts = _folded(_breaks(serving, candidate))
    if (serving_classes is None) != (candidate_classes is None) or set(serving_classes or ()) != set(candidate_classes or ()):
        texts.append(
            ("CLASSES_CHANGED", f"Callers know the classes {_listed(serving_classes)}; this version has {_listed(candidate_classes)}.")
        )
    return [PromotionBlocker(code, text, overridable=True) for code, text in texts]


def signature_breaks(old: Signature, new: Signature) -> list[tuple[str, str]]:
    """(code, sentence) for each thing that callers of `old` send and `new` would refuse or read otherwise."""
    return [(code, _ONE[code].format(*names)) for code, names in _breaks(old, new)]


def _folded(breaks: list[tuple[str, tuple[str, ...]]]) -> list[tuple[str, str]]:
    """One (code, sentence) of each code, in the order of the first; of many columns it names the first few."""
    found = []
    for kind in dict.fromkeys(code for code, _ in breaks):
        columns = [names for code, names in breaks if code == kind]
        if len(columns) == 1:
            found.append((kind, _ONE[kind].format(*columns[0])))
            continue
        shown = ", ".join(_short(names[0]) for names in columns[:_SHOWN_COLUMNS])
        rest = len(columns) - _SHOWN_COLUMNS
        found.append((kind, _MANY[kind].format(len(columns), shown + (f" and {rest:,} more" if rest > 0 else ""))))
    return found


def _breaks(old: Signature, new: Signature) -> list[tuple[str, tuple[str, ...]]]:
    """(code, what fills its sentence: the column first) for each thing that breaks callers of `old`."""
    before, after = ({c.name: c for c in s.columns} for s in (old, new))
    breaks: list[tuple[str, tuple[str, ...]]] = [("COLUMN_REMOVED", (repr(name),)) for name in before if name not in after]
    for name, column in after.items():
        if name in before:
            breaks += _column_breaks(before[name], column)
        elif column.required:
            breaks.append(("COLUMN_ADDED", (repr(name),)))
    if not breaks and [n for n in before if n in after] != [n for n in after if n in before]:
        breaks.append(("COLUMNS_REORDERED", ()))
    return breaks


def _column_breaks(old: Column, new: Column) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = []
    name = repr(new.name)
    if old.type is not new.type and (old.type, new.type) not in _WIDER_TYPES:
        found.append(("COLUMN_RETYPED", (name, str(old.type), str(new.type))))
    if new.required and not old.required:
        found.append(("COLUMN_REQUIRED", (name,)))
    low_raised = new.minimum is not None and (old.minimum is None or new.minimum > old.minimum)
    high_lowered = new.maximum is not None and (old.maximum is None or new.maximum < old.maximum)
    if low_raised or high_lowered:
        found.append(("RANGE_NARROWED", (name,)))
    if new.categories is not None and (old.categories is None or set(old.categories) - set(new.categories)):
        found.append(("CATEGORIES_NARROWED", (name,)))
    return found


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN_NAME else f"{name[:_SHOWN_NAME]}…"


def _listed(classes: tuple[str, ...] | None) -> str:
    return "none" if not classes else ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")


_SHOWN_COLUMNS = 3
_SHOWN_NAME = 80
_ONE = {
    "COLUMN_REMOVED": "Callers send {}, which this version does not know.",
    "COLUMN_ADDED": "This version requires {}, which callers do not send.",
    "COLUMN_RETYPED": "{} was {} and is {}.",
    "COLUMN_REQUIRED": "Callers may leave out {}, which this version requires.",
    "RANGE_NARROWED": "The range of {} is narrower than callers know.",
    "CATEGORIES_NARROWED": "{} takes fewer categories than callers know.",
    "COLUMNS_REORDERED": "The columns stand in another order: callers that send lists would be read wrongly.",
}
_MANY = {
    "COLUMN_REMOVED": "Callers send {:,} columns that this version does not know: {}.",
    "COLUMN_ADDED": "This version requires {:,} columns that callers do not send: {}.",
    "COLUMN_RETYPED": "{:,} columns have another type than callers know: {}.",
    "COLUMN_REQUIRED": "Callers may leave out {:,} columns that this version requires: {}.",
    "RANGE_NARROWED": "The ranges of {:,} columns are narrower than callers know: {}.",
    "CATEGORIES_NARROWED": "{:,} columns take fewer categories than callers know: {}.",
}
_STATUS_CODES = {
    VersionStatus.READY: "NOT_INSPECTED",
    VersionStatus.VALIDATING: "NOT_READY",
    VersionStatus.FAILED: "FAILED",
    VersionStatus.WITHDRAWN: "WITHDRAWN",
    VersionStatus.ARCHIVED: "ARCHIVED",
}
_STATUS_TEXTS = {
    VersionStatus.READY: "The version has no signature yet: register it again.",
    VersionStatus.VALIDATING: "The version is still being validated: wait until its status is READY.",
    VersionStatus.FAILED: "The version failed validation: its statusReason says why.",
    VersionStatus.WITHDRAWN: "The version was withdrawn: register its artifact again as a new version.",
    VersionStatus.ARCHIVED: "The version is archived: register its artifact again as a new version.",
}
