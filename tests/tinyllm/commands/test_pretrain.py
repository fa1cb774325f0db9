"""`tinyllm pretrain`: what it leaves, and that stopping it in any way costs nothing."""

import json
import os
import re
import signal
import time

import numpy as np
import pytest

from tinyllm.commands.hardware import COMPILING
from tinyllm.commands.main import main
from tinyllm.formats.arrays import read_arrays
from tinyllm.formats.run_folders import newest_checkpoint

POSIX = pytest.mark.skipif(os.name != "posix", reason="sends signals")
STEPS = ["--steps", "40", "--training.checkpoint-every", "10", "--training.evaluate-every", "7"]
STEPS += ["--training.sample-every", "15", "--model.dropout", "0.1"]
SLOW = """
import time
from tinyllm.data import RandomBatches
following = RandomBatches.__next__
RandomBatches.__next__ = lambda batches: (time.sleep({seconds}), following(batches))[1]
"""


def records(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def losses(folder):
    return [(record["split"], record["step"], record["loss_nats"]) for record in records(folder)]


def steps_done(folder):
    """How many steps metrics.jsonl has at this moment."""
    try:
        return (folder / "metrics.jsonl").read_bytes().count(b'"train"')
    except FileNotFoundError:
        return 0


def wait_for(process, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate(timeout=120)
        assert time.monotonic() < end
        time.sleep(0.005)


def same_run(one, two):
    """Equal to the last bit: every loss at every step, the weights and the optimizer at the end, the samples."""
    assert losses(one) == losses(two)
    assert (one / "samples.txt").read_text() == (two / "samples.txt").read_text()
    a, b = newest_checkpoint(one), newest_checkpoint(two)
    assert a.name == b.name
    for file in ("weights.safetensors", "optimizer.safetensors"):
        left, right = read_arrays(a / file), read_arrays(b / file)
        assert left.keys() == right.keys()
        for name, array in left.items():
            np.testing.assert_array_equal(array, right[name], err_msg=name)


@pytest.fixture
def through(here, tiny_run):
    """The folder of the same run, never interrupted."""
    assert main([*tiny_run, *STEPS, "--run", "through"]) == 0
    return here / "through"


def test_it_says_what_it_did_and_what_to_do_next(here, tiny_run, capsys):
    assert main([*tiny_run, *STEPS]) == 0
    printed = capsys.readouterr()
    assert printed.err in ("", f"{COMPILING}\n")  # said where these kernels were never used before
    assert "text.txt: 1 document, 1,960 bytes, sha256 " in printed.out
    assert "parameters, 1,764 training tokens, 40 steps; run folder my run" in printed.out
    *_, loss, report, following = printed.out.splitlines()
    last = records(here / "my run")[-1]
    assert loss == f"Held-out loss {last['loss_nats']:.4f} nats per token, {last['bits_per_byte']:.4f} bits per byte."
    assert report == f"Report: {os.path.join('my run', 'report.html')}"
    assert "tinyllm" in following
    for which in ([], ["--checkpoint", "best"], ["--checkpoint", "30"]):
        assert main(["generate", "--model", "my run", "--max-new-tokens", "3", *which]) == 0


def test_a_wordpiece_tokenizer_of_its_own(here, tiny_run, capsys):
    words = ["--tokenizer", "wordpiece", "--vocab-size", "45", "--steps", "4", "--training.sample-every", "2"]
    assert main([*tiny_run, *words]) == 0
    printed = capsys.readouterr().out
    said = "Its wordpiece tokenizer does not keep capitals, accents, line breaks and other white space, words it cannot"
    assert said in printed
    assert printed.index(said) < printed.index("Held-out loss")
    assert main(["pretrain", "--run", "my run", "--resume", "--steps", "5"]) == 0
    capsys.readouterr()
    assert main(["generate", "--model", "my run", "--prompt", "The old", "--max-new-tokens", "30"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("The old")
    assert "##" not in text
    for record in records(here / "my run", "samples.jsonl"):
        assert "##" not in record["text"]


def test_options_reach_the_run(here, tiny_run):
    assert main([*tiny_run, "--steps", "2", "--seed", "7", "--training.beta2", "0.9", "--model.norm", "rmsnorm"]) == 0
    config = json.loads((here / "my run" / "config.json").read_text())
    assert (config["training"]["seed"], config["training"]["beta2"], config["training"]["steps"]) == (7, 0.9, 2)
    assert (config["model"]["norm"], config["model"]["hidden_size"]) == ("rmsnorm", 16)


def test_another_optimizer_its_options_and_patterns_reach_the_run(here, tiny_run):
    words = "--steps 2 --training.optimizer muon --training.nesterov False --training.schedule wsd"
    patterns = (
        "--training.no-decay",
        "embedding.*",
        "--training.learning-rate-factors",
        "*.bias",
        "2",
        "*norm*",
        "0.5",
    )
    assert main([*tiny_run, *words.split(), *patterns]) == 0
    config = json.loads((here / "my run" / "config.json").read_text())["training"]
    assert (config["optimizer"], config["nesterov"], config["schedule"]) == ("muon", False, "wsd")
    assert (config["momentum"], config["beta1"]) == (None, None)  # muon's own
    assert config["no_decay"] == ["embedding.*"]
    assert config["learning_rate_factors"] == {"*.bias": 2.0, "*norm*": 0.5}
    before = (here / "my run" / "config.json").read_bytes()
    assert main(["pretrain", "--run", "my run", "--resume"]) == 0
    assert (here / "my run" / "config.json").read_bytes() == before
    assert main(["pretrain", "--run", "my run", "--resume", "--steps", "3"]) == 0
    assert steps_done(here / "my run") == 3


def test_a_run_of_another_optimizer_is_refused_and_nothing_is_lost(here, tiny_run, refused):
    assert main([*tiny_run, "--steps", "2", "--training.optimizer", "lion"]) == 0
    path = here / "my run" / "config.json"
    config = json.loads(path.read_text())
    config["training"]["optimizer"] = "adamw"
    path.write_text(json.dumps(config))
    message = "my run/checkpoints/step-000002 does not fit this run: it was made with optimizer lion, and config"
    refused(["pretrain", "--run", "my run", "--resume", "--steps", "3"], message)
    config["training"]["optimizer"] = "lion"
    path.write_text(json.dumps(config))
    assert main(["pretrain", "--run", "my run", "--resume", "--steps", "3"]) == 0


def test_the_folder_is_named_after_the_preset_unless_given(here, tiny_run):
    words = tiny_run[: tiny_run.index("--run")]
    assert main([*words, "--steps", "2"]) == 0
    assert (here / "runs" / "textbook" / "report.html").exists()
    assert main(["pretrain", "textbook", "--resume", "--steps", "3"]) == 0
    assert steps_done(here / "runs" / "textbook") == 3


@POSIX
@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "terminate"])
def test_ctrl_c_saves_and_resuming_gives_the_same_run(here, tiny_run, start, through, signal_sent):
    process = start([*tiny_run, *STEPS], SLOW.format(seconds=0.02))
    wait_for(process, lambda: steps_done(here / "my run") >= 13)
    process.send_signal(signal_sent)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert not err
    step = steps_done(here / "my run")
    assert 13 <= step < 40
    assert newest_checkpoint(here / "my run").name == f"step-{step:06d}"
    assert "stopping after this step" in out
    assert out.splitlines()[-1].startswith(f"Saved at step {step}. Go on with: ")
    assert out.splitlines()[-1].endswith("tinyllm pretrain --run 'my run' --resume")
    assert main(["pretrain", "--run", "my run", "--resume"]) == 0
    same_run(here / "my run", through)


@POSIX
def test_ctrl_c_twice_stops_at_once(here, tiny_run, start, through):
    process = start([*tiny_run, *STEPS], SLOW.format(seconds=2))
    wait_for(process, lambda: steps_done(here / "my run") >= 1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "tinyllm: interrupted\n")
    assert not (here / "my run" / "checkpoints").exists()
    assert main(["pretrain", "--run", "my run", "--resume"]) == 0
    same_run(here / "my run", through)


@POSIX
@pytest.mark.parametrize("step", [5, 24])
def test_kill_9_loses_only_what_came_after_the_last_checkpoint(here, tiny_run, start, through, capsys, step):
    process = start([*tiny_run, *STEPS], SLOW.format(seconds=0.01))
    wait_for(process, lambda: steps_done(here / "my run") >= step)
    process.kill()
    process.communicate(timeout=120)
    done = steps_done(here / "my run")
    capsys.readouterr()
    assert main(["pretrain", "--run", "my run", "--resume"]) == 0
    saved = done // 10 * 10
    assert f"my run: going on at step {saved} of 40" in capsys.readouterr().out
    assert [record["step"] for record in records(here / "my run") if record["split"] == "train"] == [*range(1, 41)]
    same_run(here / "my run", through)


def test_resuming_what_is_finished_changes_nothing(here, through, capsys, contents):
    before = contents(through)
    capsys.readouterr()
    assert main(["pretrain", "--run", "through", "--resume"]) == 0
    assert "through: all 40 steps are done; --steps N goes on to N" in capsys.readouterr().out
    assert contents(through) == before


def test_killed_between_the_last_checkpoint_and_the_last_evaluation(here, tiny_run, through, monkeypatch):
    from tinyllm.training.runs import Journal

    def killed(journal):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "final", killed)
        with pytest.raises(SystemExit):
            main([*tiny_run, *STEPS])
    assert main(["pretrain", "--run", "my run", "--resume"]) == 0
    same_run(here / "my run", through)


def test_seconds_go_on_where_they_stopped(here, through):
    before = [record["seconds"] for record in records(through)]
    assert before == sorted(before)
    assert main(["pretrain", "--run", "through", "--resume", "--steps", "45"]) == 0
    assert [record["seconds"] for record in records(through)][len(before)] >= before[-1]


def test_a_run_that_diverges_says_so_and_keeps_what_it_had(here, tiny_run, through, capsys):
    config = json.loads((through / "config.json").read_text())
    config["training"] |= {"steps": 60, "learning_rate": 1e38, "min_learning_rate": 1e38, "clip": 0.0}
    (through / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert main(["pretrain", "--run", "through", "--resume"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tinyllm: ")
    assert error.count("\n") == 1
    assert "lower learning rate" in error
    assert newest_checkpoint(through).name == "step-000040"


def test_debug_trains_the_same_weights_and_names_the_op_that_breaks(here, tiny_run, through, capsys):
    assert main([*tiny_run, *STEPS, "--debug"]) == 0
    same_run(here / "my run", through)
    capsys.readouterr()
    assert main([*tiny_run, "--run", "broken", "--debug", "--training.learning-rate", "1e25"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(r"made the first non-finite value, layer \w+.*called at \S+layers\.py:\d+, in \w+: ", error)
    assert "lower learning rate" in error


def test_inspect_shows_memory_and_time_of_a_step_and_changes_no_number(here, tiny_run, through, capsys):
    capsys.readouterr()
    assert main([*tiny_run, *STEPS, "--inspect"]) == 0
    shown = capsys.readouterr().out
    same_run(here / "my run", through)
    memory, time = shown.split("Memory of one step")[1].split("Time of one step")
    assert re.search(r"kept for backward +[\d.]+ kB, by \d+ recorded ops\n", memory)
    assert re.search(r"blocks\.\*\.attention +attention .* k float32\[", memory)
    assert re.search(r"\nlinear +\d+ +\d+ .* numba \d+\n", time)
    assert re.search(r"\nthe block .* 100\.0%\n", time)


def test_inspect_shows_what_the_array_code_keeps_too(here, tiny_run, capsys):
    assert main([*tiny_run, "--steps", "1", "--inspect", "--kernels", "reference"]) == 0
    memory, time = capsys.readouterr().out.split("Memory of one step")[1].split("Time of one step")
    assert re.search(r"blocks\.\*\.attention +rope .* cos float32\[16, 4\], sin float32\[16, 4\]", memory)
    assert re.search(r"\nlinear +\d+ +\d+ .* reference \d+\n", time)


def test_what_a_preset_has_switched_on_can_be_switched_off(here, tiny_run):
    assert main([*tiny_run, "--steps", "1", "--model.attention-bias", "False"]) == 0
    assert json.loads((here / "my run" / "config.json").read_text())["model"]["attention_bias"] is False


def test_help_explains_the_fields_of_a_preset(capsys):
    assert main(["pretrain", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Width of the feed-forward layer." in shown
    assert "Largest norm of the gradient; 0 for no clipping." in shown


def test_recompute_takes_a_number_or_a_word(refused):
    error = (
        "--training.recompute takes a whole number or one of 'none', 'all', not 'some' (see tinyllm pretrain --help)"
    )
    refused(["pretrain", "quickstart", "--training.recompute", "some"], error)
