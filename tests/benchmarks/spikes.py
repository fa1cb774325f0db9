"""How well loss spikes are found: planted bad batches against the clean steps of real runs.

    python tests/benchmarks/spikes.py [--preset shakespeare-char-cpu] [--text FILE] [--seeds 0 1 2] [--steps N]
                                      [--record FILE]

A clean run is trained. Before steps drawn at random, as many early as late, the monitor is asked about bad batches too,
which are not followed:

- random tokens: inputs and targets drawn from the whole vocabulary
- random targets: the inputs as they are
- shuffled text: the tokens of the batch in random order
- one token: the same token everywhere
- gradients times ten: the batch as it is

The table tells how many were found at the preset's threshold, and the lowest z-score of them; then the clean steps that
were taken for spikes, and the highest z-score of those. --record writes the first seed's losses and norms, which the
tests read (tests/tinyllm/training/recorded_steps.json).
"""

import argparse
import collections
import dataclasses
import json
import math

import numpy as np

import autograd as ag
from tinyllm.data import RandomBatches, load_corpus
from tinyllm.models import Decoder
from tinyllm.tokenizers import BPETokenizer, CharacterTokenizer
from tinyllm.training.loop import Pretraining, accumulate, pretrain
from tinyllm.training.memory import keep_freed_memory
from tinyllm.training.presets import preset
from tinyllm.training.spikes import LEAST_STEPS, SpikeMonitor

PROBES = 40
KINDS = ("random tokens", "random targets", "shuffled text", "one token", "gradients times ten")


def tokens_of(chosen, text):
    """(training tokens, size of the vocabulary)."""
    corpus = load_corpus(text or chosen.data)
    documents = corpus.split()[0]
    if chosen.tokenizer == "character":
        tokenizer = CharacterTokenizer.train(corpus.documents)
    else:
        tokenizer = BPETokenizer.train(documents, vocab_size=chosen.vocab_size)
    return np.concatenate([tokenizer.encode_to_array(document) for document in documents]), tokenizer.vocab_size


def probed_steps(steps, random):
    """Steps to plant at, half of them evenly spread over the logarithm: those are early."""
    first = LEAST_STEPS + 1
    early = np.exp(random.uniform(math.log(first), math.log(steps), PROBES // 2))
    late = random.uniform(first, steps, PROBES - PROBES // 2)
    return set(np.concatenate([early, late]).astype(int).tolist())


def bad_batches(inputs, targets, vocab_size, random):
    """(kind, inputs, targets) of those that another batch makes."""
    yield "random tokens", *random.integers(0, vocab_size, (2, *inputs.shape))
    yield "random targets", inputs, random.integers(0, vocab_size, targets.shape)
    shuffled = random.permutation(np.append(inputs, targets[:, -1:], axis=1).ravel()).reshape(len(inputs), -1)
    yield "shuffled text", shuffled[:, :-1], shuffled[:, 1:]
    token = random.integers(vocab_size)
    yield "one token", np.full_like(inputs, token), np.full_like(targets, token)


def probe(training, vocab_size, random):
    """kind -> (loss, norm) of bad batches at the training's present weights."""
    batches, config = training.batches, training.config
    inputs, targets = batches.batch(batches.position, config.batch_size)

    def measure(inputs, targets):
        loss = accumulate(training, inputs, targets, batches.position)
        norm = training.store.norm()
        training.store.zero()
        return loss, norm

    found = {kind: measure(*batch) for kind, *batch in bad_batches(inputs, targets, vocab_size, random)}
    loss, norm = measure(inputs, targets)
    return found | {"gradients times ten": (loss, 10 * norm)}


def run(chosen, tokens, vocab_size, seed, steps):
    """A clean run: (records of the steps, [(step, kind, loss, norm, z)], [(step, z)] of the clean ones)."""
    config = dataclasses.replace(chosen.training, seed=seed, steps=steps, on_spike="warn")
    model = Decoder(chosen.model_config(vocab_size), seed=seed)
    context = model.config.max_position_embeddings
    batches = RandomBatches(tokens, batch_size=config.batch_size, context=context, seed=seed)
    training = Pretraining(model, batches, config)
    gauge = SpikeMonitor(threshold=-math.inf)  # tells the z-score of every step
    random = np.random.default_rng(seed)
    records, planted, clean = [], [], []
    probed = probed_steps(steps, random)
    for step in range(1, steps + 1):
        gauge.measured = dict(training.spikes.measured)
        if step in probed:
            for kind, (loss, norm) in probe(training, vocab_size, random).items():
                planted.append((step, kind, loss, norm, gauge.judge(loss, norm)["z"]))
        pretrain(training, after_step=records.append, stop=lambda start=training.step: training.step > start)
        if spike := gauge.judge(records[-1]["loss_nats"], records[-1]["gradient_norm"]):
            clean.append((step, spike["z"]))
    return records, planted, clean


def table(planted, clean, threshold):
    by_kind = collections.defaultdict(list)
    for _, kind, _, _, z in planted:
        by_kind[kind].append(z)
    yield "| batch | found | z |"
    yield "| --- | --- | --- |"
    for kind in KINDS:
        z = np.array(by_kind[kind])
        yield f"| {kind} | {(z > threshold).sum()} of {len(z)} | at least {z.min():.1f}, median {np.median(z):.1f} |"
    z = np.array([z for _, z in clean])
    yield f"| clean | {(z > threshold).sum()} of {len(z):,} | at most {z.max():.1f} |"


def recorded(records, planted):
    """What the tests read: five significant digits are enough."""
    short = {name: [float(f"{r[name]:.5g}") for r in records] for name in ("loss_nats", "gradient_norm")}
    bad = [[step, kind, float(f"{loss:.5g}"), float(f"{norm:.5g}")] for step, kind, loss, norm, _ in planted]
    return {"made_by": "tests/benchmarks/spikes.py --record", **short, "planted": bad}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="shakespeare-char-cpu")
    parser.add_argument("--text", help="a file, where the preset's own text is not to be downloaded")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="the preset's unless given")
    parser.add_argument("--kernels", default="numba")
    parser.add_argument("--record")
    options = parser.parse_args()
    keep_freed_memory()
    chosen = preset(options.preset)
    threshold = chosen.training.spike_threshold
    tokens, vocab_size = tokens_of(chosen, options.text)
    planted, clean = [], []
    with ag.use_kernels(options.kernels):
        for seed in options.seeds:
            steps = options.steps or chosen.training.steps
            records, bad, good = run(chosen, tokens, vocab_size, seed, steps)
            planted += bad
            clean += good
            missed = [(step, kind, z) for step, kind, _, _, z in bad if z <= threshold]
            alarms = [(step, z) for step, z in good if z > threshold]
            print(f"seed {seed}: missed {missed or 'none'}; false alarms {alarms or 'none'}", flush=True)
            if options.record and seed == options.seeds[0]:
                with open(options.record, "w") as file:
                    json.dump(recorded(records, bad), file)
                    file.write("\n")
    print(f"{options.preset}, threshold {threshold:g}", *table(planted, clean, threshold), sep="\n")


if __name__ == "__main__":
    main()
