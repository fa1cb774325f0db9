"""Kill one rank of `tinyllm pretrain --devices 2` at random moments; the run must end with the reason, and go on.

    python tests/soak/rank_kills.py --kills 20 --seed 1

After each kill: how long the rest of the run took to end, its exit code and its one line; that no process is left. Then
the folder is resumed twice, on two ranks at the same stage, where everything must be as in a run that nobody disturbed,
to the last bit, and on another number of ranks at another stage, where the weights must agree within 1e-5. The exit
code is 1 where something does not hold. Linux only: a rank is found by way of /proc.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import tinyllm
from tinyllm.formats.arrays import read_arrays
from tinyllm.formats.run_folders import checkpoints, newest_checkpoint, read_weights

RUN = """
    pretrain textbook --data text.txt --tokenizer bytes
    --model.hidden-size 16 --model.num-hidden-layers 2 --model.num-attention-heads 2 --model.max-position-embeddings 16
    --model.dropout 0.1 --training.batch-size 4 --training.warmup-steps 4 --training.learning-rate 1e-3
    --training.sample-tokens 3 --training.evaluate-every 20 --training.checkpoint-every 10
"""
OTHERS = ((1, 0), (4, 1), (1, 1), (4, 2), (1, 0), (4, 3))
"""(ranks, stage) to go on with."""
MOST_SECONDS = 10
MOST_DIFFERENCE = 1e-5
PATIENCE_SECONDS = 900
START_SECONDS = 3  # in which a kill before the first step comes
SLOWER = 0.01  # seconds a step: so that a kill meets the step that it is meant for


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; drawn and printed unless given")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--stage", type=int, action="append", help="of ZeRO, in turn; 0 to 3 unless given")
    parser.add_argument("--aimed", action="store_true", help="kill when a checkpoint is half written")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    moments, stages = random.Random(seed), options.stage or (0, 1, 2, 3)
    print(f"seed {seed}")
    print("kill  stage  rank  steps  checkpoint  ended in  2 ranks    others             difference", flush=True)
    wrong = []
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        Path("text.txt").write_text("The old sailor sat by the sea and told it again. " * 40, encoding="utf-8")
        for stage in set(stages):
            undisturbed(stage, options.steps)
        for number in range(options.kills):
            stage = stages[number % len(stages)]
            other = OTHERS[number % len(OTHERS)]
            row, failures = one_kill(number, stage, other, options, moments)
            print(row, flush=True)
            wrong += [f"kill {number + 1}: {failure}" for failure in failures]
    print("\n".join(wrong) or "every run ended with the reason, and went on as if nothing had been")
    return 1 if wrong else 0


def undisturbed(stage, steps):
    """A run that nobody kills, as the folder `through STAGE`."""
    code, said = finished(begin(f"through {stage}", stage, steps))
    if code:
        sys.exit(f"the run that nobody disturbs did not end: {said}")


def begin(folder, stage, steps):
    """The process of `tinyllm pretrain --devices 2` in a new folder, whose steps take a little longer."""
    return start([*RUN.split(), "--steps", str(steps), "--run", folder, "--devices", "2", "--zero", str(stage)])


def start(words):
    """`tinyllm WORDS` as a process. Batches come late and files are written slowly, in every rank: the modules are
    patched where they are imported."""
    program = (
        "import sys, time\n"
        "from tinyllm.data import RandomBatches\n"
        "from tinyllm.training.parallel import shared_checkpoints\n"
        "write = shared_checkpoints.write_arrays\n"
        f"shared_checkpoints.write_arrays = lambda *parts: (time.sleep({5 * SLOWER}), write(*parts))[1]\n"
        "following = RandomBatches.__next__\n"
        f"RandomBatches.__next__ = lambda batches: (time.sleep({SLOWER}), following(batches))[1]\n"
        "from tinyllm.commands.main import main\n"
        "if __name__ == '__main__':\n"
        f"    sys.exit(main({words!r}))\n"
    )
    Path("slowly.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path(tinyllm.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    environment |= {"NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "slowly.py"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def finished(process):
    """(exit code, what it said on standard error)"""
    try:
        said = process.communicate(timeout=PATIENCE_SECONDS)[1]
    finally:
        process.kill()
        process.wait()
    return process.returncode, said


def ranks_of(process):
    """The process numbers of the ranks, in their order, that a launching process has started so far."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except FileNotFoundError:
        return []


def one_kill(number, stage, other, options, moments):
    """(a line of the table, what was wrong)"""
    steps = options.steps
    through, folder, elsewhere = (Path(name) for name in (f"through {stage}", f"killed {number}", f"moved {number}"))
    rank, when, ended, failures = killed(folder, stage, options, moments)
    begun = (folder / "config.json").exists()
    newest = newest_step(folder) if begun else "none"
    if begun:
        shutil.copytree(folder, elsewhere)
    else:  # there is nothing to go on with: both begin anew
        shutil.rmtree(folder, ignore_errors=True)
        other = (2, stage)
    failures += resumed(folder, (2, stage), steps) or differences(through, folder)
    verdict = "same bits" if not failures else "wrong"
    failures += resumed(elsewhere, other, steps)
    distance = np.nan if failures else largest_difference(through, elsewhere)
    if not distance < MOST_DIFFERENCE:
        failures.append(f"on {other[0]} ranks at stage {other[1]} the weights differ by {distance:.1e}")
    for path in (folder, elsewhere):
        shutil.rmtree(path, ignore_errors=True)
    row = (
        f"{number + 1:4}  {stage:5}  {rank:4}  {when:5}  {newest:>10}  {ended:6.2f} s  {verdict:9}  "
        f"{other[0]} rank{'s' if other[0] > 1 else ' '} at stage {other[1]}  {distance:15.1e}"
    )
    return row, failures


def killed(folder, stage, options, moments):
    """(which rank was killed, after how many steps, how long the others took to end, what was wrong with that)

    A run that was over sooner than the kill is tried again.
    """
    rank, steps = moments.randrange(2), options.steps
    process = begin(folder.name, stage, steps)
    come = moment_for(process, folder, steps, moments)
    while process.poll() is None and not come():
        time.sleep(0.002)
    while options.aimed and process.poll() is None and not half_written(folder):
        time.sleep(0.001)
    ranks = ranks_of(process)
    if len(ranks) < 2 or not is_alive(ranks[rank]):
        finished(process)
        shutil.rmtree(folder, ignore_errors=True)
        return killed(folder, stage, options, moments)
    os.kill(ranks[rank], signal.SIGKILL)
    moment, reached = time.monotonic(), done(folder)
    code, said = finished(process)
    ended = time.monotonic() - moment
    missed = options.aimed and not half_written(folder)
    failures = ["no checkpoint was half written when the rank was killed"] if missed else []
    failures += [] if ended < MOST_SECONDS else [f"the run took {ended:.1f} s to end"]
    if (code, said.splitlines()[-1:]) != (2, [reason(rank)]) or "Traceback" in said:
        failures.append(f"exit code {code}, and it said {said!r}")
    return rank, reached, ended, failures + ["a rank is left over" for pid in ranks if is_alive(pid)]


def moment_for(process, folder, steps, moments):
    """A function that says when the time has come: within the steps, or one time of five before the first."""
    step, pause = moments.randrange(-steps // 4, steps), moments.uniform(0, 5 * SLOWER)
    start = time.monotonic() + moments.uniform(0, START_SECONDS)

    def come():
        if step < 0:
            return len(ranks_of(process)) == 2 and time.monotonic() > start
        if done(folder) < step or len(ranks_of(process)) < 2:
            return False
        time.sleep(pause)
        return True

    return come


def half_written(folder):
    return any(Path(folder, "checkpoints").glob(".step-*.unfinished"))


def done(folder):
    """How many steps metrics.jsonl has."""
    try:
        return (folder / "metrics.jsonl").read_bytes().count(b'"train"')
    except FileNotFoundError:
        return 0


def reason(rank):
    return f"tinyllm: rank {rank} was killed by signal 9 (out of memory?); all ranks have been ended"


def is_alive(pid):
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def newest_step(folder):
    """How far the newest checkpoint that a kill has left had come."""
    found = checkpoints(folder)
    return int(found[-1].name.removeprefix("step-")) if found else 0


def resumed(folder, ranks_and_stage, steps):
    """Go on with a run until its end, or begin it where it is not there. What went wrong, as a list."""
    ranks, stage = ranks_and_stage
    words = ["pretrain", "--run", folder.name, "--resume", "--devices", str(ranks), "--zero", str(stage)]
    code, said = finished(start(words) if folder.exists() else begin(folder.name, stage, steps))
    return [] if code == 0 else [f"{folder.name} could not go on with {ranks} ranks: {said}"]


def arrays(folder):
    """dict file -> dict name -> array: the newest checkpoint."""
    return {path.name: read_arrays(path) for path in sorted(newest_checkpoint(folder).glob("*.safetensors"))}


def differences(one, two):
    """Files of the newest checkpoint that are not the same to the last bit."""
    a, b = arrays(one), arrays(two)
    if a.keys() != b.keys():
        return [f"{sorted(a)} and {sorted(b)}"]
    same = {file: all(np.array_equal(a[file][name], b[file][name]) for name in a[file]) for file in a}
    return [f"{two.name}: {file} differs" for file in same if not same[file]]


def largest_difference(one, two):
    """Of any weight."""
    a, b = (read_weights(newest_checkpoint(folder)) for folder in (one, two))
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


if __name__ == "__main__":
    sys.exit(main())
