"""How many probabilities one call may ask for."""

from __future__ import annotations

import pytest

from app.errors import InvalidInput
from app.prediction.asking import check_answer_size
from app.prediction.features import LARGEST_ANSWER_CELLS, LARGEST_BATCH

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("rows", "classes"), [(LARGEST_BATCH, 0), (LARGEST_BATCH, 50), (1, LARGEST_ANSWER_CELLS), (500, 1_000)])
def test_what_can_be_written_out_beside_other_requests_is_answered(rows: int, classes: int) -> None:
    check_answer_size(rows, classes)


def test_a_batch_of_many_classes_is_refused_with_how_many_rows_would_do() -> None:
    with pytest.raises(InvalidInput, match="send at most 500 rows"):
        check_answer_size(501, 1_000)
