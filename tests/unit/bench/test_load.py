"""What a generator prints, and how many of its answers count."""

import re
from pathlib import Path

import pytest

from tools.bench.clients import whole
from tools.bench.load import Load, NoFiguresError, OwnClients, Target, Wrk, read_figures

pytestmark = pytest.mark.unit

WRK = """Running 3s test @ http://127.0.0.1:8000/graphql
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.41ms    1.20ms  48.11ms   91.11%
    Req/Sec     9.41k     0.91k   11.02k    76.67%
  28090 requests in 3.00s, 7.34MB read
Requests/sec:   9360.00
Transfer/sec:      2.44MB

bench: requests=28090 us=3001000 p50=3270 p99=8120 max=48110 status=0 failed=0 wrong=0
"""
TARGET = Target(8000, "/graphql", {}, [b"{}"], '"label":')


def test_the_last_line_is_read_in_milliseconds():
    load = read_figures(WRK, 1.25)
    assert load == Load(28090, 3.001, 3.27, 8.12, 48.11, 0, 0, "", 1.25)
    assert load.per_second == pytest.approx(9360.21, abs=0.01)


def test_answers_that_are_late_or_wrong_are_added_up_apart_from_those_refused():
    load = read_figures('bench: requests=100 us=2000000 p50=1 p99=2 max=3 status=20 failed=4 wrong=6 503 {"errors":[]}\n')
    assert (load.refused, load.bad, load.sample) == (20, 10, '503 {"errors":[]}')


def test_a_refusal_is_no_throughput():
    load = read_figures("bench: requests=100 us=2000000 p50=1 p99=2 max=3 status=20 failed=0 wrong=0 503")
    assert load.per_second == 40.0


def test_more_bad_answers_than_requests_are_no_negative_throughput():
    load = read_figures("bench: requests=1 us=1000000 p50=1 p99=2 max=3 status=1 failed=9 wrong=0 ")
    assert load.per_second == 0.0


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("unable to connect to 127.0.0.1:9 Connection refused", "Connection refused"),
        ("bench: requests=0 us=3000000 p50=0 p99=0 max=0 status=0 failed=32 wrong=0 ", "not one answer in 3.0 s; 32 failed"),
        ("", "no line that begins with 'bench:'"),
    ],
)
def test_a_generator_without_figures_is_told_with_what_it_said(output, said):
    with pytest.raises(NoFiguresError, match=re.escape(said)):
        read_figures(output)


@pytest.mark.parametrize("kind", [Wrk(), OwnClients()], ids=lambda kind: kind.name)
def test_both_generators_take_the_same_files_and_the_same_words(kind):
    command = kind.command(TARGET, Path("/run/it"), 32, 3.0, ("CHECK", "text"))
    assert command[-4:] == ["/run/it/headers", "/run/it/bodies", "CHECK", "text"]


def test_wrk_measures_whole_seconds_and_at_least_one():
    assert [Wrk().command(TARGET, Path(), 1, seconds, ())[3] for seconds in (0.4, 1.0, 2.6)] == ["-d1s", "-d1s", "-d3s"]


@pytest.mark.parametrize(
    ("answer", "good"),
    [(b'{"label":"x"}', True), (b'{"other":1}', False), (b'{"data":{"label":"x"},"errors":[{}]}', False)],
)
def test_an_answer_with_errors_is_not_good_whatever_else_it_holds(answer, good):
    assert TARGET.good(answer) is good


@pytest.mark.parametrize(
    ("head", "body", "complete"),
    [
        (b"content-length: 4", b"abc", False),
        (b"content-length: 4\r\nx: y", b"abcd", True),
        (b"transfer-encoding: chunked", b"3\r\nabc\r\n", False),
        (b"transfer-encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n", True),
    ],
)
def test_our_own_clients_know_when_an_answer_is_whole(head, body, complete):
    assert whole(head, body) is complete
