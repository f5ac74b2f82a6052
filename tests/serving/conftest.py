"""A real server on this machine with a small random model and two adapters, once for all tests of a file."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from orpo.chat_model.loading import load_model
from orpo.records.replies import Sampling
from orpo.serving.application import make_application
from orpo.serving.engine import Engine
from orpo.serving.guard import Admission
from orpo.serving.judgements import JudgementStore
from orpo.serving.models import Catalogue, ServedModels
from orpo.serving.service import Service
from orpo.serving.settings import Limits, ServedModelSettings
from tests import small_models

BASE_SETTINGS = ServedModelSettings(device="cpu", dtype="float32", batch_size=4)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_models.save_model(tmp_path_factory.mktemp("models") / "tiny")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def adapters(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters, one whose name torch's modules could not have."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in ((1, "first"), (2, "second-0.5")):
        base = load_model(str(model_folder), device="cpu", dtype="float32")
        small_models.add_adapter(base, seed=seed).save_pretrained(folder / name)
        record = {"command": "train", "finished": f"2026-01-0{3 - seed}T00:00:00+00:00"}
        (folder / name / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return {name: folder / name for name in ("first", "second-0.5")}


@pytest.fixture(scope="session")
def catalogue(model_folder: Path, adapters: dict[str, Path]) -> Catalogue:
    return Catalogue(str(model_folder), adapters)


@pytest.fixture(scope="session")
def engine(catalogue: Catalogue) -> Iterator[Engine]:
    ready = threading.Event()
    engine = Engine(
        lambda: ServedModels(catalogue, BASE_SETTINGS),
        slots=4,
        most_waiting=12,
        on_loaded=ready.set,
        on_failure=ready.set,
    )
    engine.start()
    assert ready.wait(120) and engine.failure is None, engine.failure
    yield engine
    engine.stop()
    assert engine.failure is None


@dataclass
class Served:
    """A running server."""

    service: Service
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running(service: Service, admission: Admission | None = None) -> Iterator[Served]:
    """Serve on a free port for the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        free.listen()
        app = make_application(service, admission or Admission("127.0.0.1"))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [free]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield Served(service, free.getsockname()[1])
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def service(catalogue: Catalogue, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    store = JudgementStore(tmp_path_factory.mktemp("store") / "judgements.sqlite")
    sampling, limits = Sampling(max_new_tokens=24), Limits(max_reply_tokens=400)
    yield Service(catalogue, engine, store, sampling, limits, BASE_SETTINGS)
    store.close()


@pytest.fixture(scope="module")
def served(service: Service) -> Iterator[Served]:
    with running(service) as server:
        yield server
