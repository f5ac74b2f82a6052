"""The guard lets nothing infinite reach the weights, and Ctrl-C ends a run after the step at hand."""

import os
import signal
import threading
from contextlib import ExitStack, redirect_stderr, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from orpo.command.display import console_err
from orpo.command.errors import TrainingError
from orpo.records.replies import Reply
from orpo.training.watching.guards import FiniteGuard, RuinGuard, StopRequest
from orpo.training.watching.reply_probe import reply_figures
from orpo.training.watching.tensorboard import TensorBoardMonitor, ThroughputMonitor


def arguments(**changes: Any) -> Any:
    """Return what the callbacks read of TrainingArguments."""
    return SimpleNamespace(**{"fp16": False, "learning_rate": 0.5, **changes})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(value: float) -> None:
    model = torch.nn.Linear(2, 1)
    model.weight.grad = torch.tensor([[1.0, value]])
    state = TrainerState(global_step=6)
    with pytest.raises(TrainingError, match=r"gradient of step 7 .*learning rate \(now 0\.5\)"):
        FiniteGuard().on_pre_optimizer_step(arguments(), state, TrainerControl(), model=model)


def test_finite_gradients_and_losses_pass() -> None:
    model = torch.nn.Linear(2, 1)
    model.weight.grad = torch.ones(1, 2)
    guard = FiniteGuard()
    guard.on_pre_optimizer_step(arguments(), TrainerState(), TrainerControl(), model=model)
    guard.on_log(arguments(), TrainerState(), TrainerControl(), logs={"loss": 1.0, "eval_loss": 2.0})
    with pytest.raises(TrainingError, match="eval loss"):
        guard.on_log(arguments(), TrainerState(), TrainerControl(), logs={"eval_loss": float("nan")})


def test_a_model_that_is_ruined_stops_the_run_though_all_numbers_are_finite() -> None:
    """`--learning-rate 1e6` took the loss from 0.08 to 9 and the run ended well."""
    guard, state = RuinGuard(), TrainerState(global_step=9)
    guard.on_log(arguments(), state, TrainerControl(), logs={"logps/chosen": -2.0})
    guard.on_log(arguments(), state, TrainerControl(), logs={"logps/chosen": -3.9, "eval_logps/chosen": -1.0})
    with pytest.raises(TrainingError, match=r"ruined .* -2\.0, and has -4\.1 at step 9; .*\(now 0\.5\)"):
        guard.on_log(arguments(), state, TrainerControl(), logs={"logps/chosen": -4.1})
    resumed = TrainerState(log_history=[{"eval_logps/chosen": -1.0}])
    with pytest.raises(TrainingError, match="ruined"):
        RuinGuard().on_log(arguments(), resumed, TrainerControl(), logs={"eval_logps/chosen": -3.1})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    control = TrainerControl()
    with StopRequest() as stop:
        stop.on_step_end(arguments(), TrainerState(), control)
        assert not control.should_training_stop
        signal.raise_signal(number)
        assert stop.asked
        control.should_evaluate = True  # a run that went on lacked this evaluation, and its random numbers
        stop.on_step_end(arguments(), TrainerState(), control)
        assert (control.should_training_stop, control.should_save, control.should_evaluate) == (True, True, True)
        with pytest.raises(KeyboardInterrupt):
            stop.raise_if_asked()
    assert signal.getsignal(number) == before


def test_the_second_ctrl_c_does_not_wait() -> None:
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_run_that_is_stopped_does_not_wait_for_a_lock_that_nobody_gives_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second Ctrl-C as the writer's queue takes its lock leaves it taken: closing never ended."""
    monkeypatch.setattr("orpo.training.watching.tensorboard._CLOSING_SECONDS", 0.2)
    board = TensorBoardMonitor(tmp_path)
    board.on_train_begin(arguments(), TrainerState(), TrainerControl())
    assert board._writer is not None
    queue = board._writer._get_file_writer().event_writer._async_writer._byte_queue
    with pytest.raises(KeyboardInterrupt), ExitStack() as stack:
        stack.callback(board.close)
        queue.mutex.acquire()
        raise KeyboardInterrupt
    queue.mutex.release()


def test_ctrl_c_while_a_line_is_stuck_in_a_full_pipe_still_asks_for_the_stop() -> None:
    """The handler's own line met the one that was being written: `RuntimeError: reentrant call`, and exit 70."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    threading.Timer(1.0, os.read, (reading, 1 << 20)).start()
    with StopRequest() as stop, os.fdopen(writing, "w") as stream, redirect_stderr(stream):
        console_err.print("a line")
        assert stop.asked
    os.close(reading)


def test_throughput_counts_only_the_time_of_steps(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of 2 s with 100 tokens each, an evaluation of 10 s between them: 50 tokens/s."""
    clock = iter([0.0, 2.0, 12.0, 14.0])
    monkeypatch.setattr("orpo.training.watching.tensorboard.time.perf_counter", lambda: next(clock))
    monitor, state = ThroughputMonitor(TensorBoardMonitor(tmp_path)), TrainerState(log_history=[{"loss": 1.0}])
    for _ in range(2):
        monitor.on_step_begin(arguments(), state, TrainerControl())
        state.num_input_tokens_seen += 100
        monitor.on_step_end(arguments(), state, TrainerControl())
    monitor.on_log(arguments(), state, TrainerControl(), logs={"loss": 1.0})
    assert state.log_history[-1]["tokens_per_second"] == pytest.approx(50)


def test_reply_figures_by_hand() -> None:
    replies = [Reply("Hi 🎉🎉", True, 4), Reply("Hi", True, 2), Reply("Hi", False, 9), Reply("Yes 😊", True, 3)]
    assert reply_figures(replies) == {
        "replies/emoji_rate": 0.5,
        "replies/mean_emojis": 0.75,
        "replies/max_emojis": 2.0,
        "replies/commonest_share": 2 / 3,
        "replies/repeated_share": 0.0,
        "replies/distinct_share": 0.75,
        "replies/finished_share": 0.75,
        "replies/stray_share": 0.0,
    }
