"""What happens between the steps of a run: measurements, evaluations, samples, checkpoints."""

import time

from tinyllm.evaluation import bits_per_byte
from tinyllm.evaluation.loss import held_out_loss, token_lengths
from tinyllm.files import atomic_write
from tinyllm.formats.run_folders import is_separated
from tinyllm.generation import generate, prompt_ids, stop_ids
from tinyllm.training.checkpoints import save_checkpoint
from tinyllm.training.metrics import SAMPLES, read_metrics
from tinyllm.training.presets import preset as preset_named


class Journal:
    """What happens between steps: lines for metrics.jsonl, evaluations, samples, checkpoints."""

    def __init__(self, run, metrics, samples, display):
        self.run, self.metrics, self.samples, self.display = run, metrics, samples, display
        self.lengths = token_lengths(run.tokenizer)
        earlier = [record["seconds"] for record in read_metrics(run.folder) if "seconds" in record]
        self.started = time.monotonic() - (earlier[-1] if earlier else 0)

    def seconds(self):
        """How long the run has been trained, all its starts together."""
        return round(time.monotonic() - self.started, 3)

    def after_step(self, record):
        config, step = self.run.training.config, record["step"]
        self.metrics.append({"step": step, "split": "train", **record, "seconds": self.seconds()})
        self.display.update(step, record["loss_nats"], record["tokens_per_second"])
        if step == config.steps:
            return
        if step % config.evaluate_every == 0:
            self.evaluate()
        if step % config.sample_every == 0:
            self.sample()
        if step % config.checkpoint_every == 0:
            save_checkpoint(self.run.folder, self.run.training, config.keep_checkpoints)

    def evaluate(self, whole=False):
        """Loss on held-out text, on its first windows or on all of it."""
        training, tokens = self.run.training, self.run.validation_tokens
        first = None if whole else training.config.evaluation_windows
        context = training.model.config.max_position_embeddings
        begun = time.perf_counter()
        nats, count = held_out_loss(training.model, tokens.tokens, first=first)
        num_bytes = tokens.num_bytes if whole else self.num_bytes(tokens.tokens[1 : count + 1])
        record = {
            "step": training.step,
            "split": "validation",
            "loss_nats": nats / count,
            "bits_per_byte": bits_per_byte(nats, max(num_bytes, 1)),
            "tokens_per_second": count / (time.perf_counter() - begun),
            "targets": count,
            "context": context,
            "seconds": self.seconds(),
        }
        self.metrics.append(record)
        self.display.validation(training.step, record["loss_nats"], record["bits_per_byte"])
        return record

    def num_bytes(self, targets):
        """UTF-8 bytes of the text that the targets of the first windows stand for."""
        counted = self.run.config["corpus"].get("evaluation_bytes")
        return int(self.lengths[targets].sum()) if counted is None else counted

    def final(self):
        """The last evaluation, on all held-out text, and the last sample; what an earlier start has made is taken."""
        step, targets = self.run.training.step, self.run.validation_tokens.count - 1
        made = [
            record
            for record in read_metrics(self.run.folder)
            if (record["split"], record["step"], record.get("targets")) == ("validation", step, targets)
        ]
        result = made[-1] if made else self.evaluate(whole=True)
        self.sample()
        return result

    def sample(self):
        """What the model writes now, into samples.jsonl and samples.txt, unless an earlier start has come as far."""
        run, config = self.run, self.run.training.config
        if any(sample["step"] == run.training.step for sample in read_metrics(run.folder, SAMPLES)):
            return
        prompt = sample_prompt(run)
        ids = prompt_ids(run.tokenizer, prompt, separated=is_separated(run.config))
        options = {"max_new_tokens": config.sample_tokens, "temperature": 0.8, "seed": config.seed}
        new = generate(run.training.model, ids, stop=stop_ids(run.tokenizer), **options)
        text = run.tokenizer.decode(new, continuing=prompt != "")
        self.samples.append({"step": run.training.step, "prompt": prompt, "text": text})
        with atomic_write(run.folder / "samples.txt", "w") as file:
            for sample in read_metrics(run.folder, SAMPLES):
                file.write(f"=== step {sample['step']} ===\n{sample['prompt']}{sample['text']}\n\n")
        self.display.sample(run.training.step, prompt, text)


def sample_prompt(run):
    """What samples on the way begin with: the preset's prompt if it fits the corpus, else nothing."""
    return preset_named(run.config["preset"]).prompt if run.config["corpus"]["name"] == "python-reference" else ""
