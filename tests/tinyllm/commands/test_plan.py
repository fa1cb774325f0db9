"""`tinyllm plan`: one page, the same numbers for programs, one line for a mistake."""

import json

import pytest

from tinyllm.commands.main import main
from tinyllm.training.presets import PRESETS


def said(capsys, *words):
    capsys.readouterr()
    assert main(["plan", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_plan(name, capsys):
    page = said(capsys, name)
    for title in ("Parameters P", "Memory of a rank", "Flops of a token", "Time of a step", "Price"):
        assert title in page


def test_page_and_json_have_the_same_numbers(capsys):
    words = ["gpt2-124m", "--hardware", "8xh100", "--zero", "2", "--precision", "bf16", "--batch-size", "64"]
    page, plan = said(capsys, *words), json.loads(said(capsys, *words, "--json"))
    assert plan["parameters"]["total"] == 124_439_808
    assert f"{plan['memory']['rank_bytes'] / 1e9:.2f} GB  of 80.0 GB: fits" in page
    assert f"{plan['messages']['count']:,}  each rank sends {plan['messages']['sent_bytes'] / 1e6:.0f} MB" in page
    assert f"{plan['time']['step_overlapped_seconds'] * 1e3:.1f} ms" in page
    assert plan["asked"]["kernels"] == "reference"


def test_options_change_the_plan(capsys):
    def asked(*words):
        return json.loads(said(capsys, "quickstart", "--json", *words))

    assert asked("--context", "64")["asked"]["context"] == 64
    assert asked("--vocab-size", "100")["asked"]["model"]["vocab_size"] == 100
    assert asked("--model.num-hidden-layers", "7")["asked"]["model"]["num_hidden_layers"] == 7
    assert asked("--recompute", "2")["asked"]["recomputed_blocks"] == 2
    assert asked("--recompute", "all")["asked"]["recomputed_blocks"] == 4
    assert asked("--tokens", "1e9")["tokens"]["planned"] == 1e9
    assert asked("--price", "3")["time"]["price_per_hour"] == 3
    assert asked("--ranks", "2", "--parallel.reduce-bucket", "50000")["messages"]["count"] > 20


def test_a_run_folder_has_a_plan_too(here, tiny_run, capsys):
    assert main([*tiny_run, "--steps", "1"]) == 0
    plan = json.loads(said(capsys, "--model-folder", "my run", "--json"))
    settings = json.loads((here / "my run" / "config.json").read_text())
    assert plan["parameters"]["total"] == settings["num_parameters"]
    assert plan["asked"]["model"] == settings["model"]
    assert plan["asked"]["batch_size"] == 2


def test_mistakes_are_one_line(here, refused):
    refused(["plan"], "plan needs a preset, one of: quickstart")
    refused(["plan", "gpt3"], "no preset is called 'gpt3'")
    refused(
        ["plan", "quickstart", "--ranks", "3"], "a batch of 16 samples does not divide by 3 ranks; --batch-size 15 does"
    )
    refused(["plan", "quickstart", "--hardware", "h10"], "no hardware is called 'h10'; did you mean 'h100'?")
    refused(["plan", "quickstart", "--batch-size", "-4"], "batch_size must be at least 1, not -4")
    refused(["plan", "quickstart", "--zero", "4"], "zero must be one of the stages 0, 1, 2 and 3, not 4")
    refused(["plan", "quickstart", "--price", "-1"], "--price must not be negative")
    refused(
        ["plan", "quickstart", "--model.hidden-size", "130"],
        "hidden_size 130 is not divisible by num_attention_heads 4",
    )
    refused(["plan", "--model-folder", "nowhere"], "nowhere is not a run folder")
    refused(
        ["plan", "quickstart", "--model-folder", "nowhere"],
        "a plan is of a preset or of --model-folder; leave one of them out",
    )
    refused(["plan", "quickstart", "--kernels", "cuda"], "--kernels")
