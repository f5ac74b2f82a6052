"""Whole training runs on a tiny model: what they leave behind, that they can be resumed, and how they fail."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orpo.command.errors import ModelError, SettingsError, TrainingError
from orpo.command.output_folder import UNFINISHED_NAME
from orpo.command.paths import newest_adapter
from orpo.records.messages import user_message
from orpo.records.pairs import PreferencePair
from orpo.records.replies import Sampling
from orpo.scoring import get_scorer
from orpo.training.run import TrainingResult, train
from orpo.training.settings import TrainSettings
from tests.training.small_models import settings_from

LOSSES = ("loss", "grad_norm", "nll_loss", "log_odds_chosen", "rewards/margins", "eval_loss", "reward/sampled")


def make_settings(model: Path, data: Path, out: Path, **changes: Any) -> TrainSettings:
    """Return settings for a run of eight small steps."""
    defaults: dict[str, Any] = {
        "trainer": "trl",  # tests/test_train.py runs the other one
        "learning_rate": 1e-2,
        "batch_size": 2,
        "max_steps": 8,
        "eval_steps": 4,
        "logging_steps": 1,
        "eval_share": 0.2,
        "eval_prompt_count": 2,
        "reward_pairs": 2,
        "max_new_tokens": 4,
        "dtype": "float32",
        "lora_dropout": 0.1,
        "device": "cpu",
    }
    return settings_from(model=str(model), data=str(data), out=out, **{**defaults, **changes})


def save_pairs(file: Path, rows: Sequence[PreferencePair]) -> None:
    """Write pairs as a user has them."""
    file.write_text("".join(json.dumps(row.as_row()) + "\n" for row in rows), encoding="utf-8")


def twelve_pairs(folder: Path, pair: Any) -> Path:
    """Return a file of twelve pairs, each with a prompt of its own."""
    data = folder / "pairs.jsonl"
    save_pairs(data, [pair(f"Question {number}?", f"Answer {number} 🎉", f"Answer {number}") for number in range(12)])
    return data


@pytest.fixture(scope="module")
def finished(
    tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory, pair: Any
) -> tuple[TrainingResult, Path]:
    """Return a finished run and its data file."""
    folder = tmp_path_factory.mktemp("run")
    data = twelve_pairs(folder, pair)
    return train(make_settings(tiny_model_folder, data, folder / "trained" / "run")), data


def history(folder: Path, step: int) -> list[dict[str, Any]]:
    """Return what a checkpoint remembers of the run, without times."""
    state = json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text(encoding="utf-8"))
    return [{key: entry[key] for key in (*LOSSES, "step") if key in entry} for entry in state["log_history"]]


def test_four_bit_weights_are_refused_where_they_have_no_gradient(
    tiny_model_folder: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """On a CPU the loss rose from 1.29 to 1.65 within six steps: bitsandbytes' repacked weights have no backward."""
    settings = make_settings(tiny_model_folder, pairs_file, tmp_path / "out", quantize="4bit", device="cpu")
    with pytest.raises(SettingsError, match=r"quantize 4bit.*CUDA"):
        train(settings)


def test_a_run_leaves_adapter_tokenizer_card_record_and_checkpoints(finished: tuple[TrainingResult, Path]) -> None:
    folder = finished[0].folder
    present = {path.name for path in folder.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md", "run.json"} <= present
    assert {"chat_template.jinja", "checkpoint-4", "checkpoint-8", "tensorboard"} <= present
    assert UNFINISHED_NAME not in present
    assert newest_adapter(folder.parent) == folder
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["facts"]["steps"] == 8 and record["data_fingerprint"] and record["device"] == "cpu"
    assert record["metrics"]["replies/emoji_rate"].keys() == {"first", "last"}
    assert "R(chosen)" in (folder / "README.md").read_text(encoding="utf-8")


def test_the_adapter_answers_through_the_loader_of_inference(finished: tuple[TrainingResult, Path]) -> None:
    from orpo.chat_model.adapters import load_with_adapter
    from orpo.chat_model.chat_template import encode_prompt, encode_text
    from orpo.chat_model.generation import generate_replies
    from orpo.chat_model.log_probs import completion_log_probs

    model, tokenizer = load_with_adapter(None, finished[0].folder, device="cpu", dtype="float32")
    sampling, asked = Sampling(max_new_tokens=3), [user_message("Question 1?")]
    (reply,) = generate_replies(model, tokenizer, asked, sampling, seed=0)
    assert 1 <= reply.tokens <= 3
    prompt, answer = encode_prompt(tokenizer, asked[0]), encode_text(tokenizer, "Answer 1 🎉")
    ((tuned, _),) = completion_log_probs(model, [prompt], [answer])
    with model.disable_adapter():
        ((base, _),) = completion_log_probs(model, [prompt], [answer])
    assert tuned > base, "a chosen reply is likelier than before the training"


def test_tensorboard_holds_losses_rewards_emoji_rate_and_replies(finished: tuple[TrainingResult, Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished[0].folder / "tensorboard"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    names = ("loss", "nll_loss", "log_odds_ratio", "learning_rate", "grad_norm", "tokens_per_second")
    rewards = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
    assert {f"train/{name}" for name in (*names, *rewards)} <= scalars
    assert {"eval/loss", "eval/rewards/margins", "replies/emoji_rate", "reward/chosen", "reward/sampled"} <= scalars
    parts = get_scorer("tasteful").explain("Well done! 🎉", "I passed my exam!").parts
    assert {f"score/{name}" for name in ("total", *parts)} <= scalars
    assert [event.step for event in events.Scalars("replies/emoji_rate")] == [0, 4, 8]
    assert [event.step for event in events.Scalars("eval/loss")] == [0, 4, 8]
    assert "replies/text_summary" in events.Tags()["tensors"]


def test_a_killed_run_resumes_with_the_losses_of_an_uninterrupted_one(
    finished: tuple[TrainingResult, Path], tiny_model_folder: Path, tmp_path: Path
) -> None:
    """The folder as `kill -9` between steps 4 and 8 leaves it, a checkpoint half written among it."""
    result, data = finished
    folder = tmp_path / "killed"
    folder.mkdir()
    for name in ("checkpoint-4", "tensorboard"):
        shutil.copytree(result.folder / name, folder / name)
    shutil.copy(result.folder / "settings.json", folder)
    (folder / "checkpoint-6").mkdir()
    (folder / UNFINISHED_NAME).write_text('{"process": 999999999, "host": "elsewhere"}')
    resumed = train(make_settings(tiny_model_folder, data, folder, resume=True))
    assert history(folder, 8) == history(result.folder, 8)
    assert resumed.metrics["loss"] == result.metrics["loss"]
    ours, theirs = (path / "adapter_model.safetensors" for path in (folder, result.folder))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_run_killed_after_its_last_step_only_has_to_be_finished(
    finished: tuple[TrainingResult, Path], tiny_model_folder: Path, tmp_path: Path
) -> None:
    result, data = finished
    folder = tmp_path / "killed"
    folder.mkdir()
    shutil.copytree(result.folder / "checkpoint-8", folder / "checkpoint-8")
    shutil.copy(result.folder / "settings.json", folder)
    (folder / UNFINISHED_NAME).write_text("")
    resumed = train(make_settings(tiny_model_folder, data, folder, resume=True))
    assert resumed.counts["steps"] == 8 and resumed.metrics == result.metrics
    ours, theirs = (path / "adapter_model.safetensors" for path in (folder, result.folder))
    assert ours.read_bytes() == theirs.read_bytes()


def test_resuming_with_another_setting_is_refused(
    finished: tuple[TrainingResult, Path], tiny_model_folder: Path, tmp_path: Path
) -> None:
    from orpo.command.errors import InputError

    result, data = finished
    folder = tmp_path / "killed"
    folder.mkdir()
    shutil.copy(result.folder / "settings.json", folder)
    (folder / UNFINISHED_NAME).write_text("{}")
    with pytest.raises(InputError, match="`learning_rate`"):
        train(make_settings(tiny_model_folder, data, folder, resume=True, learning_rate=1e-3))
    assert (folder / "settings.json").is_file()


def test_an_absurd_learning_rate_stops_the_run_and_keeps_its_checkpoints(
    tiny_model_folder: Path, pairs_file: Path, tmp_path: Path
) -> None:
    settings = make_settings(
        tiny_model_folder, pairs_file, tmp_path / "run", learning_rate=1e30, save_steps=1, warmup_share=0.0
    )
    with pytest.raises(TrainingError, match="learning rate") as caught:
        train(settings)
    assert "checkpoints are kept" in str(getattr(caught.value, "__notes__", []))
    assert not (tmp_path / "run" / "run.json").exists()
    from safetensors.torch import load_file

    weights = load_file(next((tmp_path / "run").glob("checkpoint-*")) / "adapter_model.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


def test_a_failed_run_gives_the_earlier_result_back(tiny_model_folder: Path, pairs_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    settings = make_settings(tiny_model_folder, pairs_file, folder, overwrite=True, lora_targets=["no_such_layer"])
    with pytest.raises(SettingsError, match=r"lora_targets no_such_layer: .*q_proj"):
        train(settings)
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_a_tokenizer_that_does_not_fit_the_model_is_told(
    tiny_model_folder: Path, pairs_file: Path, tmp_path: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = tmp_path / "small"
    shutil.copytree(tiny_model_folder, model)
    config = LlamaConfig.from_pretrained(tiny_model_folder, vocab_size=100)
    LlamaForCausalLM(config).save_pretrained(model)
    with pytest.raises(ModelError, match="does not fit the model, which has 100"):
        train(make_settings(model, pairs_file, tmp_path / "run"))


def test_pairs_longer_than_the_models_context_name_the_limit(
    tiny_model_folder: Path, tmp_path: Path, pair: Any
) -> None:
    from orpo.command.errors import InputError

    data = tmp_path / "long.jsonl"
    rows = [pair(f"Question {number}?", "word 🎉 " * 150, "word") for number in range(3)]
    save_pairs(data, rows)
    with pytest.raises(InputError, match=r"row 1 has \d+ tokens, and the model's context holds 512"):
        train(make_settings(tiny_model_folder, data, tmp_path / "run", max_length=4096))


def test_training_needs_no_evaluation(tiny_model_folder: Path, pairs_file: Path, tmp_path: Path) -> None:
    settings = make_settings(
        tiny_model_folder,
        pairs_file,
        tmp_path / "run",
        eval_share=0.0,
        eval_prompt_count=0,
        max_steps=2,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
    )
    result = train(settings)
    assert result.counts["evaluation"] == 0 and "eval_loss" not in result.metrics and "loss" in result.metrics


def test_a_run_killed_before_its_first_checkpoint_measures_step_0_again(
    tiny_model_folder: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """`--resume` without a checkpoint skipped the evaluation before the first step."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    train(make_settings(tiny_model_folder, pairs_file, straight))
    killed.mkdir()
    shutil.copy(straight / "settings.json", killed)
    (killed / UNFINISHED_NAME).write_text("{}")
    train(make_settings(tiny_model_folder, pairs_file, killed, resume=True))
    assert history(killed, 8) == history(straight, 8)
    assert any(entry["step"] == 0 and "eval_loss" in entry for entry in history(killed, 8))


def test_a_damaged_newest_checkpoint_is_named_and_the_older_one_is_taken(
    finished: tuple[TrainingResult, Path], tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file cut in half ended in exit 70 though an older checkpoint was whole."""
    result, data = finished
    folder = tmp_path / "damaged"
    folder.mkdir()
    for name in ("checkpoint-4", "checkpoint-8"):
        shutil.copytree(result.folder / name, folder / name)
    optimizer = folder / "checkpoint-8" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[: optimizer.stat().st_size // 2])
    shutil.copy(result.folder / "settings.json", folder)
    (folder / UNFINISHED_NAME).write_text("{}")
    train(make_settings(tiny_model_folder, data, folder, resume=True))
    said = capsys.readouterr().err
    assert "checkpoint-8 is damaged" in said and "going on from checkpoint-4" in said
    ours, theirs = (path / "adapter_model.safetensors" for path in (folder, result.folder))
    assert ours.read_bytes() == theirs.read_bytes()


def test_an_adapter_is_trained_further_and_stays_a_small_step_from_where_it_was(
    finished: tuple[TrainingResult, Path], tmp_path: Path, tiny_model_folder: Path
) -> None:
    from safetensors.torch import load_file

    from orpo.command.errors import InputError

    result, data = finished
    changes: dict[str, Any] = {"from_adapter": result.folder, "max_steps": 1, "learning_rate": 1e-6}
    settings = make_settings(tiny_model_folder, data, tmp_path / "further", **changes, warmup_share=0.0)
    further = train(settings)
    before, after = (load_file(path / "adapter_model.safetensors") for path in (result.folder, further.folder))
    assert before.keys() == after.keys()
    moved = [float((after[name] - before[name]).abs().max()) for name in before]
    assert 0 < max(moved) < 1e-4, "a fresh adapter would be far from it"
    with pytest.raises(InputError, match="was trained on"):
        train(make_settings(Path("other/model"), data, tmp_path / "else", **changes))


def test_an_adapter_with_numbers_that_are_not_finite_is_refused(
    finished: tuple[TrainingResult, Path], tmp_path: Path, tiny_model_folder: Path
) -> None:
    from safetensors.torch import load_file, save_file

    result, data = finished
    broken = tmp_path / "broken"
    shutil.copytree(result.folder, broken, ignore=shutil.ignore_patterns("checkpoint-*"))
    weights = load_file(broken / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, broken / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="not finite"):
        train(make_settings(tiny_model_folder, data, tmp_path / "further", from_adapter=broken))


def test_the_rate_and_the_verdict_are_kept_and_few_pairs_are_told(
    tiny_model_folder: Path, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings(
        tiny_model_folder, pairs_file, tmp_path / "run", learning_rate=None, max_steps=1, method="dpo", trainer="fast"
    )
    result = train(settings)
    facts = json.loads((result.folder / "run.json").read_text(encoding="utf-8"))["facts"]
    assert facts["learning_rate"]["value"] == pytest.approx(0.1 * 5e-4 * (2000 / 32) ** 0.781)
    assert "LoRA Without Regret" in facts["learning_rate"]["source"] and facts["verdict"] == result.verdict
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    assert "DPO (Rafailov" in card and result.verdict[1:] in card
    assert "pairs to train on; under 200" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize("trainer", ["fast", "trl"])
def test_a_run_on_a_gpu_learns_in_bfloat16(
    trainer: str, tiny_model_folder: Path, pairs_file: Path, tmp_path: Path
) -> None:
    changes = {"trainer": trainer, "device": "cuda", "dtype": "bfloat16"}
    result = train(make_settings(tiny_model_folder, pairs_file, tmp_path / "out", **changes))
    record = json.loads((result.folder / "run.json").read_text(encoding="utf-8"))
    assert record["device"].startswith("cuda") and record["peak_gpu_memory_mb"] > 0
    assert result.metrics["loss"]["last"] < result.metrics["loss"]["first"]
