"""The parent of everything on one machine: starts it in order, keeps it alive, stops it in the opposite order.

Synchronous and single-threaded on purpose: it must stay alive when everything else dies, and a child's parent-death signal
belongs to the thread that forked it. It imports nothing heavy: what needs SQLAlchemy (migrations) is imported when it is needed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from app.kernel.exits import NOT_TAKEN, UNWRITTEN
from app.kernel.home import SPOOL
from app.observability.exposition import METRICS_FOLDER, fresh_folder
from app.supervisor import environment
from app.supervisor.console import say
from app.supervisor.home import prepare_home, sweep_home
from app.supervisor.keys import make_missing_keys, require_production_keys
from app.supervisor.listening import listen, url_of
from app.supervisor.lock import HomeLock
from app.supervisor.process import Child, describe_exit, stop_all
from app.supervisor.readiness import wait_until_ready
from app.supervisor.rolling import Rolling
from app.supervisor.signals import StopRequested, StopSignals
from app.supervisor.sockets import model_host_socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from app.settings import Settings
    from app.supervisor.database import Database
    from app.supervisor.process import ChildSpec

_TICK_S = 0.2
_CHECK_EVERY_S = 1.0
_MAINTAIN_EVERY_S = 3600.0
_READY_WITHIN_S = 60.0


def supervise(settings: Settings, environ: Mapping[str, str], *, demo: bool) -> int:
    """Serves until a signal; the exit status of `turnout serve`. Raises ConfigurationError where it cannot start."""
    require_production_keys(settings)
    prepare_home(settings.home)
    lock = HomeLock.acquire(settings.home)
    try:
        sweep_home(settings.home)
        with StopSignals() as signals:
            return Supervisor(settings, environ, signals).run(demo=demo)
    finally:
        lock.release()


class Supervisor:
    """One run of the service. `run` starts, serves and stops; nothing outlives it."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], signals: StopSignals) -> None:
        self._settings = settings
        self._environ = environ
        self._signals = signals
        self._listener: socket.socket | None = None
        self._database: Database | None = None
        self._host: list[Child] = []
        self._drain: list[Child] = []
        self._serving: list[Child] = []
        self._rolling: Rolling | None = None
        self._failed = False  # a stop that left something undone

    def run(self, *, demo: bool) -> int:
        try:
            url = self._start()
            if demo:
                self._seed(url)
            say(f"serving on {url} (health: {url}/health). Ctrl-C stops everything.")
            self._keep_alive()
        except StopRequested as request:
            say(f"stopping ({request}); once more to hurry")
        finally:
            self._stop()
        return 1 if self._failed else 0

    def _start(self) -> str:
        settings, environ = self._settings, self._environ
        self._listener = listen(settings.http.host, settings.http.port)  # first: a taken port is told before anything starts
        url = url_of(self._listener, settings.http.host)
        (settings.home / "run" / "url").write_text(f"{url}\n")  # where the command line finds the service
        say(f"data in {settings.home}")
        for name in settings.unknown:
            say(f"warning: nothing reads {name}; docs/settings.md lists the names")
        make_missing_keys(settings)
        fresh_folder(settings.home / METRICS_FOLDER)
        # What takes longest are imports: of scikit-learn, of everything that serves. They go on while the database starts.
        listener = self._listener.fileno()
        self._serving = [self._begin(environment.serving(settings, environ, listener, n)) for n in range(settings.http.workers)]
        self._host = [self._begin(environment.model_host(settings, environ, model_host_socket(settings.home)))]
        from app.supervisor.database import open_database

        self._database = open_database(settings)
        urls = self._database.start()
        for child in self._serving:
            child.tell(environment.serving_words(urls))
        if not self._database.away:  # else they are ready when they can be, and nobody waits for that
            wait_until_ready(url, _READY_WITHIN_S, self._first_death)
        self._drain = [self._begin(environment.drain(settings, environ, urls))]  # nothing to drain before the first answer
        return url

    def _begin(self, spec: ChildSpec) -> Child:
        child = Child(spec)
        child.start()
        return child

    def _first_death(self) -> str | None:
        """While starting, a dead child is a reason to stop: the same start would fail the same way."""
        self._signals.check()
        for child in self._children():
            if (status := child.exit_status()) is not None:
                return f"{child.spec.name} {describe_exit(status)} while starting; what it printed above says why."
        return None

    def _seed(self, url: str) -> None:
        seeding = self._begin(environment.demo(self._settings, self._environ, url))
        try:
            while (status := seeding.exit_status()) is None:
                self._tend()
                time.sleep(0.01)
        finally:
            seeding.kill()
        if status:
            say("the demo tenants could not be made (said above); the service goes on without them. Again with: turnout demo")

    def _keep_alive(self) -> None:
        check_at = maintain_at = time.monotonic()
        maintain_at += _MAINTAIN_EVERY_S
        while True:
            self._tend()
            now = time.monotonic()
            if self._database and now >= check_at:
                check_at = now + _CHECK_EVERY_S
                self._database.check()
            if self._database:
                self._database.tend()
            if self._database and now >= maintain_at:
                maintain_at = now + _MAINTAIN_EVERY_S
                self._database.maintain()
            time.sleep(_TICK_S)

    def _tend(self) -> None:
        self._signals.check()
        self._roll()
        for child in self._children():
            if news := child.supervise():
                say(news)

    def _roll(self) -> None:
        """New serving processes, where SIGHUP asked for them. Asked again meanwhile, another round follows."""
        if self._rolling is None and self._database and self._signals.roll_asked():
            if problem := self._database.why_not_serve():
                say(f"no serving process is replaced: {problem}")
                return
            say("SIGHUP: replacing serving processes one by one")
            self._rolling = Rolling(self._serving)
        if self._rolling:
            if news := self._rolling.step():
                say(news)
            if self._rolling.done:
                self._rolling = None

    def _children(self) -> list[Child]:
        return [*self._host, *self._drain, *self._serving]

    def _stop(self) -> None:
        """Serving first, so that the drain sees their last records; the model host; the database, cleanly, last."""
        self._signals.hold()
        if self._listener:
            self._listener.close()
        beside = self._rolling.children if self._rolling else []
        for group in ([*self._serving, *beside], [*self._drain, *self._host]):
            for name in stop_all(group, lambda: self._signals.impatient):
                say(f"{name} did not stop in time and was killed")
                self._failed |= not self._signals.impatient
        self._look_at_spool()
        if self._database:
            self._database.stop()
        if self._signals.count:
            say("stopped")

    def _look_at_spool(self) -> None:
        """Says loudly what an orderly stop could not bring into the database. None of it is lost: the next start takes it up."""
        for child in self._serving:
            if child.exit_status() == UNWRITTEN:
                say(f"error: {child.spec.name} {NOT_TAKEN}")
                self._failed = True
        if not any(child.exit_status() for child in self._drain):
            return  # it ended with nothing left, or was never started
        from app.journal.depth import read_depth
        from app.kernel.clock import SystemClock

        spool = self._settings.home / SPOOL
        left = read_depth(spool, SystemClock())
        if left.bytes:
            say(f"error: {left.records} records of the log ({left.bytes} bytes) are not in the database; they wait in {spool}")
            self._failed = True
