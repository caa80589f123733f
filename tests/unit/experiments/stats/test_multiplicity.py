"""Holm and Benjamini-Hochberg, as statsmodels has them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from app.experiments.stats.multiplicity import benjamini_hochberg, holm

pytestmark = pytest.mark.unit

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


# A handful only: theirs collects garbage on every call.
@pytest.mark.parametrize(
    "p_values", [[0.2], [0.01, 0.04, 0.03, 0.005], [0.04, 0.04, 0.001], [0.5, 0.0, 1.0, 0.0124, 0.0126], [0.026, 0.03]]
)
def test_holm_is_statsmodels(p_values):
    rejected, adjusted, _, _ = multipletests(p_values, alpha=0.05, method="holm")
    steps = holm(p_values, 0.05)
    np.testing.assert_allclose([step.p_value for step in steps], adjusted, rtol=1e-12, atol=1e-300)
    assert [step.rejected for step in steps] == list(rejected)


@given(P_VALUES)
def test_benjamini_hochberg_is_statsmodels(p_values):
    np.testing.assert_allclose(benjamini_hochberg(p_values), multipletests(p_values, method="fdr_bh")[1], rtol=1e-12, atol=1e-300)


@given(P_VALUES, st.sampled_from([0.01, 0.05]))
def test_holms_level_for_a_question_agrees_with_its_answer(p_values, alpha):
    for p_value, step in zip(p_values, holm(p_values, alpha), strict=True):
        if not np.isclose(p_value, step.level, rtol=1e-9):
            assert (p_value <= step.level) == step.rejected
        assert alpha / len(p_values) <= step.level <= alpha


def test_no_questions_have_no_answers():
    assert holm([], 0.05) == []
    assert benjamini_hochberg([]) == []
