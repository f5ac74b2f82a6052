"""benchmarks/gpu.sh: the whole script on a CPU, in small, and that a shell would read it as it was meant."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_models import save_chat_model

SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_against_the_shell_scripts(repository: Path) -> None:
    scripts = [repository / "benchmarks" / "gpu.sh", *(repository / "recipes").rglob("*.sh")]
    done = subprocess.run([str(SHELLCHECK), *map(str, scripts)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def run_script(repository: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run gpu.sh with settings in its environment."""
    command = ["bash", str(repository / "benchmarks" / "gpu.sh")]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **settings}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1600)


def test_wrong_settings_are_one_line(repository: Path) -> None:
    refused = run_script(repository, DEVICE="tpu")
    assert refused.returncode == 2 and refused.stderr == "error: DEVICE=tpu: is cpu or cuda\n"


@pytest.mark.slow
def test_it_runs_to_its_end_on_a_cpu_and_records_what_fails(repository: Path, tmp_path: Path) -> None:
    """vLLM and flash attention are not there: their parts fail with their reasons, and the others have figures."""
    out, model = tmp_path / "gpu.json", save_chat_model(tmp_path / "model")
    done = run_script(repository, DEVICE="cpu", SIZE="tiny", MODEL=str(model), OUT=str(out), BUDGET="1500")
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["device"]["asked"] == "cpu" and found["versions"]["torch"] and found["code"]
    parts = found["parts"]
    assert list(parts) == [
        "losses", "steps", "replies", "steps-flex", "steps-fp32", "steps-qlora", "steps-flash", "replies-continuous",
        "replies-vllm",
    ]  # fmt: skip
    assert parts["losses"]["result"]["are_equal"] is True
    assert len(parts["losses"]["result"]["losses"]) == 3
    for name in ("steps", "steps-fp32"):
        (case,) = parts[name]["result"]["cases"]
        assert len(case["seconds"]) == 2 and all(median > 0 for median, *_ in case["seconds"].values())
    assert set(parts["replies"]["result"]["tokens_per_second"]) == {
        "transformers-bf16", "ours-bf16", "ours-bf16-adapter",
    }  # fmt: skip
    for part in parts.values():
        assert ("failure" in part) == (part["exit_code"] != 0)
        assert part["result"] is not None or part["failure"]
    assert "vllm" in parts["replies-vllm"]["failure"]


@pytest.mark.slow
def test_a_part_out_of_time_is_recorded_and_the_exit_code_tells(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = run_script(repository, DEVICE="cpu", SIZE="tiny", OUT=str(out), BUDGET="6", ONLY="losses steps")
    assert done.returncode == 1, done.stderr
    parts = json.loads(out.read_text(encoding="utf-8"))["parts"]
    assert parts["losses"]["failure"].startswith("stopped after 6 s")
    assert parts["steps"]["failure"].startswith("not begun")
