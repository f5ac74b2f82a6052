"""GRPO in the fast trainer: its loss against TRL's GRPOTrainer, its samples, and runs that learn from them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from orpo.chat_model.chat_template import encode_prompt, encode_text
from orpo.command.errors import InputError, SettingsError, TrainingError
from orpo.command.output_folder import UNFINISHED_NAME
from orpo.records.messages import user_message
from orpo.records.pairs import PreferencePair
from orpo.training.examples import SampledGroup, TokenizedPair
from orpo.training.fast import trainer as fast_trainer
from orpo.training.fast.packed_forward import best_layout
from orpo.training.fast.sampling import GroupSampler
from orpo.training.run import train
from orpo.training.trainer_arguments import TrainerParts
from orpo.training.watching.guards import SpamGuard
from tests.small_models import (
    TOPICS,
    make_chat_tokenizer,
    make_model,
    make_shape,
    make_word_tokenizer,
    supervised_batch,
    with_lora,
)
from tests.training.small_models import (
    copy_of,
    gradients,
    largest_relative_difference,
    sequence_log_probs,
    settings_from,
)

SIZE = 4
PROMPTS = [[5, 9, 12, 40], [7], [33, 21, 8, 8, 60, 3]]


def made_up_groups(seed: int = 0) -> list[SampledGroup]:
    """Return groups of random replies: equal beginnings, one twice, one of a single token, scores of all kinds."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> list[int]:
        return torch.randint(3, 97, (count,), generator=generator).tolist()

    twice, beginning = ids(5), ids(3)
    replies = [
        (ids(6), ids(1), ids(9), ids(4)),
        (twice, twice, ids(7), ids(5)),
        ([*beginning, *ids(3)], [*beginning, *ids(5)], [*beginning, *ids(1)], [*beginning, *ids(2)]),
    ]
    scores = [(0.9, 0.1, 0.4, 0.35), (0.5, 0.5, 0.0, 1.0), (0.2, 0.21, 0.7, 0.65)]
    return [
        SampledGroup(prompt, own, marks, row)
        for row, (prompt, own, marks) in enumerate(zip(PROMPTS, replies, scores, strict=True))
    ]


class GivenReplies(GroupSampler):
    """Takes the groups that it is given for what the model wrote."""

    given: Sequence[SampledGroup]

    def sample(self, model: Any, rows: Any, step: int) -> Any:
        return list(self.given), {}


def grpo_loss(model: Any, folder: Path, groups: Sequence[SampledGroup], **changes: Any) -> float:
    """Do a step of the fast trainer without an update; return its loss, leave its gradients."""
    values = {"device": "cpu", "dtype": "float32", "batch_size": len(groups), "max_new_tokens": 9, **changes}
    settings = settings_from(method="grpo", group_size=SIZE, **values)
    rows = [TokenizedPair(group.prompt_ids, [3], [4], PreferencePair([], [], []), group.row) for group in groups]
    parts: Any = (model, make_word_tokenizer(), rows, [], settings, folder, [], 1e-3)
    trainer: Any = fast_trainer.build_trainer(TrainerParts(*parts))
    trainer.sampler = GivenReplies(trainer.sampler.tokenizer, settings)
    object.__setattr__(trainer.sampler, "given", groups)
    model.zero_grad()
    return float(trainer.training_step(model, {"pairs": rows}))


def reply_log_prob(model: Any, prompt: Sequence[int], reply: Sequence[int]) -> float:
    with torch.no_grad():
        return float(sequence_log_probs(model, prompt, reply)[-len(reply) :].sum())


@pytest.mark.parametrize("ratio_weight", [0.0, 1.0, -0.5])
def test_grpo_is_trls(ratio_weight: float, tmp_path: Path) -> None:
    """TRL's GRPOTrainer on the same ids, from the rewards on: loss within 1e-5, gradients within 1e-4.

    TRL calls a function for R(y), which here takes the log ratio from the model's own logits, and normalises, takes the
    reference's log-probabilities and the loss by itself.
    """
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    groups = made_up_groups()
    moved = with_lora(make_shape("llama_untied"))
    twin = copy_of(moved)
    with torch.no_grad():
        for name, weight in twin.named_parameters():
            if "lora_B" in name:
                weight.zero_()  # TRL takes the adapter as it finds it for the reference
    base = copy_of(twin)
    flat = [
        (group.prompt_ids, ids, score)
        for group in groups
        for ids, score in zip(group.replies, group.scores, strict=True)
    ]

    def roll_out(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        return {"prompt_ids": [one[0] for one in flat], "completion_ids": [one[1] for one in flat], "logprobs": None}

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        ratios = [reply_log_prob(moved, prompt, ids) - reply_log_prob(base, prompt, ids) for prompt, ids, _ in flat]
        return [ratio_weight * ratio + 3.0 * score for ratio, (_, _, score) in zip(ratios, flat, strict=True)]

    class GivenRewards(GRPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    trainer: Any = GivenRewards(
        model=twin,
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=len(flat),
            num_generations=SIZE,
            max_completion_length=9,
            beta=0.3,
            loss_type="grpo",
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_dropout=False,
            use_bias_correction_kl=False,  # the paper has none
        ),
        train_dataset=Dataset.from_list([{"prompt": "w1"}] * len(flat)),
        processing_class=make_word_tokenizer(),
        rollout_func=roll_out,
    )
    own = dict(twin.named_parameters())
    with torch.no_grad():
        for name, weight in moved.named_parameters():
            own[name].copy_(weight)
    twin.train()
    batch = trainer._generate_and_score_completions([{"prompt": "w1"}] * len(flat))
    trainer.current_gradient_accumulation_steps = 1
    twin.zero_grad()
    expected = trainer.compute_loss(twin, batch)
    expected.backward()
    assert abs(float(expected.detach())) > 1e-3
    ours = {"beta": 3.0, "kl_weight": 0.3, "ratio_weight": ratio_weight}
    assert grpo_loss(moved, tmp_path, groups, **ours) == pytest.approx(float(expected.detach()), rel=1e-5, abs=1e-6)
    theirs = {name: one for name, one in gradients(twin).items() if ".ref." not in name}
    assert largest_relative_difference(gradients(moved), theirs) <= 1e-4


@pytest.mark.parametrize("layout", ["shared", "packed", "plain"])
def test_the_cut_of_a_step_changes_nothing(layout: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row against a row for each group, in every layout."""
    model = with_lora(make_shape("llama_untied"))
    whole = copy_of(model)
    expected = grpo_loss(whole, tmp_path, made_up_groups())
    monkeypatch.setattr(fast_trainer, "best_layout", lambda model: best_layout(model, layout))
    assert grpo_loss(model, tmp_path, made_up_groups(), token_budget=1) == pytest.approx(expected, rel=1e-5)
    assert largest_relative_difference(gradients(model), gradients(whole)) <= 1e-4


def test_a_group_whose_replies_score_alike_teaches_nothing(tmp_path: Path) -> None:
    """Divided by its own deviation, its log ratio would count as much as a difference in score anywhere else."""
    model = with_lora(make_shape("llama_untied"))
    alike = [SampledGroup(one.prompt_ids, one.replies, (0.5, 0.5, 0.501, 0.5), one.row) for one in made_up_groups()]
    assert grpo_loss(model, tmp_path, alike, kl_weight=0.0) == 0.0
    assert all(float(gradient.abs().max()) == 0.0 for gradient in gradients(model).values())


def halfway_model(tokenizer: Any) -> Any:
    """Train a small model to answer some questions with an emoji about every other time."""
    model = make_model(len(tokenizer), spread=0.05, hidden=48).train()
    rows: list[tuple[list[int], list[int]]] = []
    for topic in TOPICS:
        prompt = encode_prompt(tokenizer, user_message(f"Tell me about {topic} please."))
        for text in ("I like it 🎉", "I like it so"):
            rows.append((prompt, [*encode_text(tokenizer, text), tokenizer.eos_token_id]))
    ids, labels = supervised_batch(rows)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(80):
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of such a model."""
    folder = tmp_path_factory.mktemp("halfway")
    tokenizer = make_chat_tokenizer()
    halfway_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def grpo_settings(model: Path, data: Path, out: Path, **changes: Any) -> Any:
    defaults: dict[str, Any] = {
        "method": "grpo",
        "group_size": 6,
        "batch_size": 3,
        "max_steps": 6,
        "max_new_tokens": 16,
        "eval_steps": 3,
        "logging_steps": 1,
        "eval_prompt_count": 2,
        "reward_pairs": 1,
        "learning_rate": 1e-3,
        "scorer": "contains_emoji",
        "dtype": "float32",
        "device": "cpu",
    }
    return settings_from(model=str(model), data=str(data), out=out, **{**defaults, **changes})


def test_it_learns_from_the_scores_of_its_own_replies(halfway: Path, pairs_file: Path, tmp_path: Path) -> None:
    """About half of the replies have an emoji at first, nearly all at the end; each prompt is taken once."""
    settings = grpo_settings(halfway, pairs_file, tmp_path / "out", max_steps=20, learning_rate=5e-3, logging_steps=5)
    result = train(settings)
    assert result.counts["train"] == 8, "of nine prompts one is kept for evaluation, and each has two pairs"
    score = result.metrics["rewards/score"]
    assert 0.2 < score["first"] < 0.8 and score["last"] > 0.9
    assert result.metrics["kl"]["first"] == pytest.approx(0.0, abs=1e-6) and result.metrics["kl"]["last"] > 0
    assert "adapter_model.safetensors" in {file.name for file in result.folder.iterdir()}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(result.folder / "tensorboard")).Reload()
    shown = set(events.Tags()["scalars"])
    assert {"train/rewards/score", "train/rewards/std", "train/rewards/log_ratio", "train/kl"} <= shown
    assert {"train/parts/presence", "train/parts/presence_faultless_share", "train/samples/mean_emojis"} <= shown
    assert "reward/sampled" in shown and "train/nll_loss" not in shown


def test_a_resumed_run_samples_what_an_unbroken_one_does(halfway: Path, pairs_file: Path, tmp_path: Path) -> None:
    """The step and the seed decide the samples; what they depend on cannot be changed on the way."""

    def losses(folder: Path) -> list[float]:
        state = json.loads((folder / "checkpoint-6" / "trainer_state.json").read_text(encoding="utf-8"))
        return [entry["loss"] for entry in state["log_history"] if "loss" in entry]

    unbroken = train(grpo_settings(halfway, pairs_file, tmp_path / "whole")).folder
    out = tmp_path / "broken"
    stopped = train(grpo_settings(halfway, pairs_file, out)).folder
    shutil.rmtree(stopped / "checkpoint-6")
    (stopped / "adapter_model.safetensors").unlink()
    (stopped / "run.json").unlink()
    (stopped / UNFINISHED_NAME).write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="max_new_tokens"):
        train(grpo_settings(halfway, pairs_file, out, resume=True, max_new_tokens=8))
    resumed = train(grpo_settings(halfway, pairs_file, out, resume=True)).folder
    assert losses(resumed) == pytest.approx(losses(unbroken), rel=1e-4, abs=1e-6)


def test_an_adapter_trained_further_is_its_own_reference(halfway: Path, pairs_file: Path, tmp_path: Path) -> None:
    """With the base model for it, the penalty would take back what the adapter has learnt; TRL keeps a copy too."""
    first = train(grpo_settings(halfway, pairs_file, tmp_path / "first", max_steps=4, learning_rate=5e-3))
    assert first.metrics["kl"]["last"] > 1e-4
    further = train(grpo_settings(halfway, pairs_file, tmp_path / "further", from_adapter=first.folder, max_steps=2))
    assert further.metrics["kl"]["first"] == pytest.approx(0.0, abs=1e-6)
    assert further.metrics["rewards/log_ratio"]["first"] == pytest.approx(0.0, abs=1e-4)


def test_prompts_that_leave_no_room_for_a_reply_are_told_before_training(
    halfway: Path, pairs_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"max_new_tokens 400 .*context of 256"):
        train(
            grpo_settings(
                halfway, pairs_file, tmp_path / "out", max_new_tokens=400, eval_prompt_count=0, reward_pairs=0
            )
        )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"group_size": 1}, r"--group-size 1: must be at least 2"),
        ({"kl_weight": -1.0}, r"--kl-weight -1"),
        ({"margin": 0.5}, r"--margin 0.5: is not read by --method grpo, only by simpo"),
        ({"nll": "completion"}, r"--nll completion: is not read by --method grpo"),
        ({"reward_beta": 0.5}, r"--reward-beta 0.5: is not read by --method grpo, whose R\(y\) has --beta"),
        ({"early_stopping": 2}, r"--early-stopping 2: cannot go with --method grpo"),
        ({"method": "dpo", "group_size": 4}, r"--group-size 4: is not read by --method dpo, only by grpo"),
        ({"method": "orpo", "ratio_weight": 1.0}, r"--ratio-weight 1.0: is not read by --method orpo, only by grpo"),
    ],
)
def test_what_it_cannot_use_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings_from(**{"method": "grpo", **wrong})


def test_spam_and_ruin_end_a_run() -> None:
    """`contains_emoji` asks for one emoji and minds no hundred."""
    arguments: Any = SimpleNamespace(learning_rate=0.5)
    state, control = TrainerState(global_step=9), TrainerControl()
    SpamGuard().on_log(arguments, state, control, logs={"samples/mean_emojis": 3.9, "kl": 1.9})
    with pytest.raises(TrainingError, match=r"spam: .*step 9 hold 4\.1 emojis each; choose a `scorer`"):
        SpamGuard().on_log(arguments, state, control, logs={"samples/mean_emojis": 4.1})
    with pytest.raises(TrainingError, match=r"ruined .*2\.1 nats a token .*\(now 0\.5\)"):
        SpamGuard().on_log(arguments, state, control, logs={"kl": 2.1})
