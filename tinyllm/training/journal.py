"""What happens between the steps of a run: measurements, evaluations, samples, checkpoints."""

import time

from tinyllm.errors import UserError
from tinyllm.evaluation import bits_per_byte
from tinyllm.evaluation.loss import held_out_loss, token_lengths
from tinyllm.files import CANNOT_WRITE, atomic_write, reason
from tinyllm.formats.run_folders import checkpoints, is_separated, is_whole
from tinyllm.generation import generate, prompt_ids, stop_ids
from tinyllm.training.metrics import comparable_loss
from tinyllm.training.parallel.message_log import MessageLog
from tinyllm.training.presets import preset as preset_named
from tinyllm.training.spikes import happened

PATIENCE_SECONDS = 60
"""How long a run that is over waits for a disk that takes nothing."""


class Journal:
    """What happens between steps: lines for metrics.jsonl, evaluations, samples, checkpoints.

    Where the disk is full or read-only training goes on; what is missing is kept in memory until it can be written.

    Every rank of a run keeps one and does the same at the same time, since a model may lie on all of them; those that
    do not write have logs and a display that take everything and do nothing.
    """

    def __init__(self, run, metrics, samples, messages, checkpoints, display):
        self.run, self.metrics, self.samples, self.display = run, metrics, samples, display
        self.checkpoints = checkpoints
        self.text_error, self.owed, self.told = None, False, False
        self.lengths = token_lengths(run.tokenizer)
        earlier = [record["seconds"] for record in metrics.records() if "seconds" in record]
        self.started = time.monotonic() - (earlier[-1] if earlier else 0)
        self.messages = MessageLog(messages, run.ranks, time.perf_counter() - self.seconds())

    def of_first(self, value):
        """What the first rank gives, which has the files, on every rank. Of JSON's types."""
        return self.run.ranks.exchange(value)[0]

    def seconds(self):
        """How long the run has been trained, all its starts together."""
        return round(time.monotonic() - self.started, 3)

    def after_step(self, record):
        config, step = self.run.training.config, record["step"]
        totals = self.messages.totals()
        self.messages.append(step)
        self.metrics.append({"step": step, "split": "train", **record, **totals, "seconds": self.seconds()})
        self.display.update(step, record["loss_nats"], record["tokens_per_second"])
        self.checkpoints.meet()
        self.tell()
        if "spike" in record:
            self.display.note(happened(record))
        if step == config.steps:
            return
        if step % config.evaluate_every == 0:
            self.evaluate()
        if step % config.sample_every == 0:
            self.sample()
        if step % config.checkpoint_every == 0:
            self.save()
        self.messages.taken()  # what was said since is no part of the next step

    def save(self):
        """A checkpoint, but not before the lines that lead to it: a run that went on from there would lack them."""
        self.metrics.flush()
        self.samples.flush()
        self.owed = self.of_first(bool(self.metrics.error or self.samples.error))
        if not self.owed:
            self.checkpoints.save(self.run.training)

    def roll_back(self, record):
        """After a spike: back to the newest checkpoint of the schedule. False if there is none."""
        training = self.run.training
        if not self.checkpoints.go_back(training):
            return False
        for log in (self.samples, self.messages.log):
            log.rewind(training.step)
        event = {
            **record,
            "split": "roll-back",
            "number": training.spikes.roll_backs,
            "to_step": training.step,
            "seconds": self.seconds(),
        }
        self.metrics.append(event)
        self.display.note(happened(event))
        return True

    def diverged(self, error):
        """The step that ended the run, into metrics.jsonl."""
        self.metrics.append({"step": error.step, "split": "diverged", **error.record, "seconds": self.seconds()})

    def evaluate(self, whole=False):
        """Loss on held-out text, on its first windows or on all of it."""
        training, tokens = self.run.training, self.run.validation_tokens
        windows = training.config.evaluation_windows
        first = None if whole else windows
        context = training.model.config.max_position_embeddings
        begun = time.perf_counter()
        nats, count = self.loss_of(first)
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
        if whole and count > windows * context:  # what can be compared with the evaluations on the way
            nats, count = self.loss_of(windows)
            record["first_windows_loss_nats"] = nats / count
        self.metrics.append(record)
        self.display.validation(training.step, record["loss_nats"], record["bits_per_byte"])
        self.checkpoints.save_if_best(training, comparable_loss(record))
        return record

    def loss_of(self, first):
        """(nats, targets) of the first windows of the held-out text, of all for None."""
        training, tokens = self.run.training, self.run.validation_tokens.tokens
        with training.store.gathered():
            return held_out_loss(training.model, tokens, first=first, ranks=training.ranks)

    def num_bytes(self, targets):
        """UTF-8 bytes of the text that the targets of the first windows stand for."""
        counted = self.run.config["corpus"].get("evaluation_bytes")
        return int(self.lengths[targets].sum()) if counted is None else counted

    def final(self):
        """The last evaluation, on all held-out text, and the last sample; what an earlier start has made is taken."""
        training, targets = self.run.training, self.run.validation_tokens.count - 1
        made = [
            record
            for record in self.metrics.records()
            if (record["split"], record["step"], record.get("targets")) == ("validation", training.step, targets)
        ]
        made = self.of_first(made)
        if made:  # but it may have been killed before it kept the weights
            self.checkpoints.save_if_best(training, comparable_loss(made[-1]))
        result = made[-1] if made else self.evaluate(whole=True)
        self.sample()
        return result

    def sample(self):
        """What the model writes now, into samples.jsonl and samples.txt, unless an earlier start has come as far."""
        run, config = self.run, self.run.training.config
        if self.of_first(any(sample["step"] == run.training.step for sample in self.samples.records())):
            return
        prompt = sample_prompt(run)
        ids = prompt_ids(run.tokenizer, prompt, separated=is_separated(run.config))
        options = {"max_new_tokens": config.sample_tokens, "temperature": 0.8, "seed": config.seed}
        with run.training.store.gathered():
            new = generate(run.training.model, ids, stop=stop_ids(run.tokenizer), **options)
        text = run.tokenizer.decode(new, continuing=prompt != "")
        self.samples.append({"step": run.training.step, "prompt": prompt, "text": text})
        if run.ranks.first:
            self.write_samples()
        self.display.sample(run.training.step, prompt, text)

    def write_samples(self):
        """samples.txt anew, from all records."""
        self.text_error = None
        try:
            with atomic_write(self.run.folder / "samples.txt", "w") as file:
                for sample in self.samples.records():
                    file.write(f"=== step {sample['step']} ===\n{sample['prompt']}{sample['text']}\n\n")
        except CANNOT_WRITE as error:
            self.text_error = error

    def error(self):
        """Why something is not on disk, in a few words, or None."""
        logs = self.metrics.error or self.samples.error or self.messages.log.error
        error = logs or self.text_error or self.checkpoints.error or self.checkpoints.elsewhere
        return error and reason(error)

    def tell(self):
        """Say once that the disk takes nothing more, and once that it does again."""
        error = self.error()
        if error and not self.told:
            self.display.note(
                f"{self.run.folder} cannot be written to ({error}): training goes on, and what is missing is kept in "
                "memory and written when that is possible"
            )
        elif self.told and not error:
            self.display.note(f"{self.run.folder} can be written to again, and nothing is missing")
        self.told = error is not None

    def settle(self):
        """All that a run has come to, on disk; UserError if the disk takes it not even after a while."""
        self.checkpoints.wait()
        deadline = time.monotonic() + PATIENCE_SECONDS
        if self.error():
            self.display.note(
                f"{self.run.folder} cannot be written to ({self.error()}): trying for {PATIENCE_SECONDS} s more"
            )
        while error := self.of_first(self.error()):
            if self.of_first(time.monotonic() > deadline):
                raise UserError(f"{self.run.folder} cannot be written to ({error}); {self.left()}")
            time.sleep(min(1, PATIENCE_SECONDS))
            self.write_all()
        self.tell()

    def write_all(self):
        """Try again what could not be written."""
        for log in (self.metrics, self.samples, self.messages.log):
            log.flush()
        if self.text_error:
            self.write_samples()
        if self.owed:
            self.save()
        self.checkpoints.retry()
        self.checkpoints.wait()

    def left(self):
        """What stands in the folder all the same, and what to do."""
        whole = [path.name for path in checkpoints(self.run.folder) if is_whole(path)]
        stands = (
            f"its newest checkpoint is {whole[-1]}, and what came after is lost" if whole else "it has no checkpoint"
        )
        return f"{stands}; make room or let it be written to, then go on with --resume"


def sample_prompt(run):
    """What samples on the way begin with: the preset's prompt if it fits the corpus, else nothing."""
    return preset_named(run.config["preset"]).prompt if run.config["corpus"]["name"] == "python-reference" else ""
