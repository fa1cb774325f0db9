"""`tinyllm why`: five lines on any run folder, exit code 2 on what is none."""

import json
import shutil

import pytest

from tinyllm.commands.main import main


@pytest.fixture
def run(here, tiny_run):
    assert main([*tiny_run, "--steps", "30"]) == 0
    return here / "my run"


def said(capsys, *words):
    capsys.readouterr()
    assert main(["why", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_at_most_five_lines_that_end_in_a_command_that_works(run, capsys, contents):
    before = contents(run)
    lines = said(capsys, "my run")
    assert 3 <= len(lines) <= 5
    assert lines[0].startswith("Too early to say: training loss ")
    assert lines[-2] == "Try: more steps, the loss was still falling:"
    assert lines[-1].endswith("tinyllm pretrain --run 'my run' --resume --steps 60")
    assert contents(run) == before
    assert main(["pretrain", "--run", "my run", "--resume", "--steps", "60"]) == 0


def test_metrics_and_config_alone_are_enough(run, here, capsys):
    (here / "copy").mkdir()
    for name in ("metrics.jsonl", "config.json"):
        shutil.copy(run / name, here / "copy")
    assert said(capsys, "copy")[0] == said(capsys, "my run")[0]
    (here / "copy" / "metrics.jsonl").unlink()
    assert said(capsys, "copy")[0].startswith("Too early to say: ")


def test_json_says_the_same_to_programs(run, capsys):
    lines = said(capsys, "my run")
    (answer,) = said(capsys, "my run", "--json")
    answer = json.loads(answer)
    assert answer["verdict"] == "too early to say"
    assert answer["cause"] is None
    assert [*answer["lines"], answer["command"]] == lines


def test_the_report_says_it_too(run, capsys):
    for line in said(capsys, "my run")[:-1]:
        assert line.split(";")[0] in (run / "report.html").read_text(encoding="utf-8")


def test_the_command_for_a_new_run_can_be_typed(run, here, capsys):
    config = json.loads((run / "config.json").read_text())
    config["training"] |= {"learning_rate": 0.0}
    (run / "config.json").write_text(json.dumps(config))
    text = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) | {"learning_rate": 0.0} for line in text]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    lines = said(capsys, "my run")
    assert lines[1] == "Why: The learning rate is 0 at every step, so no weight changes."
    words = lines[-1].replace("'my run-2'", "again").split()
    assert main(words[words.index("pretrain") :]) == 0
    assert json.loads((here / "again" / "config.json").read_text())["training"]["learning_rate"] == 1e-3


def test_what_is_no_run_is_refused(refused, here, run):
    refused(["why", "nowhere"], "nowhere is not a run folder: it does not exist")
    (here / "empty").mkdir()
    refused(["why", "empty"], "empty is not a run folder: it has no config.json")
    refused(["why", "text.txt"], "text.txt is not a run folder: it is a file")
    (run / "config.json").write_text("{")
    refused(["why", "my run"], "my run/config.json is not valid JSON")


def test_a_damaged_line_is_named(refused, run):
    (run / "metrics.jsonl").write_text('{"step": 1}\nno\n')
    refused(["why", "my run"], "line 2 of my run/metrics.jsonl is not valid JSON")
