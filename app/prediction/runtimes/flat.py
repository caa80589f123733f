"""Compiled graphs as files that all processes of this machine map: onnxruntime's own flat format, made once from the checked bytes.

Such a file is ours, made here, and named by a seal over its content: it is looked at only after its bytes proved to be those that
this machine's service wrote. Where they are not, it is made again from the bytes in the database, which have a seal of their own.

onnxruntime (1.31) cannot leave a tensor in the file that is an attribute, as trees of 64-bit numbers have them; such files are mapped,
too, and their tensors copied. What it cannot write flat at all is served from the graph as it is. The file's suffix says which it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import hmac
import os
from typing import TYPE_CHECKING
from uuid import uuid4

import onnxruntime
import structlog

from app.errors import ModelFailed, ModelUnavailable
from app.registry.artifacts import FLAT_FOLDER

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from app.prediction.ports import CompiledGraphs
    from app.registry.ports import ArtifactSeal

_IN_PLACE, _COPIED, _GRAPH = ".ort", ".ortc", ".onnx"
_LOCK = ".making"
log = structlog.get_logger()


def session_options() -> onnxruntime.SessionOptions:
    """One thread, no memory kept between calls, nothing printed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # an arena keeps the largest batch's memory for ever
    options.log_severity_level = 4
    return options


def open_session(file: Path) -> onnxruntime.InferenceSession:
    """A session over a file of `FlatFiles`. Blocks; whatever onnxruntime raises comes out."""
    options = session_options()
    if file.suffix != _GRAPH:
        options.add_session_config_entry("session.load_model_format", "ORT")
        options.add_session_config_entry("session.use_memory_mapped_ort_model", "1")
    if file.suffix == _IN_PLACE:
        options.add_session_config_entry("session.use_ort_model_bytes_for_initializers", "1")
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


class FlatFiles:
    """Files below `folder`, one a graph, in the tenant's own folder; one a serving process, over files that all of them share."""

    def __init__(self, folder: Path, graphs: CompiledGraphs, seal: ArtifactSeal) -> None:
        self._folder = folder
        self._graphs = graphs
        self._seal = seal

    async def path(self, tenant_id: UUID, digest: str) -> Path:
        """The graph's file, its bytes checked; made where it is not there. The caller asks once at a time for a graph.

        Raises ModelUnavailable or Unavailable as the graphs' store does, and ModelFailed where onnxruntime cannot take the graph.
        """
        folder = self._folder / str(tenant_id) / FLAT_FOLDER
        found = await asyncio.to_thread(self._find, tenant_id, folder, digest)
        if found is not None:
            return found
        data = await self._graphs.bytes(tenant_id, digest)
        return await asyncio.to_thread(self._made, tenant_id, folder, digest, data)

    def _find(self, tenant_id: UUID, folder: Path, digest: str) -> Path | None:
        for path in folder.glob(f"{_stem(digest)}-*"):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile, for it was not used for long
                os.utime(path)  # it is not spare now
                if hmac.compare_digest(path.name, self._name(tenant_id, digest, path)):
                    return path
                log.error("flat_file_refused", digest=digest)
                path.unlink(missing_ok=True)
        return None

    def _made(self, tenant_id: UUID, folder: Path, digest: str, data: bytes) -> Path:
        """Made by one process at a time: two processes may write the same graph in two ways, and all are to map one file."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (folder / _LOCK).open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                return self._find(tenant_id, folder, digest) or self._make(tenant_id, folder, digest, data)
        except OSError as error:
            raise ModelUnavailable(f"The compiled model could not be written down: {error.strerror}.") from None

    def _make(self, tenant_id: UUID, folder: Path, digest: str, data: bytes) -> Path:
        graph = folder / f"{uuid4().hex}{_GRAPH}"
        try:
            graph.write_bytes(data)
            made = _best_form(graph)
            with made.open("rb") as file:
                os.fsync(file.fileno())
            path = folder / self._name(tenant_id, digest, made)
            made.replace(path)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  onnxruntime's own errors share no base
            log.warning("graph_not_taken", digest=digest, error=type(error).__name__, why=str(error)[:500])
            raise ModelFailed("The compiled model could not be loaded.") from None
        finally:
            for suffix in (_GRAPH, _IN_PLACE, _COPIED):
                graph.with_suffix(suffix).unlink(missing_ok=True)
        return path

    def _name(self, tenant_id: UUID, digest: str, path: Path) -> str:
        """What a file with these bytes must be called: graph, onnxruntime's version and seal."""
        with path.open("rb") as file:
            flat = hashlib.file_digest(file, "sha256").hexdigest()
            named = hashlib.sha256(f"flat/{_stem(digest)}/{flat}".encode()).hexdigest()  # so that no upload's seal fits
            seal = self._seal.artifact_mac(tenant_id, named, file.tell())
        return f"{_stem(digest)}-{seal.hex()}{path.suffix}"


def _best_form(graph: Path) -> Path:
    """The file beside `graph` that shares most and that can be loaded; raises where not even `graph` can."""
    flat = graph.with_suffix(_IN_PLACE)
    options = session_options()
    options.optimized_model_filepath = str(flat)
    options.add_session_config_entry("session.save_model_format", "ORT")
    with contextlib.suppress(Exception):  # the graph is tried as it is
        onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        try:
            open_session(flat)
        except Exception:  # noqa: BLE001  onnxruntime's own errors share no base
            flat = flat.rename(flat.with_suffix(_COPIED))
            open_session(flat)
        return flat
    open_session(graph)
    return graph


def _stem(digest: str) -> str:
    return f"{digest}-{onnxruntime.__version__}"
