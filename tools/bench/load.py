"""Who asks: `wrk` where it is installed, else clients of our own, either in a process of its own on the cores beside the server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from tools.bench import processes
from tools.bench.service import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCRIPT = Path(__file__).with_name("wrk.lua")
TOLD = re.compile(
    r"^bench: requests=(\d+) us=(\d+) p50=(\d+) p99=(\d+) max=(\d+) status=(\d+) failed=(\d+) wrong=(\d+) ?(.*)$", re.MULTILINE
)
TIMEOUT_S = 30
SAMPLE_EVERY_S = 0.1


class NoFiguresError(Exception):
    """The generator said nothing that could be read."""


@dataclass(frozen=True)
class Load:
    """What one measurement saw. Latencies in milliseconds, from sending a request to having its whole answer."""

    requests: int  # that were answered, however
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    refused: int  # answers with a status of 400 or more
    bad: int  # answers that did not come, or did not hold what they should
    sample: str  # the last of both
    generator_cpu_s: float

    @property
    def per_second(self) -> float:
        """Good answers alone: a refusal is cheap."""
        return max(0, self.requests - self.refused - self.bad) / self.seconds


@dataclass(frozen=True)
class Target:
    """A server that is asked. `bodies` go out by turns; every answer holds `expected`."""

    port: int
    path: str
    headers: Mapping[str, str]
    bodies: Sequence[bytes]
    expected: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def ask(self, body: bytes, timeout_s: float = TIMEOUT_S) -> bytes:
        """One answer, whatever it says; OSError where there is none, HTTPError (one of them) where its status is 400 or more."""
        request = urllib.request.Request(self.url, body, dict(self.headers))  # always http, always this machine
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return bytes(answer.read())

    def good(self, answer: bytes) -> bool:
        return self.expected.encode() in answer and b'"errors"' not in answer


def read_figures(output: str, generator_cpu_s: float = 0.0) -> Load:
    """What `wrk.lua` and our own clients print at their end; NoFiguresError where it is not there."""
    told = TOLD.search(output)
    if told is None:
        raise NoFiguresError(f"no line that begins with 'bench:' in: {output[-400:].strip()}")
    requests, us, p50, p99, most, status, failed, wrong = map(int, told.groups()[:8])
    if not requests or not us:
        raise NoFiguresError(f"not one answer in {us / 1e6:.1f} s; {failed} failed")
    sample = told.group(9).strip()
    return Load(requests, us / 1e6, p50 / 1000, p99 / 1000, most / 1000, status, failed + wrong, sample, generator_cpu_s)


class Generator(Protocol):
    name: str

    def command(self, target: Target, folder: Path, connections: int, seconds: float, extra: Sequence[str]) -> list[str]:
        """What to start; `extra` is what `wrk.lua` takes after its files."""


class Wrk:
    """wrk has one thread: more would take time from the database and the drain, which are on its core."""

    name = "wrk"

    def command(self, target: Target, folder: Path, connections: int, seconds: float, extra: Sequence[str]) -> list[str]:
        options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", f"{TIMEOUT_S}s", "-s", str(SCRIPT)]
        return ["wrk", *options, target.url, "--", str(folder / "headers"), str(folder / "bodies"), *extra]


class OwnClients:
    """`tools.bench.clients`: slower than wrk, so a fast server is measured too low, which the report says."""

    name = "our own asyncio clients"

    def command(self, target: Target, folder: Path, connections: int, seconds: float, extra: Sequence[str]) -> list[str]:
        where = [str(target.port), target.path, str(connections), str(seconds)]
        return [sys.executable, "-m", "tools.bench.clients", *where, str(folder / "headers"), str(folder / "bodies"), *extra]


def generator() -> Generator:
    return Wrk() if shutil.which("wrk") else OwnClients()


class Loader:
    """Runs a generator on `cores`, its files in `folder`."""

    def __init__(self, kind: Generator, folder: Path, cores: frozenset[int]) -> None:
        self.kind, self._folder, self._cores = kind, folder, cores

    @property
    def name(self) -> str:
        """Of the generator, and whether it goes before others on its cores."""
        with processes.first() as goes_first:
            return f"{self.kind.name}, before others on its cores" if goes_first else self.kind.name

    def run(self, target: Target, connections: int, seconds: float, *extra: str) -> Load:
        """So many connections, each with one request at a time; raises NoFiguresError where nothing was answered."""
        (self._folder / "headers").write_text("".join(f"{name}: {value}\n" for name, value in target.headers.items()), encoding="utf-8")
        (self._folder / "bodies").write_bytes(b"".join(body + b"\n" for body in target.bodies))
        command = self.kind.command(target, self._folder, connections, seconds, extra)
        with processes.on(self._cores), processes.first():
            started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        before = processes.waited_cpu_s()
        try:
            output, _ = started.communicate(timeout=seconds + 2 * TIMEOUT_S)
        except subprocess.TimeoutExpired:
            started.kill()
            output, _ = started.communicate()
        return read_figures(output, processes.waited_cpu_s() - before)

    def checked(self, target: Target, connections: int, seconds: float) -> Load:
        """The same with every answer looked at; also what warms a server up."""
        return self.run(target, connections, seconds, "CHECK", target.expected)

    def paced(self, target: Target, connections: int, seconds: float, per_second: float) -> Load:
        """About `per_second` requests: each connection waits at random between an answer and its next request."""
        return self.run(target, connections, seconds, "THINK", f"{1000 * connections / per_second:.3f}")


class Sampler:
    """A client beside the generator that asks ten times a second and looks at each answer; use as a context."""

    def __init__(self, target: Target) -> None:
        self._target, self._ended = target, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.asked, self.refused, self.wrong, self.sample = 0, 0, 0, ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(TIMEOUT_S)

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            body = self._target.bodies[self.asked % len(self._target.bodies)]
            try:
                answer = self._target.ask(body)
            except urllib.error.HTTPError as error:
                self.refused += 1
                error.close()
                continue
            except OSError as error:
                answer = str(error).encode()
            self.asked += 1
            if not self._target.good(answer):
                self.wrong += 1
                self.sample = answer[:200].decode(errors="replace")
