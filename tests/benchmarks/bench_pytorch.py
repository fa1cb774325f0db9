"""PyTorch's side of `bench.py`, written to be fast: one product for query, key and value, fused attention and AdamW."""

import time

import torch
from bench_cases import BETAS, CLIP, EPS, WEIGHT_DECAY, project

from tinyllm.models import Decoder

F = torch.nn.functional
PARTS = ("query", "key", "value")


def fused_weights(model):
    """dict name -> leaf tensor with the values of our model; the three projections of a layer are one matrix."""
    arrays = {name: torch.tensor(p.data) for name, p in model.parameters().items()}
    for i in range(model.config.num_hidden_layers):
        for kind in ("weight", "bias"):
            names = [f"blocks.{i}.attention.{part}.{kind}" for part in PARTS]
            if names[0] in arrays:
                arrays[f"blocks.{i}.attention.qkv.{kind}"] = torch.cat([arrays.pop(name) for name in names])
    return {name: tensor.requires_grad_() for name, tensor in arrays.items()}


class TorchTraining:
    def __init__(self, case, seed, compiled):
        self.case, self.seed, self.step = case, seed, 0
        self.weights = fused_weights(Decoder(case.config(), seed=seed))
        groups = [
            {"params": [p for p in self.weights.values() if p.dim() >= 2], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in self.weights.values() if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=case.learning_rate, betas=BETAS, eps=EPS, fused=True)
        self.loss = torch.compile(self.forward) if compiled else self.forward

    def forward(self, inputs, targets):
        case, w = self.case, self.weights
        B, T, C = case.batch, case.context, case.width
        gelu = "tanh" if case.feed_forward == "gelu_tanh" else "none"

        def linear(name, x):
            return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

        def norm(name, x):
            return F.layer_norm(x, (C,), w[f"{name}.weight"], w.get(f"{name}.bias"), 1e-5)

        x = F.embedding(inputs, w["embedding.weight"]) + w["position.weight"][:T]
        for i in range(case.layers):
            block = f"blocks.{i}"
            qkv = linear(f"{block}.attention.qkv", norm(f"{block}.attention_norm", x))
            q, k, v = (part.view(B, T, case.heads, -1).transpose(1, 2) for part in qkv.split(C, -1))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)
            x = x + linear(f"{block}.attention.output", y)
            hidden = linear(f"{block}.feed_forward.up", norm(f"{block}.feed_forward_norm", x))
            x = x + linear(f"{block}.feed_forward.down", F.gelu(hidden, approximate=gelu))
        logits = F.linear(norm("final_norm", x), w["embedding.weight"])
        return F.cross_entropy(logits.view(B * T, -1), targets.view(-1))

    def turn(self, count):
        batches = [self.case.batch_of_step(self.seed, self.step + i) for i in range(count)]
        batches = [tuple(map(torch.from_numpy, batch)) for batch in batches]
        self.step += count
        losses = []
        began = time.perf_counter()
        for inputs, targets in batches:
            loss = self.loss(inputs, targets)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.weights.values(), CLIP)
            self.optimizer.step()
            losses.append(loss.item())
        return {"seconds": time.perf_counter() - began, "proof": losses}


class TorchAttention:
    def __init__(self, case, seed):
        *inputs, dy, self.direction = case.arrays(seed)
        self.inputs = [torch.from_numpy(array).requires_grad_() for array in inputs]
        self.dy = torch.from_numpy(dy)

    def turn(self, count):
        began = time.perf_counter()
        for _ in range(count):
            for tensor in self.inputs:
                tensor.grad = None
            y = F.scaled_dot_product_attention(*self.inputs, is_causal=True)
            y.backward(self.dy)
        seconds = time.perf_counter() - began
        results = [y.detach(), *(tensor.grad for tensor in self.inputs)]
        return {"seconds": seconds, "proof": project([t.numpy() for t in results], self.direction)}


class Clock:
    """What `transformers` calls a streamer: notes when each token came. The first that it is given is the prompt."""

    def __init__(self):
        self.times, self.tokens = [], []

    def put(self, ids):
        self.times.append(time.perf_counter())
        self.tokens.append(ids.flatten().tolist())

    def end(self):
        pass


class HuggingFaceDecoding:
    """GPT-2 of `transformers`, with its key/value cache and the same weights."""

    def __init__(self, case, seed):
        from transformers import GPT2Config, GPT2LMHeadModel

        from tinyllm.models.gpt2 import HUGGING_FACE

        self.case, self.seed = case, seed
        ours = Decoder(case.config(), seed=seed)
        weights = HUGGING_FACE.to_published({n: p.data for n, p in ours.parameters().items()}, ours.config)
        self.model = GPT2LMHeadModel(GPT2Config(bos_token_id=None, eos_token_id=None)).eval()
        self.model.load_state_dict({n: torch.from_numpy(a) for n, a in weights.items()}, strict=False)
        self.model.tie_weights()

    def turn(self, count):
        clock = Clock()
        prompt = torch.tensor([self.case.prompt(self.seed, count + 1)])
        options = {"max_new_tokens": count + 1, "do_sample": False, "pad_token_id": 0}
        with torch.no_grad():
            self.model.generate(prompt, attention_mask=torch.ones_like(prompt), streamer=clock, **options)
        _, first, *_, last = clock.times
        return {"seconds": last - first, "proof": [token for (token,) in clock.tokens[1:]]}


def training(case, options):
    return TorchTraining(case, options["seed"], compiled=options["side"] == "compiled")


def attention(case, options):
    return TorchAttention(case, options["seed"])


def decoding(case, options):
    return HuggingFaceDecoding(case, options["seed"])
