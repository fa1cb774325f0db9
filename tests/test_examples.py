"""Every example runs by itself and prints what its docstring promises."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"

# What to look for in the output. The examples assert the rest themselves.
PROMISES = {
    "01_scalar_backprop.py": [r"dw +-0\.488546 +-0\.488546 +-0\.488546", r"step 10 .* loss 0\.0499"],
    "02_softmax_by_hand.py": [r"b +0\.2369 - 1 = -0\.7631 +the long way -0\.7631"],
    "03_attention_backward.py": [r"ds\[1, 2\] = .* = 0\.0000 +\(masked", r"dk +\de[-+]\d\d\n"],
    "04_gpt_in_one_file.py": [r"knowing how often each letter comes 3\.\d\d", r"\nsample:\nThe "],
    "05_prove_your_own_op.py": [
        "proven: the op",
        r"proven: 50 arrays",
        r"caught: forgets_the_cap: .* central difference",
        r"caught: one_in_a_thousand: .* central difference",
        r"caught: the vjp of writes_into_dy wrote into dy",
    ],
    "06_what_went_wrong.py": [
        r"1\. forward of log made the first non-finite value\n[^\d]+x: float32\[1, 3\], 0 … 1",
        r"with log_softmax: 123\.0",
        r"the gradient \[nan nan nan\]\n +backward of sqrt made",
        r"in lengths: return ag\.sqrt",
        r"3\. weight float64\[3, 2\], saved by linear, was overwritten",
        r"4\. kept for backward +1\.57 MB, by 4 recorded ops",
        r"with recompute: 0 bytes kept.* in backward of recompute",
        r"5\. open .*attention\.svg",
    ],
    "07_half_precision.py": [
        r"after +1000 comes 1000\.5\n",
        r"in float16 1\.0, in float32 1\.1000, rounded once at the end 1\.099",
        r"added up in float16 256\.0, in a product 1000\.0",
        r"the gradient is \[0\. 0\. 0\. 0\.\], with the loss times 65536 \[9\.99\d+e-09",
        r"step  3  scale +131,072  gradient +inf  skipped.*\n5\. step  4  scale +65,536  gradient 32768\.0  w 0\.95",
    ],
    "08_two_ranks_by_hand.py": [
        r"samples -4\.0, of rank 1's -11\.5, their sum -15\.5\n   and in one process -15\.5",
        r"one process: +(losses \d\.\d{6} … \d\.\d{6}), 57,344 .*\n   two, ZeRO stage 0: +\1, 57,344 on",
        r"all_reduce\n   two, ZeRO stage 1: .*, 28,672 on each rank\n.*: +all_gather, reduce_scatter\n",
        r"the same weights.*\n.* one process has them to \de-1\d",
    ],
    "seed_model.py": [r"h\.0\.attn\.c_attn\.weight +\(192, 64\)", r"step  60 +loss 0\.0", r"first\.\n$"],
}
ARGUMENTS = {"04_gpt_in_one_file.py": "steps=150"}  # a quarter of the half minute


@functools.cache
def run(example):
    """What the example prints, run in a process of its own as `python examples/NAME` does."""
    call = f"import runpy; runpy.run_path({str(example)!r}, run_name='__main__')"
    if example.name in ARGUMENTS:
        call = f"import runpy; runpy.run_path({str(example)!r})['main']({ARGUMENTS[example.name]})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", "-c", call], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, f"{example.name} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_example_is_here():
    assert sorted(PROMISES) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", sorted(PROMISES))
def test_example(name):
    printed = run(EXAMPLES / name)
    for promise in PROMISES[name]:
        assert re.search(promise, printed), f"{name} does not print {promise!r}:\n{printed}"


def test_the_gpt_learns_more_than_letter_frequencies():
    """Already in the quarter of its steps that the tests take."""
    printed = run(EXAMPLES / "04_gpt_in_one_file.py")
    unseen, frequencies = map(float, re.search(r"unseen text: (\S+) .*frequencies: (\S+)\)", printed).groups())
    assert unseen < frequencies - 0.5
