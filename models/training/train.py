"""Train the demo model and write it where `thunderserve.demo_model` finds it.

    python models/training/train.py                  # the model in the repository
    python models/training/train.py --steps 20 --out /tmp/tiny

A run is reproducible by its seed on one machine with one thread count; the held-out loss, the
corpus digest and the settings are written beside the weights, in `training.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional

from thunderserve.demo_model.corpus import ASSISTANT, END, USER, Corpus, encode, load_corpus
from thunderserve.demo_model.network import Llama, LlamaConfig

if TYPE_CHECKING:
    from torch import Tensor

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + ('assistant' if message['role'] == 'assistant' else 'user') + '|>\n'"
    " + message['content'] + '<|end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How long and how fast to learn."""

    steps: int = 1600
    batch_sequences: int = 8
    sequence_tokens: int = 1024
    matrix_learning_rate: float = 0.02
    embedding_learning_rate: float = 0.003
    warmup_steps: int = 60
    threads: int = 1
    seed: int = 0


def main() -> None:
    """Command-line entry."""
    training, out, every = _arguments()
    torch.set_num_threads(training.threads)
    torch.manual_seed(training.seed)
    corpus, network = load_corpus(), LlamaConfig()
    tokenizer = train_tokenizer(corpus, network.vocab_size)
    train = encode(tokenizer, corpus.train, training.seed)
    held_out = encode(tokenizer, corpus.held_out, training.seed)
    print(f"{len(train):,} training tokens, {len(held_out):,} held out", flush=True)
    model = Llama(network)
    trainer = Trainer(model, training)
    started = time.monotonic()
    for step in range(1, training.steps + 1):
        loss = trainer.step(train, step)
        elapsed = time.monotonic() - started
        if step % 20 == 0:
            left = elapsed / step * (training.steps - step) / 60
            print(f"step {step}/{training.steps} loss {loss:.3f} {left:.0f} min left", flush=True)
        if step % every == 0 or step == training.steps:
            report = {
                "held_out_loss_nats_per_token": round(held_out_loss(model, held_out, training), 4),
                "held_out_tokens": len(held_out),
                "training_tokens": len(train),
                "tokens_seen": step * training.batch_sequences * training.sequence_tokens,
                "steps_done": step,
                "seconds": round(elapsed),
                "corpus_sha256": corpus.digest,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "training": asdict(training),
            }
            print(json.dumps(report), flush=True)
            save(model, tokenizer, report, out)


def _arguments() -> tuple[TrainingConfig, Path, int]:
    default_out = Path(__file__).parent.parent / "thunderserve" / "demo_model"
    defaults = TrainingConfig()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument("--out", type=Path, default=default_out)
    args = parser.parse_args()
    return (
        TrainingConfig(steps=args.steps, threads=args.threads, seed=args.seed),
        args.out,
        args.save_every,
    )


def train_tokenizer(corpus: Corpus, vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer: any byte string round-trips."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.train, trainer)
    return tokenizer


class Trainer:
    """The model and its optimisers: Muon for the matrices, AdamW for embeddings and norms."""

    def __init__(self, model: Llama, training: TrainingConfig, *, compiled: bool = True) -> None:
        self.model, self.training = model, training
        # Compiled, a step takes 0.7 of eager's time on one core, after a first one of 40 s.
        self.loss = torch.compile(loss_of) if compiled else loss_of
        matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
        self.optimizers = (
            (torch.optim.Muon(matrices, weight_decay=0.01), training.matrix_learning_rate),
            (
                torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0),
                training.embedding_learning_rate,
            ),
        )

    def step(self, tokens: Tensor, number: int) -> float:
        """One optimiser step on random windows; returns the training loss in nats per token."""
        loss = self.loss(self.model, self._windows(tokens, number))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, peak in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * _schedule(number, self.training)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def _windows(self, tokens: Tensor, number: int) -> Tensor:
        """(sequences, tokens + 1) ids; a function of the seed and the step's number alone."""
        training = self.training
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + number)
        last = len(tokens) - training.sequence_tokens - 1
        starts = torch.randint(last, (training.batch_sequences,), generator=generator)
        return torch.stack([tokens[s : s + training.sequence_tokens + 1] for s in starts.tolist()])


def _schedule(step: int, training: TrainingConfig) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    warm = min(1.0, step / training.warmup_steps)
    return warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / training.steps)))


def loss_of(model: Llama, window: Tensor) -> Tensor:
    """Mean loss in nats per token over windows of token ids (B, T + 1)."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(window[:, :-1])
    return functional.cross_entropy(logits.float().flatten(0, 1), window[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(
    model: Llama, tokens: Tensor, training: TrainingConfig, most_rows: int = 48
) -> float:
    """Mean loss over the first rows of held-out windows, in nats per token."""
    length = training.sequence_tokens + 1
    rows = tokens[: len(tokens) // length * length].view(-1, length)[:most_rows]
    losses = [loss_of(model, batch).item() * len(batch) for batch in rows.split(8)]
    return sum(losses) / len(rows)


def save(model: Llama, tokenizer: Tokenizer, report: dict[str, object], out: Path) -> None:
    """Write weights (bf16), config, tokenizer and the report, in Hugging Face's layout."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().to(torch.bfloat16) for name, p in model.state_dict().items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    end = tokenizer.token_to_id(END)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": END,
        "pad_token": END,
        "model_max_length": model.config.context_tokens,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    for name, value in (
        ("config.json", model.config.to_hugging_face(end)),
        ("tokenizer_config.json", settings),
        ("training.json", report),
    ):
        (out / name).write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
