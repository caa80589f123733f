"""Documents about predictions, of every shape that the schema allows and of some that it does not, with variables that mostly fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import orjson
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

# What the predictor of tests/support/two_ways.py does with each.
MODELS = (
    "plain", "plain", "plain", "plain", "regressor", "regressor", "slow", "slower", "nobody", "columns", "late", "limited", "surprise", "core",
    "located", "value", "nothing", "error", "hollow", "hollow", "odd", "odd", "nan", "nan", "surrogate", "foreign",
)  # fmt: skip

PREDICTION = (
    "id", "id", "model", "version", "variant", "experiment", "reason", "label", "probability", "probabilities", "value", "degraded",
    "__typename",
)  # fmt: skip
BATCH = (
    "id", "model", "version", "variant", "experiment", "reason", "degraded", "rowCount", "classes", "labels", "probabilities", "values",
    "__typename",
)  # fmt: skip
FIELDS = {"Prediction": PREDICTION, "BatchPrediction": BATCH, "ClassProbability": ("label", "probability", "__typename")}
OF_CALL = {"predict": "Prediction", "predictBatch": "BatchPrediction"}

# What an argument of each kind may be declared as, written as, and sent as.
DECLARED = {
    "model": ("String!", 'String! = "plain"', 'String = "plain"'),
    "features": ("FeatureRow!", "FeatureRow!", "FeatureRow! = {a: 1}", "FeatureRow = {a: 1, b: [2, null]}", 'FeatureRow = "no row"'),
    "unit": ("ID", "ID!", 'ID = "u1"', "ID = 7", "ID = null"),
    "attributes": ("Attributes", "Attributes!", 'Attributes = {country: "NO"}'),
    "alias": ("String", "String!", 'String = "production"'),
    "version": ("Int", "Int!", "Int = 3"),
    "rows": ("[FeatureRow!]", "[FeatureRow!]!", "[FeatureRow!] = [{a: 1}, 2]", "[FeatureRow!] = {a: 1}"),
    "matrix": ("FeatureMatrix", "FeatureMatrix!", "FeatureMatrix = {data: [[1]]}"),
    "if": ("Boolean!", "Boolean!", "Boolean! = true", "Boolean = false", "Boolean = true"),
    "row": ("FeatureRow!", "FeatureRow! = [1]"),
    "inner": (
        "Int", "Int! = 4", "Float", "String!", "ID", "Boolean", "[Int!]", "[[Int]]", "[String]!", "FeatureRow", "JSON", "BigInt", "DateTime",
        "Durability", "ColumnInput",
    ),
}  # fmt: skip
WRITTEN = {
    "model": tuple(f'"{name}"' for name in MODELS),
    "unit": ('"u1"', "7", "null", '"""a block"""', "12345678901234567890"),
    "attributes": ('{country: "NO"}', "{}", "null", '{country: "NO", plan: "pro"}'),
    "alias": ('"production"', "null", '"canary"'),
    "version": ("3", "0", "-1", "null", "2147483647"),
    "if": ("true", "false"),
}
WRITTEN_WRONG = {
    "model": ("null", "5", "plain"),
    "unit": ("1.5", "true", "[1]"),
    "attributes": ("{a: 1}", "[1]", "{a: {b: 1}}"),
    "alias": ("5",),
    "version": ("2147483648", '"3"', "1.0"),
    "if": ("null", '"yes"'),
}
SENT: dict[str, tuple[Any, ...]] = {
    "model": MODELS,
    "features": ({"a": 1, "b": 2.5}, [1, 2], {"a": None, "c": "x"}, {"a": {"b": [1]}}, "row", 5, True, [], {}),
    "unit": ("u1", "u2", 7, 7.0, 2**60),
    "attributes": ({"country": "NO"}, {}, {"country": "SE", "plan": "pro"}),
    "alias": ("production", "canary", ""),
    "version": (3, 0, 3.0, 2**31 - 1),
    "rows": ([{"a": 1}, [2]], [{"a": 1}, None], [], [5, "x", True], {"a": 1}, 7, [[1], [2], [3]]),
    "matrix": ({"data": [[1, 2]]}, {"columns": ["a"], "data": [[1]]}, [], 5, "m"),
    "if": (True, False),
    "row": ({"a": 1}, [1, 2], 5),
    "inner": (5, 1.5, "x", True, [1, 2], [[1, None]], {"name": "a", "type": "NUMBER"}, "DURABLE", "2026-01-01T00:00:00Z", 2**53),
}
JUNK = (None, 0, 1, -1, 2**31, 2**60, 1.0, 1.5, 1e300, "", "x", True, [], [None], [[1]], {}, {"a": None}, {"a": 1}, {"a": "1", "b": {}})


@dataclass(frozen=True)
class Request:
    """One HTTP request. `accept`: a header."""

    text: str
    variables: dict[str, Any] | None
    operation_name: str | None
    accept: str
    get: bool

    @property
    def body(self) -> bytes:
        members: dict[str, Any] = {"query": self.text, "variables": self.variables, "operationName": self.operation_name}
        return orjson.dumps({name: value for name, value in members.items() if value is not None})

    @property
    def query_string(self) -> bytes:
        members = {"query": self.text}
        if self.variables is not None:
            members["variables"] = orjson.dumps(self.variables).decode()
        if self.operation_name is not None:
            members["operationName"] = self.operation_name
        return urlencode(members).encode()


@dataclass
class _Fragment:
    name: str
    uses: set[str]


@dataclass
class _Writer:
    """Writes one document. `uses`: the variables of what is being written."""

    draw: Callable[[Any], Any]
    variables: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> kind, declaration
    fragments: dict[str, list[_Fragment]] = field(default_factory=dict)  # by type
    texts: list[str] = field(default_factory=list)
    calls: list[tuple[str, str, set[str]]] = field(default_factory=list)  # field, its text up to the selections, variables
    uses: set[str] = field(default_factory=set)
    directives: int = 0

    def one_in(self, number: int) -> bool:
        # Not the first nor the last: these are drawn more often than one in so many times.
        return self.draw(st.booleans()) if number == 2 else self.draw(st.integers(1, number)) == (number + 2) // 2

    def pick(self, among: Any) -> Any:
        return self.draw(st.sampled_from(among))

    def many(self, least: int, most: int) -> range:
        return range(self.draw(st.integers(least, most)))

    def variable(self, kind: str) -> str:
        known = [name for name, (of, _) in self.variables.items() if of == kind]
        if known and not self.one_in(3):
            name = self.pick(known)
        else:
            name = f"{kind}{len(self.variables)}"
            self.variables[name] = (kind, self.pick(DECLARED[kind]))
        self.uses.add(name)
        return f"${name}"

    def argument(self, kind: str) -> str:
        if self.one_in(120):
            return self.variable(self.pick(tuple(DECLARED)))
        if self.one_in(120):
            return self.pick(WRITTEN_WRONG.get(kind, ("null", "5")))
        if not self.one_in(3):
            return self.variable(kind)
        if kind == "features":
            return self.literal(2, bare=False)
        if kind == "rows":
            items = [self.variable("row") if self.one_in(3) else self.literal(1, bare=False) for _ in self.many(0, 3)]
            return "{a: 1}" if self.one_in(6) else f"[{' '.join(items)}]"
        if kind == "matrix":
            inner = self.variable("inner") if self.one_in(3) else "2"
            return f"{{data: [[1, {inner}]]}}" if self.one_in(2) or inner != "2" else self.pick(("{}", "null", "5", "[]"))
        return self.pick(WRITTEN[kind])

    def literal(self, depth: int, *, bare: bool = True) -> str:
        """`bare`: may be a variable itself, of any type, as it may inside a scalar."""
        if bare and self.one_in(3):
            return self.variable("inner")
        if depth and not self.one_in(4):
            inner = [self.literal(depth - 1) for _ in self.many(0, 3)]
            if self.one_in(3):
                return f"[{' '.join(inner)}]"
            return "{%s}" % ", ".join(f"{name}: {value}" for name, value in zip("abc", inner, strict=False))  # noqa: UP031
        return self.pick(("1", "-2.5", '"x"', "true", "null", "MALE", "1e3", "12345678901234567890"))

    def directive(self) -> str:
        if self.directives > 12 or not self.one_in(5):
            return ""
        self.directives += 1
        condition = self.variable("if") if not self.one_in(3) else self.pick(WRITTEN_WRONG["if"] if self.one_in(30) else WRITTEN["if"])
        other = f" @skip(if: {self.variable('if')})" if self.one_in(8) else ""
        return f" @include(if: {condition}){other}" if other or self.one_in(2) else f" @skip(if: {condition})"

    def call(self) -> str:
        """The text of a field at the root; a call that is written again is merged with the first."""
        if self.calls and self.one_in(3):
            name, text, uses = self.pick(self.calls)
            self.uses |= uses
        else:
            before, self.uses = self.uses, set()
            name = self.pick(("predict", "predict", "predictBatch"))
            kinds = ["model", "features"] if name == "predict" else ["model", "rows" if self.one_in(2) else "matrix"]
            kinds += [kind for kind in ("unit", "attributes", "alias", "version") if self.one_in(3)]
            kinds = self.draw(st.permutations(kinds))
            key = f"{self.pick('abcd')}{len(self.calls)}: " if self.calls or self.one_in(2) else ""
            text = f"{key}{name}({', '.join(f'{kind}: {self.argument(kind)}' for kind in kinds)})"
            self.calls.append((name, text, self.uses))
            self.uses = before | self.uses
        return f"{text}{self.directive()} {self.selections(OF_CALL[name], 2)}"

    def selections(self, type_: str, depth: int) -> str:
        most = 2 if type_ == "Query" else 5
        return "{%s}" % " ".join(self.selection(type_, depth) for _ in self.many(1, most))  # noqa: UP031

    def selection(self, type_: str, depth: int) -> str:
        if depth and self.one_in(4):
            return self.spread(type_, depth - 1)
        if type_ == "Query":
            return self.at_root()
        name = self.pick(FIELDS[type_] if not self.one_in(400) else ("unheardOf",))
        alias = f"{self.pick('xy')}_{name.strip('_')}: " if self.one_in(10) else ""
        below = f" {self.selections('ClassProbability', 1)}" if name == "probabilities" and type_ == "Prediction" else ""
        return f"{alias}{name}{self.directive()}{below}"

    def at_root(self) -> str:
        if self.one_in(8):
            return f"{'t: ' if self.one_in(2) else ''}__typename{self.directive()}"
        if self.one_in(40):
            return self.pick(("viewer {tenant}", "models {edges {node {name}}}", '__type(name: "Query") {name}'))
        return self.call()

    def spread(self, type_: str, depth: int) -> str:
        if self.one_in(3):
            condition = f" on {type_}" if self.one_in(2) else ""
            return f"...{condition}{self.directive()} {self.selections(type_, depth)}"
        known = self.fragments.setdefault(type_, [])
        if known and self.one_in(2):
            fragment = self.pick(known)
        else:
            before, self.uses = self.uses, set()
            body = self.selections(type_, depth)
            fragment = _Fragment(f"F{len(self.texts)}", self.uses)
            self.texts.append(f"fragment {fragment.name} on {type_} {body}")
            known.append(fragment)
            self.uses = before
        self.uses |= fragment.uses
        return f"...{fragment.name}{self.directive()}"

    def operation(self, name: str) -> str:
        self.uses = set()
        body = "{%s}" % " ".join(self.selection("Query", 2) for _ in self.many(1, 2))  # noqa: UP031
        declared = ", ".join(f"${used}: {self.variables[used][1]}" for used in sorted(self.uses))
        if not name and not declared:
            return body
        return f"query {name}{f'({declared})' if declared else ''} {body}"

    def document(self) -> tuple[str, list[str]]:
        """The text and its operations' names."""
        names = [f"Op{number}" for number in self.many(1, 3)] if self.one_in(3) else [""]
        if names == ["Op0"] and self.one_in(2):
            names = [""]
        operations = [self.operation(name) for name in names]
        return self.pick((" ", "\n", "\n  ")).join([*operations, *self.texts]), names

    def sent(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, (kind, declared) in self.variables.items():
            if self.one_in(20 if declared.endswith("!") else 4):
                continue
            values[name] = None if self.one_in(30) else self.pick(JUNK if self.one_in(40) else SENT[kind])
        if self.one_in(10):
            values["unasked"] = self.pick(JUNK)
        return values


@st.composite
def requests(draw: Callable[[Any], Any]) -> Request:
    writer = _Writer(draw)
    text, names = writer.document()
    variables = writer.sent()
    name = writer.pick(names) or None
    if writer.one_in(20):
        name = writer.pick((None, "", "Nobody", "Op0"))
    accept = writer.pick(("application/graphql-response+json", "application/json", "*/*"))
    return Request(text, None if not variables and writer.one_in(2) else variables, name, accept, get=writer.one_in(20))
