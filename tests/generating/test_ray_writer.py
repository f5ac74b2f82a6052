"""Writers in the workers of a real Ray cluster, started here: the same replies, also when a worker is killed."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orpo.chat_model.settings import LocalModelSettings
from orpo.command.errors import InputError, ModelError, SettingsError
from orpo.generating.cluster import ClusterSettings
from orpo.generating.local_models import LoadedModels
from orpo.generating.reply_store import ReplyStore
from orpo.generating.settings import GenerateSettings, WriterSpec
from orpo.generating.stored_writer import Answer, WritingRun
from orpo.generating.writers import write_replies
from orpo.records.prompts import Prompt
from orpo.records.replies import Reply, Sampling

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of distilabel and ray, on their own ground
]
ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

WORDS = ["you", "are", "fine", "the", "day", "is", "good"]
PROMPTS = [Prompt(f"{first} {second}", f"{first} {second}") for first in WORDS for second in WORDS]
LOCAL = LocalModelSettings(device="cpu", batch_size=2)
CLUSTER = ClusterSettings(ray="local", ray_workers=2)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two workers fit; started once, since it takes some ten seconds."""
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def written(folder: Path, store: ReplyStore, cluster: ClusterSettings) -> tuple[list[Answer], WritingRun]:
    run = WritingRun(
        store=store,
        models=LoadedModels(LOCAL),
        sampling=Sampling(max_new_tokens=20),
        seed=1,
        local=LOCAL,
        cluster=cluster,
        example_count=0,
    )
    answers = write_replies(PROMPTS, [WriterSpec("plain", str(folder))], run)
    return [tries[0] for tries in answers["plain"]], run


@pytest.fixture(scope="module")
def alone(writer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    """What the model answers in this process."""
    store = ReplyStore(tmp_path_factory.mktemp("alone") / "replies.sqlite")
    answers, _ = written(writer_folder, store, ClusterSettings())
    store.close()
    return answers


def workers() -> list[psutil.Process]:
    """The processes that hold a writer."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any("RayWriter" in part for part in process.info["cmdline"] or ()):
            found.append(process)
    return found


def test_workers_write_what_one_process_writes(writer_folder: Path, alone: list[Answer], tmp_path: Path) -> None:
    store = ReplyStore(tmp_path / "replies.sqlite")
    answers, _ = written(writer_folder, store, CLUSTER)
    assert answers == alone and len(store) == len(PROMPTS)
    again, run = written(writer_folder, store, CLUSTER)
    assert again == alone and run.reused == {"plain": len(PROMPTS)}
    here, run = written(writer_folder, store, ClusterSettings())
    assert here == alone and run.reused == {"plain": len(PROMPTS)}, "the store does not care who wrote"


def test_a_killed_worker_costs_no_reply_and_none_is_kept_twice(
    writer_folder: Path, alone: list[Answer], tmp_path: Path
) -> None:
    store = ReplyStore(tmp_path / "replies.sqlite")
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            for process in workers()[:1]:
                process.kill()
                killed.append(process.pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    answers, _ = written(writer_folder, store, CLUSTER)
    killer.join(1)
    assert killed and answers == alone and len(store) == len(PROMPTS)
    assert all(isinstance(answer, Reply) for answer in answers)


def test_what_goes_wrong_in_a_worker_is_said_as_it_would_be_here(tmp_path: Path) -> None:
    store = ReplyStore(tmp_path / "replies.sqlite")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty"):
        written(tmp_path / "empty", store, CLUSTER)


def test_an_address_where_no_cluster_is_takes_one_line(writer_folder: Path, tmp_path: Path) -> None:
    from orpo.generating.ray_writer import connect

    with pytest.raises(InputError, match=r"no Ray cluster answers there") as caught:
        connect(ClusterSettings(ray="127.0.0.1:1"))
    assert caught.value.setting == "ray" and "\n" not in str(caught.value)


def test_a_cluster_without_a_writer_for_it_is_refused() -> None:
    with pytest.raises(SettingsError, match="--ray auto: is for models that workers load"):
        GenerateSettings(
            emoji_model="place",
            plain_model="openai:one",
            cluster=ClusterSettings(ray="auto"),
        )
