"""Whatever the user does wrong: one line that says so, exit code 2, nothing overwritten, no second try blocked."""

import errno
import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tinyllm import files
from tinyllm.commands.main import main
from tinyllm.formats.run_folders import checkpoints, is_whole
from tinyllm.training import journal, runs
from tinyllm.training.metrics import MetricsLog
from tinyllm.training.run_lock import RunLock

STEPS = ("--steps", "4", "--training.checkpoint-every", "2", "--training.evaluate-every", "2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data nowhere.txt", "nowhere.txt is neither a corpus (python-reference, "),
        ("--data shakespear", "shakespear is neither a corpus (python-reference, python-stdlib, shakespeare, tinys"),
        ("--data empty.txt", "the corpus empty.txt is empty: there is no text in it; choose a file with text"),
        ("--data blank.txt", "the corpus blank.txt is empty"),
        ("--data short.txt", "the text has 13 tokens, and a context of 16 needs at least 17; give more text or a sh"),
        ("--data one.txt", "one.txt holds 1 character; a training and a validation part need at least 2"),
        ("--data latin.txt", "latin.txt is not UTF-8: byte 0xe9 at offset 3; convert it"),
        ("--data binary.txt", "binary.txt is binary or UTF-16 (it holds zero bytes); expected text in UTF-8"),
        ("--data nothing", "the folder nothing holds no files"),
        ("--data *.md", "no file matches the pattern *.md"),
        ("--tokenizer bpe --vocab-size 5000", "vocab_size is 5000, but these texts support only "),
        ("--tokenizer bpe --vocab-size 100", "vocab_size must be at least 257"),
        ("--tokenizer bpe --vocab-size 0", "vocab_size must be at least 257"),
        ("--tokenizer bpe --vocab-size -1", "vocab_size must be at least 257"),
        ("--tokenizer wordpiece --vocab-size 9", "vocab_size must be at least 33 (6 special tokens, and 27 letters "),
        ("--tokenizer bytes --vocab-size 300", "--vocab-size is for a bpe or wordpiece tokenizer that is trained here"),
        (
            "--tokenizer bites",
            "--tokenizer is bpe, wordpiece, character, bytes, gpt2, gpt4, gpt4o, or the folder or file "
            "of a trained tokenizer; 'b",
        ),
        ("--tokenizer nothing", "nothing/tokenizer.json does not exist"),
        ("--model.hidden-size 15", "hidden_size 15 is not divisible by num_attention_heads 2; change one of them"),
        ("--model.hidden-size 0", "hidden_size must be at least 1, not 0"),
        ("--model.hidden-size 99999999999999999999", "hidden_size must be below 2^31, not 999"),
        ("--model.num-key-value-heads -1", "num_key_value_heads must be at least 1"),
        ("--model.num-key-value-heads 3", "num_attention_heads 2 is not divisible by num_key_value_heads 3"),
        ("--model.head-dim -2", "head_dim must be at least 1"),
        ("--model.head-dim 3", "rope turns pairs of features, so the head width must be even, not 3"),
        ("--model.intermediate-size -1", "intermediate_size must be at least 1"),
        ("--model.sliding-window -2", "sliding_window must be at least 1"),
        ("--model.max-position-embeddings 9999", "the text has 1,764 tokens, and a context of 9999 needs at least 1"),
        ("--model.norm layernrm", "norm must be one of layernorm, rmsnorm, not 'layernrm'; did you mean 'layernorm'?"),
        ("--model.dropout 1", "dropout must be in [0, 1), not 1.0"),
        ("--model.layer-norm-epsilon -1", "layer_norm_epsilon must not be negative, infinite or NaN; it was -1.0"),
        ("--model.initializer-range nan", "initializer_range must not be negative, infinite or NaN; it was nan"),
        ("--model.rope-theta 0", "rope_theta must be positive and finite, not 0.0"),
        ("--steps -1", "steps must be at least 1, not -1"),
        ("--seed -1", "seed must be at least 0, not -1"),
        ("--training.batch-size 0", "batch_size must be at least 1, not 0"),
        ("--training.batch-size 3 --training.accumulation 2", "batch_size 3 is not divisible by accumulation 2"),
        ("--training.keep-checkpoints 0", "keep_checkpoints must be at least 1"),
        ("--training.evaluation-windows 0", "evaluation_windows must be at least 1"),
        ("--training.sample-tokens -1", "sample_tokens must be at least 0"),
        ("--training.warmup-steps -3", "warmup_steps must be at least 0"),
        ("--training.learning-rate nan", "learning_rate must not be negative, infinite or NaN; it was nan"),
        ("--training.min-learning-rate -1", "min_learning_rate must not be negative"),
        ("--training.clip inf", "clip must not be negative, infinite or NaN; it was inf"),
        ("--training.beta1 2", "beta1 must be in [0, 1), not 2.0"),
        ("--training.momentum 1", "momentum must be in [0, 1), not 1.0"),
        ("--training.optimizer adam", "optimizer must be one of adamw, sgd, lion, muon, adafactor, not 'adam'"),
        (
            "--training.optimizer lion --training.momentum 0.9",
            "momentum is an option of sgd, muon, not of lion, which has beta1, beta2; leave it out or choose another",
        ),
        ("--training.nesterov True", "nesterov is an option of sgd, muon, not of adamw"),
        ("--training.relative-step False", "relative_step is an option of adafactor, not of adamw"),
        (
            "--training.optimizer muon --training.adjust-lr adamw",
            "adjust_lr must be one of match_rms_adamw, original, n",
        ),
        ("--training.optimizer adafactor --training.update-clip 0", "update_clip must be positive and finite, not 0.0"),
        (
            "--training.schedule cosin",
            "schedule must be one of cosine, linear, constant, wsd, inverse_sqrt, warmup_lr, ",
        ),
        (
            "--deepspeed nowhere.json",
            "nowhere.json cannot be read (No such file or directory); --deepspeed takes a JSON",
        ),
        ("--deepspeed text.txt", "text.txt is not valid JSON: "),
        ("--training.decay-share 0.1", "decay_share is an option of the schedule wsd, not of cosine; leave it out"),
        ("--training.schedule wsd --training.decay-share 0", "decay_share must be in (0, 1], not 0.0"),
        (
            "--training.schedule constant --training.min-learning-rate 1e-5",
            "min_learning_rate is no option of the schedule constant, which falls to none; leave it out",
        ),
        ("--training.no-decay embeding.*", "no_decay: no parameter is called 'embeding.*'; did you mean 'embedding.we"),
        ("--training.learning-rate-factors blocks.* -1", "learning_rate_factors of 'blocks.*' must not be negative, i"),
        (
            "--training.learning-rate-factors blocks.*",
            "--training.learning-rate-factors takes a pattern and a number, ",
        ),
        ("--training.learning-rate-factors blocks.* x", "--training.learning-rate-factors takes a pattern and a numbe"),
        ("--model.hiden-size 8", "there is no option --model.hiden-size; did you mean --model.hidden-size?"),
        ("--training.learning-rat 1", "there is no option --training.learning-rat; did you mean --training.learning-r"),
        ("--modl.hidden-size 8", "there is no option --modl.hidden-size; did you mean --model.hidden-size?"),
        ("--training.learning-rate fast", "--training.learning-rate takes a number, not 'fast'"),
        ("--model.hidden-size 1e2", "--model.hidden-size takes a whole number, not '1e2'"),
        ("--steps 2.5", "--steps takes a whole number, not '2.5'"),
        ("--device gpu", "--device takes one of 'auto', 'cpu', 'cuda', not 'gpu'"),
        ("--precision fp61", "precision must be one of fp32, fp16, bf16, not 'fp61'; did you mean 'fp16'?"),
        ("--precision half", "precision must be one of fp32, fp16, bf16, not 'half'"),
        ("--kernels nmba", "--kernels nmba: no kernels named 'nmba' in this version; there are: reference"),
        ("--run text.txt", "text.txt is a file; a run needs a folder of its own"),
        ("--run text.txt/run", "text.txt/run: "),
        ("--run mine", "mine is not empty (it holds letter.txt); a run needs a folder of its own"),
        ("--resume", "--resume goes on as the run began; leave out --model.*, --training.*, --data, --tokenizer (--st"),
    ],
)
def test_a_wrong_pretrain_leaves_everything_as_it_was(here, tiny_run, refused, words, message):
    (here / "empty.txt").touch()
    (here / "blank.txt").write_text(" \n\t\n")
    (here / "short.txt").write_text("Short, short, s")
    (here / "one.txt").write_text("x")
    (here / "latin.txt").write_bytes("caf\xe9".encode("latin-1") * 99)
    (here / "binary.txt").write_bytes(b"\0\1\2" * 99)
    (here / "nothing").mkdir()
    (here / "mine").mkdir()
    (here / "mine" / "letter.txt").write_text("dear")
    refused([*tiny_run, *words.split()], message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pretrain", "pretrain needs a preset, one of: quickstart, "),
        ("pretrain textbok", "no preset is called 'textbok'; did you mean 'textbook'? There are: "),
        ("pretrain zzz", "no preset is called 'zzz'; there are: quickstart, "),
        ("pretrain --resume", "--resume needs the folder of the run: --run DIR"),
        ("pretrain --resume --run nowhere", "nowhere is not a run folder: it does not exist; train one with: tinyllm"),
        ("pretrain --resume --run text.txt", "text.txt is not a run folder: it is a file"),
        ("pretrain --resume --run .", ". is not a run folder: it has no config.json"),
        ("pretrain textbook --resume --seed 0", "--resume goes on as the run began; leave out --seed (--steps may"),
        ("pretrain --resume --run r --precision bf16", "--resume goes on as the run began; leave out --precision (--s"),
        ("generate", "missing: --model PATH"),
        ("generate --model nowhere", "nowhere is not a run folder: it does not exist"),
        ("generate --model text.txt", "text.txt is not a run folder: it is a file"),
        ("quickstart --data nowhere", "nowhere is neither a corpus ("),
        ("quickstart --data short.txt", "the text has "),
        ("quickstart --data text.txt --steps 0", "steps must be at least 1, not 0"),
        ("quickstart --data text.txt --seed -1", "seed must be at least 0, not -1"),
    ],
)
def test_a_wrong_command_leaves_everything_as_it_was(here, refused, words, message):
    (here / "short.txt").write_text("Too little.")
    (here / "runs").mkdir()
    refused(words.split(), message)


def test_a_file_that_may_not_be_read(here, tiny_run, capsys, monkeypatch):
    """Said by a stand-in: root may read anything, so a real file would not do everywhere."""

    def read_bytes(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert main(tiny_run) == 2
    error = capsys.readouterr().err
    assert error == "tinyllm: text.txt cannot be read (Permission denied); check its permissions or choose another\n"
    assert [path.name for path in here.iterdir()] == ["text.txt"]


def test_a_device_that_is_not_there(here, tiny_run, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    refused([*tiny_run, "--device", "cuda"], '--device cuda: device "cuda" needs CuPy: pip install')


def test_bf16_without_the_package_it_needs(tiny_run, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    refused([*tiny_run, "--precision", "bf16"], 'bf16 needs a NumPy with bfloat16: pip install "tinyllm[bf16]", or c')


def test_a_model_larger_than_the_memory(tiny_run, refused, monkeypatch):
    def decoder(*parts, **options):
        raise MemoryError("Unable to allocate 8.00 EiB")

    monkeypatch.setattr(runs, "Decoder", decoder)
    refused(tiny_run, "not enough memory: Unable to allocate 8.00 EiB; choose a smaller model, batch or context")


@pytest.mark.parametrize("command", ["pretrain shakespeare-char-cpu", "quickstart --data shakespeare"])
def test_no_network_for_a_downloaded_corpus(here, refused, monkeypatch, command):
    monkeypatch.delenv("TINYLLM_REFERENCE", raising=False)
    monkeypatch.setenv("TINYLLM_CACHE", "cache")
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (here / "cache").mkdir()
    refused(command.split(), "shakespeare could not be downloaded (")


@pytest.fixture
def trained(tiny_run, here):
    """A finished run of four steps, with checkpoints at 2 and 4."""
    assert main([*tiny_run, *STEPS]) == 0
    return here / "my run"


def test_a_run_folder_in_use_is_refused(tiny_run, trained, refused):
    refused(tiny_run, "my run holds a run already; go on with it: --resume, or choose another --run folder")
    refused(["pretrain", "--resume", "--run", "my run", "--steps", "3"], "my run has come to step 4; it cannot end at")
    refused(["pretrain", "quickstart", "--resume", "--run", "my run"], "my run holds a run of the preset textbook;")
    refused(["quickstart", "--data", "text.txt", "--run", "my run"], "my run holds another run; choose another folder")


def test_two_runs_in_one_folder(tiny_run, trained, refused):
    """This process stands for another that trains there."""
    lock = RunLock(trained)
    message = f"my run is in use by process {os.getpid()} on "
    refused(["pretrain", "--resume", "--run", "my run"], message)
    refused(["pretrain", "--resume", "--run", "my run", "--steps", "9"], message)
    refused([*tiny_run], "my run holds a run already")
    lock.release()
    assert main(["pretrain", "--resume", "--run", "my run"]) == 0


def test_a_run_that_another_is_just_beginning(here, tiny_run, refused):
    (here / "my run").mkdir()
    lock = RunLock(here / "my run")
    refused(tiny_run, f"my run is in use by process {os.getpid()} on ")
    lock.release()
    assert main([*tiny_run, *STEPS]) == 0


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("7", "my run has no checkpoint of step 7 (any more); there are those of: 2, 4"),
        ("latest", "a checkpoint is newest, best or the number of a step, not 'latest'"),
        ("-2", "a checkpoint is newest, best or the number of a step, not '-2'"),
        ("2", "my run/checkpoints/step-000002 is damaged; choose another"),
        ("best", "my run has no whole best checkpoint yet; "),
    ],
)
def test_a_checkpoint_that_is_not_there(trained, refused, which, message):
    (trained / "checkpoints" / "step-000002" / "weights.safetensors").write_bytes(b"")
    for path in trained.glob("checkpoints/best-*/weights.safetensors"):
        path.write_bytes(b"")
    refused(["generate", "--model", "my run", f"--checkpoint={which}"], message)


def test_another_optimizer_in_the_config_than_in_the_checkpoint(trained, refused):
    edited(trained / "config.json", "training", optimizer="sgd")
    message = "my run/checkpoints/step-000004 does not fit this run: it was made with optimizer adamw, and config.json"
    refused(["pretrain", "--resume", "--run", "my run"], message)


def test_a_tokenizer_that_lies_there_is_not_overwritten(here, tiny_run, refused):
    assert main(["tokenizer", "train", "--data", "text.txt", "--kind", "character", "--out", "my run/tokenizer"]) == 0
    refused(tiny_run, "my run is not empty (it holds tokenizer/tokenizer.json); a run needs a folder of its own")


def without(path, *keys):
    content = json.loads(path.read_text())
    for key in keys:
        del content[key]
    path.write_text(json.dumps(content))


def edited(path, part, **changes):
    content = json.loads(path.read_text())
    content[part] |= changes
    path.write_text(json.dumps(content))


DAMAGES = {
    "cut off": (lambda config: config.write_text("{"), "is not valid JSON"),
    "another project's": (lambda config: without(config, "format_version"), "is not the config of a tinyllm run"),
    "an unknown option": (
        lambda config: edited(config, "model", hidden=3),
        "a decoder has no option 'hidden'; did you",
    ),
    "a text for a number": (lambda config: edited(config, "model", hidden_size="3"), "describes no model ("),
    "another shape": (lambda config: edited(config, "model", hidden_size=8), "these weights are not this model's: "),
    "another vocabulary": (
        lambda config: edited(config, "model", vocab_size=99),
        "has 257 tokens, the model 99: it is",
    ),
    "newer": (
        lambda config: config.write_text('{"format_version": 99, "model": {}}'),
        "was written by a newer tinyllm",
    ),
    "no tokenizer": (lambda config: (config.parent / "tokenizer/tokenizer.json").unlink(), "does not exist"),
    "no weights": (lambda config: shutil.rmtree(config.parent / "checkpoints"), "has no whole checkpoint yet"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_named(trained, capsys, contents, damage):
    do, message = DAMAGES[damage]
    do(trained / "config.json")
    before = contents(trained)
    assert main(["generate", "--model", "my run"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("tinyllm: my run")
    assert error.count("\n") == 1
    if damage not in ("no weights", "another vocabulary"):
        assert main(["pretrain", "--resume", "--run", "my run"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert contents(trained) == before


@pytest.mark.parametrize("change", [{"stepz": 3}, {"steps": "many"}])
def test_a_training_config_that_is_none(trained, refused, change):
    edited(trained / "config.json", "training", **change)
    refused(["pretrain", "--resume", "--run", "my run"], "my run/config.json describes no training (")


def test_data_of_another_tokenizer_or_cut_short(trained, refused):
    tokens = trained / "data" / "training.tokens"
    whole = tokens.read_bytes()
    tokens.write_bytes(whole[:-1])
    refused(["pretrain", "--resume", "--run", "my run"], "my run/data/training.tokens is cut short or damaged")
    tokens.write_bytes(whole)
    shutil.rmtree(trained / "tokenizer")
    assert main(["tokenizer", "train", "--data", "text.txt", "--kind", "character", "--out", "my run/tokenizer"]) == 0
    refused(["pretrain", "--resume", "--run", "my run"], "my run/data/training.tokens was made with another tokenizer")


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", [lambda data: data[:-2], lambda data: bytes([data[0] ^ 1]) + data[1:], None])
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(trained, capsys, contents, file, damage):
    path = trained / "checkpoints" / "step-000004" / file
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    before = contents(trained)
    fault = "is missing" if damage is None else "has another checksum"
    fault = "cannot be read" if file == "state.json" else fault
    line = f"tinyllm: my run: step-000004 is damaged; using step-000002 (step-000004: {file} {fault})\n"
    capsys.readouterr()
    assert main(["generate", "--model", "my run", "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().err == line
    assert contents(trained) == before
    assert main(["pretrain", "--resume", "--run", "my run"]) == 0
    printed = capsys.readouterr()
    assert printed.err == line
    assert "my run: going on at step 2 of 4" in printed.out
    assert is_whole(trained / "checkpoints" / "step-000004")


def test_all_checkpoints_damaged_loses_nothing(trained, refused):
    for path in trained.glob("checkpoints/*/weights.safetensors"):
        path.write_bytes(b"")
    for words in (["pretrain", "--resume", "--run", "my run"], ["generate", "--model", "my run"]):
        refused(words, "my run has no whole checkpoint yet; 2 damaged: my run/checkpoints/step-000004")


class FullDisk:
    """In place of os.fsync: says that the disk is full once `after` returns true."""

    def __init__(self, monkeypatch, after=lambda: True):
        self.after, self.full = after, os.fsync
        monkeypatch.setattr(files.os, "fsync", self)

    def __call__(self, descriptor):
        if self.after():
            raise OSError(errno.ENOSPC, "No space left on device")
        self.full(descriptor)


def test_a_disk_that_is_full_at_the_start(here, tiny_run, refused, monkeypatch):
    with monkeypatch.context() as patch:
        FullDisk(patch)
        refused([*tiny_run, *STEPS], "the disk is full: my run/data/training.tokens was not written")
    assert main([*tiny_run, *STEPS]) == 0


def loss_by_step(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(record["split"], record["step"], record["loss_nats"]) for record in records]


def test_a_disk_that_fills_up_on_the_way(here, tiny_run, trained, capsys, monkeypatch):
    """Waited for in vain; tests/tinyllm/training/test_checkpoints.py has the disks that recover."""
    words = [*tiny_run, *STEPS, "--run", "other"]
    with monkeypatch.context() as patch:
        patch.setattr(journal, "PATIENCE_SECONDS", 0)
        FullDisk(patch, lambda: Path("other/checkpoints/.step-000004.unfinished").exists())
        capsys.readouterr()
        assert main(words) == 2
        printed = capsys.readouterr()
    assert printed.err == (
        "tinyllm: other cannot be written to (No space left on device); its newest checkpoint is step-000002, and what "
        "came after is lost; make room or let it be written to, then go on with --resume\n"
    )
    assert printed.out.count("cannot be written to") <= 2  # once when it happened, once at the end
    assert [path.name for path in checkpoints("other")] == ["step-000002"]
    assert is_whole(Path("other/checkpoints/step-000002"))
    assert main(["pretrain", "--resume", "--run", "other"]) == 0
    assert loss_by_step(here / "other") == loss_by_step(trained)


def test_a_disk_that_fills_up_within_a_line_of_metrics(here, tiny_run, trained, capsys, monkeypatch):
    full = []

    def write(file, line):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        if b'"step": 3' not in line:
            return file.write(line)
        full.append(True)
        return file.write(line[:5])

    def half(log):
        opened(log)
        log.file = SimpleNamespace(write=functools.partial(write, log.file), close=log.file.close)

    opened = MetricsLog.open
    with monkeypatch.context() as patch:
        patch.setattr(journal, "PATIENCE_SECONDS", 0)
        patch.setattr(MetricsLog, "open", half)
        capsys.readouterr()
        assert main([*tiny_run, *STEPS, "--run", "other"]) == 2
    assert capsys.readouterr().err.startswith("tinyllm: other cannot be written to (No space left on device); its newe")
    assert (here / "other" / "metrics.jsonl").read_bytes().endswith(b'\n{"ste')
    # There was room for the checkpoint of step 4, but it would have lacked the lines that lead to it.
    assert [path.name for path in checkpoints("other")] == ["step-000002"]
    assert main(["pretrain", "--resume", "--run", "other"]) == 0
    assert loss_by_step(here / "other") == loss_by_step(trained)


def on_a_small_disk(here, script):
    """Run sh in a name space of its own, where it may mount a disk of a megabyte on `here`; it goes at the end."""
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'
    if not shutil.which("unshare") or subprocess.run([*inside, mount, here, "true"], capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here; simulated ones are in training/test_checkpoints.py")
    (here.parent / "text.txt").write_bytes((here / "text.txt").read_bytes())
    command = [*inside, mount, here, "sh", "-c", f"cd {str(here)!r}; {script}"]
    return subprocess.run(command, capture_output=True, encoding="utf-8")


def test_a_real_full_disk(here, tiny_run):
    words = [*tiny_run, "--data", "../text.txt", "--model.hidden-size", "48", *STEPS]
    program = "from tinyllm.training import journal; journal.PATIENCE_SECONDS = 1\n"
    program += f"from tinyllm.commands.main import main; print(main({words!r}))"
    done = on_a_small_disk(here, f"{shlex.join([sys.executable, '-c', program])}; ls 'my run/checkpoints'")
    assert done.stderr.startswith(
        "tinyllm: my run cannot be written to (No space left on device); its newest checkpoin"
    )
    assert done.stderr.count("\n") == 1
    assert "2" in done.stdout.splitlines()
    assert "step-000002" in done.stdout.splitlines()
    assert "step-000004" not in done.stdout.splitlines()


def test_a_real_disk_that_is_full_for_a_while(here, tiny_run, trained):
    """Another program fills it after the first step and goes away after the third."""
    words = [*tiny_run, "--data", "../text.txt", *STEPS]
    program = f"""
from pathlib import Path
from tinyllm.training.journal import Journal
from tinyllm.commands.main import main
filler, after_step = Path("filler"), Journal.after_step
def act(journal, record):
    if record["step"] == 1:
        with open(filler, "wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(256))
                except OSError:
                    break
    after_step(journal, record)
    journal.checkpoints.wait()
    if record["step"] == 3:
        filler.unlink()
Journal.after_step = act
print("code", main({words!r}))
"""
    done = on_a_small_disk(here, f"{shlex.join([sys.executable, '-c', program])}; cp 'my run/metrics.jsonl' ..")
    assert not done.stderr
    assert "code 0" in done.stdout
    assert done.stdout.count("cannot be written to (No space left on device): training goes on") == 1
    assert done.stdout.count("can be written to again, and nothing is missing") == 1
    assert loss_by_step(here.parent) == loss_by_step(trained)


@pytest.mark.parametrize("existed", [True, False])
def test_ctrl_c_before_the_first_step_leaves_nothing(here, tiny_run, capsys, contents, monkeypatch, existed):
    def interrupted(*parts, **options):
        prepare(*parts, **options)
        raise KeyboardInterrupt

    prepare = runs.prepare
    if existed:
        (here / "my run").mkdir()
    before = contents(here)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "prepare", interrupted)
        assert main([*tiny_run, *STEPS]) == 130
    assert capsys.readouterr().err == "tinyllm: interrupted\n"
    assert contents(here) == before
    assert main([*tiny_run, *STEPS]) == 0


@pytest.mark.skipif(os.name != "posix", reason="Windows has no kill -9")
@pytest.mark.parametrize("call", ["prepare", "machine", "Pretraining"])
def test_a_start_that_was_killed_blocks_nothing(here, tiny_run, start, call):
    """Killed with the tokens written, with the tokenizer written, with everything written but a checkpoint."""
    code = f"import os; from tinyllm.training import runs; called = runs.{call}\n"
    code += f"runs.{call} = lambda *parts, **options: (called(*parts, **options), os.kill(os.getpid(), 9))"
    process = start([*tiny_run, *STEPS], code)
    process.communicate(timeout=120)
    assert process.returncode == -9
    assert any((here / "my run").iterdir())
    begun = (here / "my run" / "config.json").exists()
    assert begun == (call == "Pretraining")
    assert main(["pretrain", "--resume", "--run", "my run"] if begun else [*tiny_run, *STEPS]) == 0
