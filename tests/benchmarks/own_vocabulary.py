"""What a tokenizer of one's own buys: 8,192 tokens trained on a text against GPT-2's 50,257, the same training after.

    python tests/benchmarks/own_vocabulary.py [--texts shakespeare tinystories FILE …] [--steps 400] [--json FILE]

For each text: both encode it, and a model of the quickstart's shape is trained on each encoding, with the same seed,
for the same number of steps of the same number of tokens. Prints bytes a token on held-out text, parameters, held-out
bits per byte (true bytes of the text) and how many bytes of text the training saw. GPT-2's vocabulary must lie in
TINYLLM_REFERENCE or the cache folder. Half an hour on two cores.
"""

import argparse
import json
import math
from pathlib import Path

from tinyllm.commands.console import print_table
from tinyllm.commands.hardware import chosen_kernels
from tinyllm.data import RandomBatches, load_corpus
from tinyllm.data.named_vocabularies import named_tokenizer
from tinyllm.evaluation.loss import held_out_loss
from tinyllm.models import Decoder
from tinyllm.tokenizers import BPETokenizer
from tinyllm.training import Pretraining, pretrain
from tinyllm.training.memory import keep_freed_memory
from tinyllm.training.presets import preset
from tinyllm.training.runs import changed


def trained(tokenizer, training_text, held_out_text, steps, seed):
    """Figures of one model trained on one encoding, as a dict."""
    chosen = preset("quickstart")
    shape = chosen.model_config(tokenizer.vocab_size)
    config = changed(chosen.training, {"steps": steps, "seed": seed})
    tokens, held_out = (tokenizer.encode_to_array("\n".join(texts)) for texts in (training_text, held_out_text))
    model = Decoder(shape, seed=seed)
    batches = RandomBatches(
        tokens, batch_size=config.batch_size, context=shape.max_position_embeddings, seed=config.seed
    )
    pretrain(Pretraining(model, batches, config))
    nats, _ = held_out_loss(model, held_out)
    num_bytes = len("\n".join(held_out_text).encode())
    training_bytes = len("\n".join(training_text).encode())
    seen = steps * config.batch_size * shape.max_position_embeddings
    return {
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": num_bytes / len(held_out),
        "parameters": model.num_parameters(),
        "bits_per_byte": nats / num_bytes / math.log(2),
        "bytes_seen": seen * training_bytes / len(tokens),
        "passes": seen / len(tokens),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", nargs="+", default=["shakespeare", "tinystories"])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    rows, figures = [("text", "tokenizer", "bytes a token", "parameters", "bits per byte", "text seen")], {}
    for name in options.texts:
        training_text, held_out_text = load_corpus(name).split()
        tokenizers = {"own": BPETokenizer.train(training_text, vocab_size=8192), "gpt2": named_tokenizer("gpt2")}
        for kind, tokenizer in tokenizers.items():
            with chosen_kernels("auto"):
                row = trained(tokenizer, training_text, held_out_text, options.steps, options.seed)
            figures[f"{Path(name).stem} {kind}"] = row
            rows.append(
                (
                    Path(name).stem,
                    f"{kind}, {row['vocab_size']:,}",
                    f"{row['bytes_per_token']:.3f}",
                    f"{row['parameters'] / 1e6:.2f}M",
                    f"{row['bits_per_byte']:.3f}",
                    f"{row['bytes_seen'] / 1e6:.1f} MB, {row['passes']:.1f} times",
                )
            )
            print(*rows[-1], sep="  ", flush=True)
    print_table(rows)
    if options.json:
        options.json.write_text(
            json.dumps({"steps": options.steps, "seed": options.seed, "figures": figures}, indent=1)
        )


if __name__ == "__main__":
    main()
