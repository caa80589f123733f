from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from app.errors import ConfigurationError, InvalidFeatures
from app.observability.logs import configure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.unit
CANARY = "canary-7f3a"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def said() -> Callable[[], list[dict[str, Any]]]:
    stream = io.StringIO()
    configure("info", "serving-0", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def logger() -> Any:
    return structlog.get_logger("app.test")


def test_a_line_is_one_json_object_with_time_level_event_process_and_request_id(said: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1")
    logger().info("model.loaded", model="churn", version=3)
    (line,) = said()

    assert list(line)[:3] == ["time", "level", "event"]
    assert line["time"].endswith("Z")
    del line["time"]
    assert line == {"level": "info", "event": "model.loaded", "process": "serving-0", "request_id": "r-1", "model": "churn", "version": 3}


def test_lines_of_libraries_have_the_same_form_and_those_below_the_level_are_silent(said: Callable[[], list[dict[str, Any]]]) -> None:
    logging.getLogger("some.library").warning("took %d ms", 7)
    logging.getLogger("some.library").debug("noise")
    logger().debug("noise")

    assert [(line["level"], line["event"], line["process"]) for line in said()] == [("warning", "took 7 ms", "serving-0")]


def test_access_lines_which_hold_query_strings_are_never_written(said: Callable[[], list[dict[str, Any]]]) -> None:
    logging.getLogger("uvicorn.access").error("GET /graphql?variables=%s", CANARY)

    assert said() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"token": CANARY}, {"Authorization": CANARY}, {"password": CANARY}, {"features": {"age": CANARY}}, {"rows": [[CANARY]]},
        {"request": {"headers": {"x": CANARY}}}, {"request": [{"variables": CANARY}]}, {"note": f"Bearer {CANARY}"},
        {"note": f"eyJhbGciOi.{CANARY}.sig"}, {"dsn": CANARY}, {"note": f"postgresql://u:{CANARY}@h/db"},
        {"deep": {"a": {"b": {"c": {"d": {"e": CANARY}}}}}},
    ],
)  # fmt: skip
def test_what_is_named_like_a_secret_or_a_feature_or_looks_like_a_token_is_left_out(
    said: Callable[[], list[dict[str, Any]]], fields: dict[str, Any]
) -> None:
    logger().warning("something", **fields)
    (line,) = said()

    assert CANARY not in json.dumps(line)
    assert line["event"] == "something"


def test_how_many_rows_is_no_secret(said: Callable[[], list[dict[str, Any]]]) -> None:
    logger().info("predicted", rows=7)

    assert said()[0]["rows"] == 7


@pytest.mark.parametrize("error", [ValueError(f"could not convert {CANARY}"), KeyError(CANARY), InvalidFeatures(CANARY)])
def test_an_exception_that_may_quote_data_is_told_by_type_and_place_alone(
    said: Callable[[], list[dict[str, Any]]], error: Exception
) -> None:
    try:
        raise error
    except Exception:
        logger().exception("request.failed")
        logging.getLogger("some.library").exception("failed too")
    ours, theirs = said()

    assert CANARY not in json.dumps([ours, theirs])
    assert ours["exception"]["type"] == theirs["exception"]["type"] == type(error).__name__
    assert ours["exception"]["frames"][-1].startswith("unit/observability/test_logs.py:")


def test_an_exception_of_the_system_keeps_its_text(said: Callable[[], list[dict[str, Any]]]) -> None:
    logger().error("spool.failed", exc_info=OSError(28, "No space left on device"))

    assert said()[0]["exception"]["message"] == "[Errno 28] No space left on device"


def test_on_a_terminal_a_line_is_for_people() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    configure("info", "drain", stream)
    logger().info("model.loaded", version=3, token=CANARY)

    assert stream.getvalue()[12:] == " info    model.loaded  version=3 token=[omitted] process=drain\n"


def test_an_unknown_level_names_the_variable() -> None:
    with pytest.raises(ConfigurationError, match="TURNOUT_LOG_LEVEL"):
        configure("loud", "serving-0", io.StringIO())
