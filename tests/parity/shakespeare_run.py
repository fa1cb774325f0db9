"""nanoGPT's CPU preset on Shakespeare, on both sides from the same weights and batches: the loss of every step.

Each side is meant for a process of its own with one thread: the threads of NumPy's BLAS and of PyTorch wait for work by
spinning, and in one process, or on a busy machine, they take each other's time.
"""

import torch_models
from torch_training import TorchTraining, torch

from tinyllm.data import RandomBatches, load_corpus
from tinyllm.models import Decoder
from tinyllm.tokenizers import CharacterTokenizer
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.memory import keep_freed_memory
from tinyllm.training.presets import preset
from tinyllm.training.schedules import warmup_cosine

PRESET = preset("shakespeare-char-cpu")


def beginning(text, dtype):
    """Model and batches before the first step, the same at every call. text: the path of the file."""
    corpus = load_corpus(text)
    tokenizer = CharacterTokenizer.train(corpus.documents)
    (training,), _ = corpus.split()
    model = Decoder(PRESET.model_config(tokenizer.vocab_size), seed=0, dtype=dtype)
    batches = RandomBatches(
        tokenizer.encode_to_array(training),
        batch_size=PRESET.training.batch_size,
        context=model.config.max_position_embeddings,
        seed=0,
    )
    return model, batches


def our_losses(text, dtype, steps):
    keep_freed_memory()
    losses, training = [], Pretraining(*beginning(text, dtype), PRESET.training)
    pretrain(
        training,
        after_step=lambda metrics: losses.append(metrics["loss_nats"]),
        stop=lambda: training.step == steps,
    )
    return losses


def their_losses(text, dtype, steps):
    torch.set_num_threads(1)
    model, batches = beginning(text, dtype)
    config, head_width = PRESET.training, model.config.head_width

    def loss(weights, inputs, targets):
        logits = torch_models.gpt2(weights, torch.tensor(inputs), head_width=head_width, approximate="none")
        return torch_models.mean_loss(logits, torch.tensor(targets))

    training = TorchTraining(
        {name: torch.tensor(p.data, requires_grad=True) for name, p in model.parameters().items()},
        loss,
        lambda groups: torch.optim.AdamW(groups, betas=(config.beta1, config.beta2)),
        weight_decay=config.weight_decay,
        clip=config.clip,
    )
    rates = [
        warmup_cosine(
            step,
            peak=config.learning_rate,
            floor=config.min_learning_rate,
            warmup_steps=config.warmup_steps,
            steps=config.steps,
        )
        for step in range(steps)
    ]
    return [training.step(*next(batches), rate)[0] for rate in rates]
