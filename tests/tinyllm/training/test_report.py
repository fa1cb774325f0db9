import html.parser
import json
import math
import re
import sys

import numpy as np
import pytest

from tinyllm.errors import UserError
from tinyllm.training.metrics import SAMPLES, MetricsLog
from tinyllm.training.report import (
    BASELINES,
    SAMPLE_CHARACTERS,
    duration,
    megabytes,
    quantity,
    write_report,
)
from tinyllm.training.report_curves import running_mean, thinned

EXPECTED = {"low": 1.9, "high": 2.1, "unit": "bits_per_byte"}
CONFIG = {
    "format_version": 1,
    "preset": "small",
    "model": {"hidden_size": 64, "tie_word_embeddings": True, "attention": {"bias": None}},
    "training": {"steps": 40, "batch_size": 8, "context": 64, "learning_rate": 0.001},
    "tokenizer": {"kind": "bpe", "vocab_size": 4096, "hash": "ab12"},
    "corpus": {"name": "tales", "sha256": "cd34", "training_bytes": 2_000_000, "validation_bytes": 900},
    "machine": {"python": "3.11", "numpy": "2.0", "blas": "openblas", "threads": 2, "platform": "Linux"},
    "num_parameters": 803_000,
    "expected": EXPECTED,
}
SUMMARY = {
    "bits_per_byte": {"unigram": 4.5, "trigram": 2.5, "lzma": 2.75, "model": 2.0},
    "known_words": {"share": 0.975, "words": 1200},
    "longest_copy": {"words": 7, "text": "and <they> all lived happily ever after"},
    "total_seconds": 8000,
}
HOSTILE = "</pre></script><script>alert('x')</script><img src=x onerror=y>&lt;\x00\x1b[31m\ud800\u202e\"'"
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(html.parser.HTMLParser):
    """Fails on unbalanced tags; collects the text, the tags and the ids."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.ids, self.attributes, self.text = [], [], [], [], ""
        self.feed(page)
        self.close()
        assert not self.open
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data


@pytest.fixture
def run(tmp_path):
    return a_run(tmp_path / "run")


def a_run(folder, *, config=CONFIG, summary=SUMMARY, steps=40, losses=None, samples=((0, "Once", " zq"),)):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    with MetricsLog(folder) as log:
        for step in range(1, steps + 1):
            loss = (losses or {}).get(step, 8 * math.exp(-step / 10))
            rates = {"learning_rate": 0.001 / step, "gradient_norm": 100 / step**1.5, "tokens_per_second": 5e4 + step}
            rates["seconds"] = 20.0 * step
            log.append({"step": step, "split": "train", "loss_nats": loss, **rates})
            if step % 10 == 0:
                log.append({"step": step, "split": "validation", "loss_nats": 1 + 10 / step, "bits_per_byte": 2.125})
    with MetricsLog(folder, SAMPLES) as log:
        for step, prompt, text in samples:
            log.append({"step": step, "prompt": prompt, "text": text})
    return folder


def page_of(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def no_matplotlib(monkeypatch):
    for name in ["matplotlib", *(name for name in sys.modules if name.startswith("matplotlib."))]:
        monkeypatch.setitem(sys.modules, name, None)


def test_a_full_run_is_told_in_full(run):
    page = page_of(run)
    text = " ".join(page.text.split())
    for part in (
        "small on tales",
        "2.000 bits per byte",
        "0.80 million",
        "40 of 40",
        "2.00 MB",
        "900 bytes",
        "1.250 nats per token",
        "13 min 20 s",
        "2 h 13 min",
        "50,020 tokens/s",
        "Expected of this preset on this text: 1.900 to 2.100 bits per byte.",
        "This run reached 2.000: within it",
        "Guessing costs ln(4,096) = 8.32",
        "Of the 1,200 words in the samples, 97.5% occur in the corpus.",
        "7 words in a row, and <they> all lived happily ever after.",
        "Linux, threads: 2, Python 3.11, NumPy 2.0, openblas",
        "SHA-256 cd34",
        f"tinyllm generate --model {run} --prompt Once",
        f"tinyllm pretrain --run {run} --resume --steps 80",
    ):
        assert part in text
    assert page.tags.count("svg") == 4
    assert "not finished" not in text


@pytest.mark.parametrize(
    ("stage", "kept"), [(0, "a copy of weights"), (2, "a part of gradients and of the optimizer's")]
)
def test_a_run_on_ranks_says_what_they_kept_and_how_long_they_waited(tmp_path, stage, kept):
    model = CONFIG["model"] | {"max_position_embeddings": 100}
    machine = CONFIG["machine"] | {"threads": {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}}
    config = CONFIG | {"model": model, "parallel": {"zero": stage, "ranks": 4}, "machine": machine}
    folder = a_run(tmp_path / "run", config=config)
    assert "Trained by 4 ranks, each with " + kept in page_of(folder).text
    assert "threads: OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1, Python" in page_of(folder).text
    with MetricsLog(folder) as log:  # 8 samples of 100 tokens: two seconds, and one
        for step, speed, waited in ((41, 400.0, 0.5), (42, 800.0, 0.25)):
            record = {"step": step, "split": "train", "loss_nats": 1.0, "tokens_per_second": speed}
            log.append(record | {"waited_seconds": waited, "message_bytes": 1_200_000})
    text = page_of(folder).text
    assert f"(stage {stage} of ZeRO). Messages of a step come to 1.20 MB; 25% of its time the first rank waited" in text


def test_a_run_of_one_process_says_nothing_of_ranks(tmp_path):
    folder = a_run(tmp_path / "run", config=CONFIG | {"parallel": {"zero": 2, "ranks": 1}})
    assert "Trained by" not in page_of(folder).text


def test_nothing_outside_the_page_is_needed(run):
    page = page_of(run)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    addresses = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(address.startswith("#") for address in addresses)
    assert {address[1:] for address in addresses} <= set(page.ids)
    source = (run / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"<]+", source)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert set(re.findall(r"url\((.*?)-", source)) <= {
        "#loss_nats",
        "#learning_rate",
        "#gradient_norm",
        "#tokens_per_second",
    }
    assert "@import" not in source


@pytest.mark.usefixtures("no_matplotlib")
def test_the_yardsticks_are_sorted_and_drawn_to_scale(run):
    page = page_of(run)
    bars = [value for name, value in page.attributes if name == "style"][:4]
    assert bars == ["width:100.0%", "width:61.1%", "width:55.6%", "width:44.4%"]
    labels = [page.text.index(BASELINES[name][0]) for name in ("unigram", "lzma", "trigram", "model")]
    assert labels == sorted(labels)


@pytest.mark.usefixtures("no_matplotlib")
@pytest.mark.parametrize(
    ("model", "steps", "verdict"),
    [
        (1.8, 40, "better than that. Make sure"),
        (1.9, 40, "within it."),
        (2.2, 40, "worse than that. Usual causes"),
        (2.2, 30, "not there yet, with steps"),
        (1.95, 30, "within it."),
    ],
)
def test_the_verdict(tmp_path, model, steps, verdict):
    summary = SUMMARY | {"bits_per_byte": {"model": model}}
    text = page_of(a_run(tmp_path / "run", summary=summary, steps=steps)).text
    assert f"This run reached {model:.3f}: {verdict}" in text
    assert ("30 of 40 steps were taken" in text) == (steps == 30)


@pytest.mark.usefixtures("no_matplotlib")
def test_an_expected_loss_is_compared_with_the_last_validation(tmp_path):
    config = CONFIG | {"expected": EXPECTED | {"low": 1.25, "high": 1.25, "unit": "loss_nats"}}
    text = page_of(a_run(tmp_path / "run", config=config)).text
    assert "1.250 to 1.250 nats per token" in text
    assert "This run reached 1.250: within it." in text


@pytest.mark.usefixtures("no_matplotlib")
def test_an_expectation_before_any_score(tmp_path):
    text = page_of(a_run(tmp_path / "run", summary=None, steps=5)).text
    assert "This run has not been scored yet." in text


@pytest.mark.usefixtures("no_matplotlib")
def test_without_a_summary_the_last_validation_speaks(tmp_path):
    text = page_of(a_run(tmp_path / "run", config=CONFIG | {"expected": None}, summary=None)).text
    assert "2.125 bits per byte" in text
    assert "No yardsticks were measured" in text
    assert "No expected range is recorded" in text
    assert "words in the samples" not in text


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    page = page_of(tmp_path)
    for part in (
        "A model without a preset on an unnamed corpus",
        "Nothing has been measured yet",
        "has not been scored yet",
        "Too few measurements for curves",
        "No samples were written",
        "The machine was not recorded",
        "hash was not recorded",
    ):
        assert part in page.text
    assert "tinyllm generate" not in page.text


@pytest.mark.usefixtures("no_matplotlib")
def test_empty_parts_are_as_good_as_none(tmp_path):
    config = dict.fromkeys(CONFIG)
    summary = dict.fromkeys(SUMMARY)
    assert "No yardsticks were measured" in page_of(a_run(tmp_path / "run", config=config, summary=summary)).text


def test_one_step_is_too_few_for_curves(tmp_path):
    assert "Too few measurements for curves" in page_of(a_run(tmp_path / "run", steps=1)).text


@pytest.mark.parametrize(
    ("losses", "notice"),
    [({7: math.nan}, "not a finite number at step 7."), ({7: math.inf, 9: math.nan}, "2 times, first at step 7.")],
)
def test_what_was_not_finite_is_said_and_left_out(tmp_path, losses, notice):
    page = page_of(a_run(tmp_path / "run", losses=losses))
    assert notice in page.text
    assert page.tags.count("svg") == 4
    assert not any("nan" in value or "inf" in value for name, value in page.attributes if name in ("d", "aria-label"))


def test_a_run_of_nothing_but_nan(tmp_path):
    page = page_of(a_run(tmp_path / "run", losses=dict.fromkeys(range(50), math.nan), steps=9, summary=None))
    assert "has not been scored yet" in page.text
    assert page.tags.count("svg") == 3  # all but the loss


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_all_but_the_curves(run):
    page = page_of(run)
    assert 'pip install "tinyllm[plot]"' in page.text
    assert "svg" not in page.tags
    assert "7 words in a row" in page.text


def test_drawing_leaves_no_trace(run):
    import matplotlib

    pyplot = "matplotlib.pyplot" in sys.modules
    with matplotlib.rc_context({"lines.linewidth": 7.5}):
        before = dict(dict.items(matplotlib.rcParams))
        write_report(run)
        assert dict(dict.items(matplotlib.rcParams)) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_the_same_run_gives_the_same_page(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_charts_have_words_and_the_colours_of_the_page(run):
    page = page_of(run)
    words = [value for name, value in page.attributes if name == "aria-label"]
    assert words[0] == (
        "Loss in nats per token: training from 7.239 at step 1 to 0.1465 at step 40, lowest 0.1465, highest 7.239; "
        "held out from 2 at step 10 to 1.25 at step 40, lowest 1.25, highest 2."
    )
    source = (run / "report.html").read_text(encoding="utf-8")
    assert "#00000" not in source
    assert "var(--accent)" in source.split("</style>")[1]


def test_text_from_outside_is_never_markup(tmp_path):
    config = CONFIG | {"preset": HOSTILE, "corpus": CONFIG["corpus"] | {"name": HOSTILE}, "machine": {"blas": HOSTILE}}
    config["model"] = {HOSTILE: {"deep": [HOSTILE]}}
    summary = SUMMARY | {"longest_copy": {"words": 2, "text": HOSTILE}}
    samples = [(0, HOSTILE, HOSTILE), (40, HOSTILE, HOSTILE)]
    page = page_of(a_run(tmp_path / "run", config=config, summary=summary, samples=samples))
    assert not {"script", "img"} & set(page.tags)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    shown = HOSTILE.replace("\x00", "␀").replace("\x1b", "␛").replace("\ud800", "\ufffd").replace("\u202e", "\ufffd")
    assert page.text.count(shown) >= 8


@pytest.mark.usefixtures("no_matplotlib")
def test_before_and_after_stand_side_by_side(tmp_path):
    samples = [
        (0, "A", " qx"),
        (0, "A", " vw"),
        (0, "B", " only"),
        (20, "A", " mid"),
        (40, "A", " end"),
        (40, "A", " fin"),
    ]
    page = page_of(a_run(tmp_path / "run", samples=samples))
    order = [page.text.index(part) for part in ("A qx", "A end", "A mid", "A vw", "A fin", "B only")]
    assert order == sorted(order)
    assert page.text.count("Before training") == 3
    assert page.text.count("After 40 steps") == 2
    assert page.text.count("1 in between") == 1


@pytest.mark.usefixtures("no_matplotlib")
def test_a_very_long_sample_is_cut(tmp_path):
    page = page_of(a_run(tmp_path / "run", samples=[(0, "", "y" * 9999)]))
    assert "y" * SAMPLE_CHARACTERS + "…" in page.text
    assert "y" * (SAMPLE_CHARACTERS + 1) not in page.text


@pytest.mark.usefixtures("no_matplotlib")
@pytest.mark.parametrize(
    ("copy", "words"),
    [({"words": 0, "text": ""}, "No word of the samples"), ({"words": 1, "text": "a"}, "one word, a.")],
)
def test_copies(tmp_path, copy, words):
    assert words in page_of(a_run(tmp_path / "run", summary={"longest_copy": copy})).text


@pytest.mark.usefixtures("no_matplotlib")
def test_an_unfinished_run_resumes(tmp_path):
    folder = a_run(tmp_path / "a run's", steps=30, samples=[(0, "It's\n", "")])
    text = page_of(folder).text
    quoted = "'" + str(folder).replace("'", "'\"'\"'") + "'"
    assert f"--run {quoted} --resume\n" in text + "\n"
    assert "--prompt 'It'\"'\"'s'" in text
    assert "--steps" not in text


@pytest.mark.usefixtures("no_matplotlib")
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "samples.jsonl", "summary.json"])
def test_a_damaged_file_is_named_and_the_old_report_stays(run, name):
    before = write_report(run).read_bytes()
    (run / name).write_text("{\n")
    with pytest.raises(UserError, match=re.escape(name)):
        write_report(run)
    assert (run / "report.html").read_bytes() == before


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        write_report(tmp_path)


def test_a_running_mean_has_no_lag_and_reaches_the_ends():
    line = np.arange(20.0)
    np.testing.assert_allclose(running_mean(line, 4), line)
    np.testing.assert_allclose(running_mean(np.array([0.0, 3.0, 0.0]), 1), [0, 1, 0])


@pytest.mark.parametrize("count", [1, 2, 249, 250, 251, 10_000])
def test_thinning_keeps_extremes_and_the_last_step(count):
    values = np.random.default_rng(0).normal(size=count)
    steps, low, high, mean = thinned(np.arange(count), values)
    assert len(steps) == len(low) == len(high) == len(mean) == min(count, 250)
    assert (low.min(), high.max(), steps[-1]) == (values.min(), values.max(), count - 1)


def test_quantities():
    assert [duration(x) for x in (None, 0, 4.25, 60, 3599, 3600)] == [
        None,
        0,
        "4.2 s",
        "1 min 0 s",
        "59 min 59 s",
        "1 h 0 min",
    ]
    assert [quantity(x) for x in (None, 99_999, 1_234_567)] == [None, "99,999", "1.23 million"]
    assert [megabytes(x) for x in (None, 900, 22_345_678)] == [None, "900 bytes", "22.35 MB"]


def test_spikes_are_marked_and_told(tmp_path):
    folder = a_run(tmp_path / "run", steps=20)
    nan = {"op": "linear", "phase": "forward", "layer": "blocks.3.attention.query"}
    spikes = [
        {"step": 21, "split": "train", "loss_nats": 5.0, "spike": {"of": "loss_nats", "z": 9.25}},
        {"step": 22, "split": "train", "spike": {"of": "gradient_norm", "z": 14.2}, "skipped": "spike"},
        {"step": 23, "split": "roll-back", "to_step": 10, "spike": {"of": "loss_nats", "z": None}, "first_nan": nan},
    ]
    with MetricsLog(folder) as log:
        for record in spikes:
            log.append(record)
        for step in range(11, 16):
            log.append({"step": step, "split": "train", "loss_nats": 3.0, "gradient_norm": 1.0})
    page = page_of(folder)
    text = " ".join(page.text.split())
    rows = [
        "21</th><td>loss 9.2 standard deviations up</td><td>followed</td>",
        "22</th><td>gradient norm 14.2 standard deviations up</td><td>skipped</td>",
        "23</th><td>loss not a number <small>first in linear of blocks.3.attention.query, forward</small></td>"
        "<td>back to step 10, on the data after it</td>",
    ]
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert [row for row in rows if row not in html] == []
    assert "15 of 40" in text  # what was taken back does not count
    assert text.count("taken back") == 2  # on the curves of loss and gradient norm
    described = next(value for name, value in page.attributes if name == "aria-label" and value.startswith("Loss"))
    assert "taken back from 2.663 at step 11 to 5 at step 21" in described


def test_a_long_list_of_spikes_is_cut(tmp_path):
    folder = a_run(tmp_path / "run", steps=2)
    with MetricsLog(folder) as log:
        for step in range(3, 28):
            log.append({"step": step, "split": "train", "loss_nats": 5.0, "spike": {"of": "loss_nats", "z": 9.0}})
    text = " ".join(page_of(folder).text.split())
    assert text.count("standard deviations up") == 20
    assert "5 more are in metrics.jsonl" in text


def test_a_run_without_spikes_has_no_table_of_them(run):
    assert "pikes of the loss" not in page_of(run).text
