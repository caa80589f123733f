"""How large a document may be. One walk over the document, linear in its length: each fragment is counted once and remembered.

It runs before validation, whose own rules are quadratic in the fields of one selection set.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphql import FieldNode, FragmentDefinitionNode, FragmentSpreadNode, InlineFragmentNode, OperationDefinitionNode

if TYPE_CHECKING:
    from graphql import DocumentNode, SelectionSetNode

_BATCH = "predictBatch"
_INTROSPECTION = frozenset({"__schema", "__type"})
Definition = OperationDefinitionNode | FragmentDefinitionNode


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one document may have. Counts are of the document with its fragments written out."""

    characters: int = 15_000
    tokens: int = 1_000
    comments: int = 200
    depth: int = 10  # fields inside fields; fragments add none of their own
    root_fields: int = 20
    fields: int = 200
    aliases: int = 15
    directives: int = 20


@dataclass(slots=True)
class Counts:
    """One definition with its fragments written out. What lies below `__schema` and `__type` is in no depth and no fields."""

    depth: int = 0
    root_fields: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0
    charged: int = 0  # fields at the root that are work
    batches: int = 0  # of them, those that take many rows

    @property
    def cost(self) -> int:
        """Tokens of the request that runs it: one for each field at the root, at least one. Fields left out by a directive cost too."""
        return max(1, self.charged)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A whole document. `steps`: selections looked at, which is what the walk costs."""

    operations: tuple[Counts, ...]
    fragments: tuple[Counts, ...]
    introspects: bool
    steps: int


@dataclass(frozen=True, slots=True)
class _Spread:
    name: str
    depth: int  # of the field that it stands in
    at_root: bool
    exempt: bool  # below __schema or __type


@dataclass(slots=True)
class _Own:
    """One definition without what its spreads bring."""

    counts: Counts = field(default_factory=Counts)
    spreads: list[_Spread] = field(default_factory=list)


def measure(document: DocumentNode) -> Measurement:
    """The size of `document`, which need not be valid: unknown fragments and cycles count nothing."""
    walk = _Walk()
    own_fragments: dict[str, _Own] = {}
    own_operations: list[_Own] = []
    for definition in document.definitions:
        if isinstance(definition, FragmentDefinitionNode):
            own_fragments[definition.name.value] = walk.own(definition)
        elif isinstance(definition, OperationDefinitionNode):
            own_operations.append(walk.own(definition))
    fragments = walk.written_out(own_fragments)
    operations = tuple(walk.total(own, fragments) for own in own_operations)
    return Measurement(operations, tuple(fragments.values()), walk.introspects, walk.steps)


def exceeded(measurement: Measurement, limits: Limits) -> str | None:
    """What a person should change; None where the document is within all limits."""
    for counts, root_fields in (
        *((counts, counts.root_fields) for counts in measurement.operations),
        *((counts, 0) for counts in measurement.fragments),  # used or not: validation looks at each
    ):
        for what, count, most in (
            ("levels of nested fields", counts.depth, limits.depth),
            ("fields at the root", root_fields, limits.root_fields),
            ("fields", counts.fields, limits.fields),
            ("aliases", counts.aliases, limits.aliases),
            ("directives", counts.directives, limits.directives),
        ):
            if count > most:
                return f"The document has more than {most} {what}, fragments written out. Ask for less, or in several requests."
    return None


class _Walk:
    """Counts its own steps. No recursion: a document nests deeper than the interpreter's stack allows."""

    def __init__(self) -> None:
        self.steps = 0
        self.introspects = False

    def own(self, definition: Definition) -> _Own:
        own = _Own()
        own.counts.directives = len(definition.directives or ())
        if isinstance(definition, OperationDefinitionNode):
            own.counts.directives += sum(len(variable.directives or ()) for variable in definition.variable_definitions or ())
        about_schema = isinstance(definition, FragmentDefinitionNode) and definition.type_condition.name.value.startswith("__")
        self.introspects |= about_schema
        todo: list[tuple[SelectionSetNode, int, bool, bool]] = [(definition.selection_set, 0, True, about_schema)]
        while todo:
            selection_set, depth, at_root, exempt = todo.pop()
            for selection in selection_set.selections:
                self.steps += 1
                own.counts.directives += len(selection.directives or ())
                if isinstance(selection, FieldNode):
                    introspection = self._field(selection, own.counts, depth, at_root, exempt=exempt)
                    if selection.selection_set:
                        todo.append((selection.selection_set, depth + 1, False, exempt or introspection))
                elif isinstance(selection, InlineFragmentNode):
                    todo.append((selection.selection_set, depth, at_root, exempt))
                elif isinstance(selection, FragmentSpreadNode):
                    own.spreads.append(_Spread(selection.name.value, depth, at_root, exempt))
        return own

    def _field(self, node: FieldNode, counts: Counts, depth: int, at_root: bool, *, exempt: bool) -> bool:
        """Counts one field; returns whether introspection begins here."""
        name = node.name.value
        introspection = name in _INTROSPECTION
        self.introspects |= introspection
        counts.aliases += node.alias is not None
        counts.root_fields += at_root
        counts.charged += at_root and name != "__typename"
        counts.batches += at_root and name == _BATCH
        if not (exempt or introspection or name == "__typename"):
            counts.fields += 1
            counts.depth = max(counts.depth, depth + 1)
        return introspection

    def written_out(self, own: dict[str, _Own]) -> dict[str, Counts]:
        """Each fragment with those that it spreads, inner ones first. A spread that closes a cycle counts nothing: it is invalid."""
        done: dict[str, Counts] = {}
        for root, its in own.items():
            path = [(root, iter(its.spreads))] if root not in done else []
            on_path = {root}
            while path:
                name, spreads = path[-1]
                for spread in spreads:
                    self.steps += 1
                    if spread.name in own and spread.name not in done and spread.name not in on_path:
                        path.append((spread.name, iter(own[spread.name].spreads)))
                        on_path.add(spread.name)
                        break
                else:
                    path.pop()
                    on_path.discard(name)
                    done[name] = self.total(own[name], done)
        return done

    def total(self, own: _Own, fragments: dict[str, Counts]) -> Counts:
        total = Counts(own.counts.depth, own.counts.root_fields, own.counts.fields, own.counts.aliases, own.counts.directives)
        total.charged, total.batches = own.counts.charged, own.counts.batches
        for spread in own.spreads:
            self.steps += 1
            inner = fragments.get(spread.name)
            if inner is None:
                continue
            total.aliases += inner.aliases
            total.directives += inner.directives
            if spread.at_root:
                total.root_fields += inner.root_fields
                total.charged += inner.charged
                total.batches += inner.batches
            if not spread.exempt:
                total.fields += inner.fields
                total.depth = max(total.depth, spread.depth + inner.depth)
        return total
