"""The demo model is what its record says, and writes recognisable Python."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from thunderserve.demo_model import model_path
from thunderserve.demo_model.corpus import END, chat, encode, load_corpus, load_held_out
from thunderserve.demo_model.network import Llama, LlamaConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "models" / "training"))

from train import Trainer, TrainingConfig, held_out_loss

MOST_WEIGHT_BYTES = 16_000_000
RANDOM_LOSS_NATS = 8.3  # log of the vocabulary


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads((model_path() / "training.json").read_text())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(model_path() / "tokenizer.json"))


@pytest.fixture(scope="module")
def model() -> Llama:
    llama = Llama(LlamaConfig())
    llama.load_state_dict(load_file(model_path() / "model.safetensors"))
    return llama.eval()


def test_weights_are_small_bf16_and_complete() -> None:
    """At most 16 MB, all bfloat16, exactly the parameters that config.json promises."""
    path = model_path() / "model.safetensors"
    weights = load_file(path)
    config = json.loads((model_path() / "config.json").read_text())

    assert path.stat().st_size <= MOST_WEIGHT_BYTES
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}
    assert set(weights) == set(Llama(LlamaConfig()).state_dict())
    assert config == LlamaConfig().to_hugging_face(end_token_id=0)


def test_held_out_loss_is_what_the_record_says(
    model: Llama, tokenizer: Tokenizer, record: dict
) -> None:
    """Measured again on files that training never saw; bf16 weights cost a little."""
    corpus = load_corpus()
    if corpus.digest != record["corpus_sha256"]:
        pytest.skip("this Python carries another standard library than the model was trained on")
    held_out = encode(tokenizer, corpus.held_out, record["training"]["seed"])

    measured = held_out_loss(model, held_out, TrainingConfig(), most_rows=8)

    assert measured < 0.5 * RANDOM_LOSS_NATS
    assert abs(measured - record["held_out_loss_nats_per_token"]) < 0.4


def test_held_out_text_is_the_corpus_own_when_it_is_read_alone(tmp_path: Path) -> None:
    """Files and exchanges, in the same order."""
    for number in range(120):
        source = f'def f{number}():\n    """Return {number}."""\n    return {number}\n'
        (tmp_path / f"module{number}.py").write_text(source)
    corpus = load_corpus(tmp_path)
    assert load_held_out(tmp_path) == corpus.held_out
    assert 2 <= len(corpus.held_out) < len(corpus.train)


@torch.no_grad()
def test_model_writes_python_that_parses_when_asked_to_go_on(
    model: Llama, tokenizer: Tokenizer
) -> None:
    """Its greedy continuation of a module's first lines has at least one whole statement."""
    text = "import os\nimport sys\n\ndef main():"
    ids = tokenizer.encode(text).ids
    for _ in range(60):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    written = tokenizer.decode(ids)[len(text) :]

    lines = (text + written).splitlines()
    parsed = next((n for n in range(len(lines), 4, -1) if _parses("\n".join(lines[:n]))), 0)
    assert parsed > len(text.splitlines()), written


def test_tokenizer_round_trips_any_text(tokenizer: Tokenizer) -> None:
    """Byte-level BPE: nothing is out of vocabulary."""
    for text in ("def f(x):\n\treturn x\n", "naïve — 日本語 🙂", "\x00\x7f", ""):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode(END).ids == [0]


def test_chat_template_writes_what_training_saw(tokenizer: Tokenizer) -> None:
    """The template of tokenizer_config.json and `corpus.chat` are one form."""
    import jinja2  # noqa: PLC0415 - wanted by this test alone

    settings = json.loads((model_path() / "tokenizer_config.json").read_text())
    template = jinja2.Environment(autoescape=False).from_string(settings["chat_template"])  # noqa: S701 - a prompt, not HTML

    rendered = template.render(
        messages=[{"role": "user", "content": "Hello"}], add_generation_prompt=True
    )

    assert chat("Hello", "X").startswith(rendered)
    assert tokenizer.encode(rendered).ids[0] == tokenizer.token_to_id("<|user|>")


def test_training_repeats_itself_when_the_seed_is_the_same() -> None:
    """Two short runs end with the same bits; another seed does not."""
    first, again, other = (_short_training(seed) for seed in (3, 3, 4))

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def _short_training(seed: int) -> dict[str, torch.Tensor]:
    sizes = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, layers=2, head_dim=8)
    training = TrainingConfig(steps=3, batch_sequences=2, sequence_tokens=16, seed=seed)
    torch.manual_seed(seed)
    tokens = torch.arange(1000) * 7 % 64
    trainer = Trainer(Llama(sizes), training, compiled=False)
    for number in range(1, 4):
        trainer.step(tokens, number)
    return trainer.model.state_dict()


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True
