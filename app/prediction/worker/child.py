"""A child: locks itself, loads one artifact of one tenant, answers on the channels that the zygote passes in. Ends when nobody is left."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gc
import io
import os
import select
import signal
import socket
import sys
import time
from array import array as typed_array
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson

from app.kernel.inspection import Confinement, InspectionRequest
from app.kernel.ranks import LONG_WORK, SPARE_TIME
from app.kernel.signature import Signature, Task
from app.prediction.worker import wire
from app.prediction.worker.calling import Caller, CallFailed
from app.prediction.worker.inspect import inspect_artifact, short
from app.prediction.worker.lock import Limits, lock
from app.prediction.worker.settle import settle
from app.prediction.worker.unpickle import LoadRefused, Trust, load

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE_S = 30.0  # with a serving process that stops in the middle of a frame
_ALONE_S = 10.0  # how long to live on without a channel
_LOWEST_FD = 10  # 0 to 2 stay closed and are never a channel: native code prints there


class Purpose(StrEnum):
    """What a child is for. All but the first answer one question and end."""

    SERVE = "serve"
    INSPECT = "inspect"
    COMPILE = "compile"  # has the tenant's estimator, makes graphs of it
    PROVE = "prove"  # runs a graph; never sees the estimator


@dataclass(frozen=True, slots=True)
class ChildOptions:
    uid: int
    parent: int
    limits: Limits
    trust: Trust
    expected: Confinement  # what this machine's probe was held by; a child held by less ends
    purpose: Purpose


def run_child(options: ChildOptions, control: socket.socket, *, probe: bool) -> None:
    """Ends the process. `probe`: only lock, and say over `control` what holds."""
    _forget_the_zygote()
    os.nice(LONG_WORK if options.purpose is Purpose.SERVE else SPARE_TIME)
    _prepare(options.purpose)
    fd = fcntl.fcntl(control.fileno(), fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)
    held = lock(keep_fd=fd, uid=options.uid, limits=options.limits, parent=options.parent)
    if probe:
        os.write(fd, orjson.dumps(dataclasses.asdict(held)))
        os._exit(0)
    if held.seccomp < options.expected.seccomp or held.landlock_abi < options.expected.landlock_abi:
        os._exit(1)
    _Child(options, fd).run()
    os._exit(0)


def _prepare(purpose: Purpose) -> None:
    """Imports what the others do without: a locked child cannot open a file, so it can import nothing."""
    if purpose is Purpose.COMPILE:
        from app.prediction.worker.compiling import first

        first.prepare()
    elif purpose is Purpose.PROVE:
        from app.prediction.worker.compiling import second

        second.prepare()


def _forget_the_zygote() -> None:
    """Signal handling, standard streams, the rank under want of memory: what must be set while it still can be."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdin = None
    sys.stdout = sys.stderr = _Nowhere()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123
        score.write("1000")  # of all processes here, a model is the one to lose
    gc.enable()


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


class _Artifact(io.RawIOBase):
    """The artifact's bytes as they come over the channel; ends after `size`."""

    def __init__(self, pipe: wire.BlockingPipe, size: int) -> None:
        self._pipe = pipe
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            return 0
        data = self._pipe.read_some(min(self._left, len(buffer)))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def drain(self) -> None:
        """Takes in what is left, so that the sender comes to the end and hears the answer."""
        while self._left:
            self._left -= len(self._pipe.read_some(min(self._left, 1 << 20)))


class _Channel:
    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.pipe = wire.BlockingPipe(fd, _PATIENCE_S)
        self.terms: tuple[Signature, Task, tuple[str, ...]] | None = None
        self.caller: Caller | None = None


class _Child:
    def __init__(self, options: ChildOptions, control_fd: int) -> None:
        self._options = options
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=control_fd)
        self._control_fd = control_fd
        self._channels: dict[int, _Channel] = {}
        self._estimator: Any = None
        self._loaded = False
        self._handlers: dict[str, Callable[[_Channel, dict[str, Any], bytearray], None]] = (
            {"hello": self._hello, "infer": self._infer}
            if options.purpose is Purpose.SERVE
            else {options.purpose.value: {"inspect": self._inspect, "compile": self._compile, "prove": self._prove}[options.purpose.value]}
        )

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._control_fd, select.POLLIN)
        alone_since = time.monotonic()
        while self._channels or time.monotonic() - alone_since < _ALONE_S:
            for fd, _ in poll.poll(1_000):
                if fd == self._control_fd:
                    for new in self._take_channels():
                        poll.register(new, select.POLLIN)
                elif not self._serve(self._channels[fd]):
                    poll.unregister(fd)
                    del self._channels[fd]
                    os.close(fd)
                    alone_since = time.monotonic()

    def _take_channels(self) -> list[int]:
        data, ancillary, _, _ = self._control.recvmsg(16, socket.CMSG_SPACE(16 * 4), socket.MSG_DONTWAIT)
        if not data:
            os._exit(0)  # the zygote is gone
        taken = []
        for _, _, packed in ancillary:
            for low in typed_array("i", packed[: len(packed) // 4 * 4]):
                fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)
                os.close(low)
                self._channels[fd] = _Channel(fd)
                taken.append(fd)
        return taken

    def _serve(self, channel: _Channel) -> bool:
        """Answers one frame; False where the channel is done with."""
        try:
            header, body = channel.pipe.read_frame()
            self._handlers[header["op"]](channel, header, body)
        except (wire.Hangup, KeyError):
            return False
        return True

    def _hello(self, channel: _Channel, header: dict[str, Any], _: bytearray) -> None:
        """Takes the terms of this client (two versions may share an artifact) and the artifact, where it is not loaded yet."""
        channel.terms = (Signature.from_json(header["signature"]), Task(header["task"]), tuple(header["classes"]))
        if not self._loaded:
            channel.pipe.write(wire.frame({"ok": True, "loaded": False}))
            request, _ = channel.pipe.read_frame()  # nobody else is served meanwhile: there is nothing to serve yet
            self._load(channel, int(request["size"]))
        try:
            channel.caller = Caller(self._estimator, *channel.terms)
        except CallFailed as error:
            channel.pipe.write(wire.frame({"ok": False, "error": str(error)}))
        else:
            channel.pipe.write(wire.frame({"ok": True, "loaded": True}))

    def _load(self, channel: _Channel, size: int) -> None:
        artifact = _Artifact(channel.pipe, size)
        try:
            self._estimator = load(io.BufferedReader(artifact, 1 << 16), self._options.trust).object
            settle(self._estimator)
        except wire.Hangup:
            raise
        except BaseException as error:  # noqa: BLE001  a stranger's artifact may raise anything
            artifact.drain()
            channel.pipe.write(wire.frame({"ok": False, "error": self._explain(error)}))
            os._exit(0)  # what a half-loaded artifact left behind serves nobody
        artifact.drain()
        self._loaded = True
        gc.collect()
        gc.freeze()

    def _infer(self, channel: _Channel, header: dict[str, Any], body: bytearray) -> None:
        caller = channel.caller
        if caller is None:
            raise wire.Hangup("no hello")
        try:
            scores = caller(wire.decode_batch(header, body))
        except BaseException as error:  # noqa: BLE001  a stranger's estimator may raise anything
            failed = {"id": header["id"], "ok": False, "error": self._explain(error), "output": isinstance(error, CallFailed)}
            channel.pipe.write(wire.frame(failed))
            return
        parts = [array.tobytes() for array in (scores.labels, scores.probabilities, scores.values) if array is not None]
        answer = {"id": header["id"], "ok": True, "probabilities": scores.probabilities is not None}
        channel.pipe.write(wire.frame(answer, sum(len(part) for part in parts)), *parts)

    def _inspect(self, channel: _Channel, header: dict[str, Any], body: bytearray) -> None:
        artifact = _Artifact(channel.pipe, int(header["size"]))
        request = InspectionRequest.from_json(orjson.loads(body))
        try:
            report = inspect_artifact(io.BufferedReader(artifact, 1 << 16), self._options.trust, request).to_json()
        except wire.Hangup:
            raise
        except BaseException as error:  # noqa: BLE001  a stranger's artifact may raise anything
            report = {"failure": self._explain(error)}
        artifact.drain()
        channel.pipe.write(wire.frame({"ok": True, "report": report}))
        os._exit(0)

    def _compile(self, channel: _Channel, header: dict[str, Any], body: bytearray) -> None:
        from app.prediction.worker.compiling import first

        artifact = _Artifact(channel.pipe, int(header["size"]))
        try:
            estimator = load(io.BufferedReader(artifact, 1 << 16), self._options.trust).object
            artifact.drain()
            answer, parts = first.answer(estimator, header, orjson.loads(body))
        except wire.Hangup:
            raise
        except BaseException as error:  # noqa: BLE001  a stranger's artifact may raise anything
            artifact.drain()
            answer, parts = {"reasons": [self._explain(error)]}, []
        channel.pipe.write(wire.frame(answer, sum(map(len, parts))), *parts)
        os._exit(0)

    def _prove(self, channel: _Channel, header: dict[str, Any], body: bytearray) -> None:
        from app.prediction.worker.compiling import second

        try:
            answer, parts = second.answer(header, body)
        except BaseException as error:  # noqa: BLE001  onnxruntime's errors share no base
            answer, parts = {"reason": self._explain(error)}, []
        channel.pipe.write(wire.frame(answer, sum(map(len, parts))), *parts)
        os._exit(0)

    def _explain(self, error: BaseException) -> str:
        if isinstance(error, MemoryError):
            return f"It needs more memory than a model may use here ({self._options.limits.memory_bytes >> 20} MiB)."
        if isinstance(error, LoadRefused | CallFailed):
            return short(str(error))
        return short(f"{type(error).__name__}: {error}")
