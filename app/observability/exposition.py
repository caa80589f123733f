"""What `/metrics` says: the sum over all processes of the machine, living and dead, and what is read at the moment."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from app.observability.instruments import TENANT_LABELS, Kind, instruments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # Source: Prometheus documentation, "Exposition formats"
_LOCK = "lock"
METRICS_FOLDER = "run/metrics"  # below TURNOUT_HOME
_ARCHIVE = "0"  # no process of ours has this number
_PID = "_{}.db"


def exposition(folder: Path, *, with_tenants: bool, readings: Mapping[str, float] | None = None) -> bytes:
    """The text that Prometheus reads. Without `with_tenants` tenants, models and versions are added up and not named.

    `readings`: values of the instruments that nobody keeps, by name. With a thousand series and several processes this takes
    some tenths of a second: call it in a thread.
    """
    from prometheus_client import generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    with _locked(folder, fcntl.LOCK_SH):
        # A file is empty for a moment while its process makes it.
        files = [str(path) for path in sorted(folder.glob("*.db")) if path.stat().st_size]
        metrics: Iterable[Any] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
    known = {metric.name: metric for metric in metrics}
    order = [it.name.removesuffix("_total") for it in instruments()]
    shown = [known[name] for name in order if name in known]
    if not with_tenants:
        shown = [_without_tenants(metric) for metric in shown]
    return generate_latest(_Shown([*shown, *_read(readings or {})]))


def forget_process(folder: Path, pid: int) -> None:
    """The dead process's gauges are gone, its counts are kept in the archive. For the parent, once it has reaped `pid`."""
    with _locked(folder, fcntl.LOCK_EX):
        for path in folder.glob("*" + _PID.format(pid)):
            kind = path.name.partition("_")[0]
            if kind != "gauge":
                _archive(path, folder / f"{kind}{_PID.format(_ARCHIVE)}")
            path.unlink()


def fresh_folder(folder: Path) -> Path:
    """`folder`, made and emptied: all counts begin at zero with the service. For the parent, before it starts anybody."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.glob("*.db"):
        path.unlink()
    return folder


def _archive(dead: Path, archive: Path) -> None:
    """A new archive under a name of its own, then one rename: a reader sees it before or after."""
    from prometheus_client.mmap_dict import MmapedDict

    if not dead.stat().st_size:
        return
    draft = archive.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    total = MmapedDict(str(draft))  # type: ignore[no-untyped-call]
    for source in (archive, dead):
        if source.exists():
            for key, value, at, _ in MmapedDict.read_all_values_from_file(str(source)):  # type: ignore[no-untyped-call]
                total.write_value(key, total.read_value(key)[0] + value, at)  # type: ignore[no-untyped-call]
    total.close()  # type: ignore[no-untyped-call]
    draft.rename(archive)


def _without_tenants(metric: Any) -> Any:
    """`metric` with the labels that name tenants taken away and what then looks alike added up."""
    from prometheus_client.metrics_core import Metric

    sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for sample in metric.samples:
        key = (sample.name, tuple((name, value) for name, value in sample.labels.items() if name not in TENANT_LABELS))
        sums[key] = sums.get(key, 0.0) + sample.value
    summed = Metric(metric.name, metric.documentation, metric.type)
    for (name, labels), value in sums.items():
        summed.add_sample(name, dict(labels), value)
    return summed


def _read(readings: Mapping[str, float]) -> Iterator[Any]:
    from prometheus_client.metrics_core import GaugeMetricFamily

    for it in instruments():
        if it.kind is Kind.READING and it.name in readings:
            yield GaugeMetricFamily(it.name, it.help, readings[it.name])


class _Shown:
    """What generate_latest asks for its metrics."""

    def __init__(self, metrics: list[Any]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Any]:
        return self._metrics


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
