from __future__ import annotations

import csv
import io
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.usage import to_csv
from app.usage.prices import Prices
from app.usage.types import Quantities

pytestmark = pytest.mark.unit
NOTHING = Quantities(0, 0, 0, 0)
GIB_DAY = 1024**3 * 86_400_000_000
counts = st.integers(0, 10**15)


def test_each_unit_has_its_price() -> None:
    prices = Prices("EUR", 7_000_000, 11_000_000, 13, 17)
    assert prices.cost_micros(NOTHING) == 0
    assert prices.cost_micros(Quantities(1_000_000, 0, 0, 0)) == 7_000_000
    assert prices.cost_micros(Quantities(0, 1_000_000, 0, 0)) == 11_000_000
    assert prices.cost_micros(Quantities(0, 0, 1_000_000, 0)) == 13
    assert prices.cost_micros(Quantities(0, 0, 0, GIB_DAY)) == 17
    assert prices.cost_micros(Quantities(1, 1, 0, 0)) == 18


@pytest.mark.parametrize(("requests", "cost"), [(499_999, 0), (500_000, 1), (1_499_999, 1), (1_500_000, 2)])
def test_half_a_millionth_is_rounded_up_once(requests: int, cost: int) -> None:
    assert Prices("EUR", 1, 1, 0, 0).cost_micros(Quantities(requests, 0, 0, 0)) == cost
    half = Quantities(requests // 2, requests - requests // 2, 0, 0)
    assert Prices("EUR", 1, 1, 0, 0).cost_micros(half) == cost


@given(st.tuples(counts, counts, counts, counts), st.tuples(counts, counts, counts, counts))
def test_the_cost_is_within_half_a_millionth_of_the_exact_sum(used: tuple[int, ...], price: tuple[int, ...]) -> None:
    units = (10**6, 10**6, 10**6, GIB_DAY)
    exact = sum((Fraction(u * p, unit) for u, p, unit in zip(used, price, units, strict=True)), Fraction(0))
    cost = Prices("EUR", *price).cost_micros(Quantities(*used))
    assert -Fraction(1, 2) <= exact - cost < Fraction(1, 2)


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@sum", "\tx", "\rx", "\nx"])
def test_no_cell_is_a_formula_to_a_spreadsheet(cell: str) -> None:
    row = {"tenant": cell, "day": "2026-03-01", "model": cell, "version": 3, "requests": 1, "rows": 2, "computeMs": 0.5, "artifactBytes": 0}
    head, read = list(csv.reader(io.StringIO(to_csv(iter([row])), newline="")))
    assert head == ["tenant", "day", "model", "version", "requests", "rows", "compute_ms", "artifact_bytes"]
    assert read == ["'" + cell, "2026-03-01", "'" + cell, "3", "1", "2", "0.5", "0"]


def test_a_cell_with_commas_quotes_and_lines_stays_one_cell_and_none_is_empty() -> None:
    row = {"tenant": 'a,"b"\nc', "day": "d", "model": None, "version": None, "requests": 1, "rows": 1, "computeMs": 1.0, "artifactBytes": 5}
    _, read = list(csv.reader(io.StringIO(to_csv(iter([row])), newline="")))
    assert read == ['a,"b"\nc', "d", "", "", "1", "1", "1.0", "5"]
