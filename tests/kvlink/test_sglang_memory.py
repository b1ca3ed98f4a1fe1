"""What the plugin reads and writes of SGLang's memory, without SGLang."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from thunderserve.core.errors import PreconditionError, TransferError
from thunderserve.core.kv import KvLayout, KvPart
from thunderserve.kvlink.protocol import Block
from thunderserve.kvlink.sglang_plugin.memory import AuxMemory, PageMemory, tensor_at
from thunderserve.kvlink.sglang_plugin.pool import (
    Degrees,
    aux_of,
    check_supported,
    layout_of,
    pages_of,
    part_of,
)
from thunderserve.kvlink.sglang_plugin.rooms import Reservations

LAYOUT = KvLayout("m", 2, 2, 4, 3, "bfloat16")
POOL = (10, 3, 2, 4)


def buffers() -> list[torch.Tensor]:
    """Keys of both layers, then values, every cell its own number."""
    cells = torch.arange(4 * 10 * 3 * 2 * 4, dtype=torch.int16)
    return list(cells.view(4, *POOL).unbind())


def read(memory: PageMemory, block: Block, *pages: int) -> np.ndarray:
    """A block's values, gathered into memory that held something else."""
    values = np.full(block.shape(memory.layout), 0xFFFF, np.uint16)
    memory.read(block, np.array(pages, np.int32), values)
    return values


def test_pages_are_those_of_the_pool_when_read() -> None:
    """In the order asked for; keys and values of each layer side by side."""
    pool = buffers()

    memory = PageMemory(LAYOUT, LAYOUT.whole, pool)

    values = read(memory, Block(0, 2, 0, 2, 5, 3), 7, 1, 4)

    assert np.array_equal(values[1, 0, 1], pool[1][1].numpy())
    assert np.array_equal(values[0, 1, 2], pool[2][4].numpy())


def test_pages_land_where_they_belong_when_written() -> None:
    """Other pages and other layers stay as they were."""
    source, target = buffers(), [torch.zeros(POOL, dtype=torch.int16) for _ in range(4)]
    values = read(PageMemory(LAYOUT, LAYOUT.whole, source), Block(1, 1, 0, 2, 0, 2), 7, 1)

    PageMemory(LAYOUT, LAYOUT.whole, target).write(
        Block(1, 1, 0, 2, 0, 2), np.array([2, 9], np.int32), values
    )

    assert torch.equal(target[1][[2, 9]], source[1][[7, 1]])
    assert torch.equal(target[3][[2, 9]], source[3][[7, 1]])
    assert sum(int(t.count_nonzero()) for t in target) == 4 * 24
    assert not target[0].any()


def test_aux_rows_survive_when_copied_between_engines() -> None:
    """Rows of several buffers, each of its own width."""
    first, second = np.arange(40, dtype=np.uint8), np.arange(100, 130, dtype=np.uint8)
    source = AuxMemory((first.ctypes.data, second.ctypes.data), (8, 6))
    copies = np.zeros(40, np.uint8), np.zeros(30, np.uint8)
    target = AuxMemory((copies[0].ctypes.data, copies[1].ctypes.data), (8, 6))

    target.write(1, source.read(3))

    assert copies[0][8:16].tolist() == first[24:32].tolist()
    assert copies[1][6:12].tolist() == second[18:24].tolist()
    with pytest.raises(TransferError, match="same SGLang version"):
        target.write(0, b"short")


def kv_args(**changes: object) -> SimpleNamespace:
    """What SGLang would hand over for `buffers`."""
    pool = buffers()
    fields = {
        "kv_data_ptrs": [b.data_ptr() for b in pool],
        "kv_data_lens": [b.nbytes for b in pool],
        "kv_item_lens": [3 * 2 * 4 * 2] * 4,
        "page_size": 3,
        "gpu_id": 0,
        "kv_cache_dtype_str": "bfloat16",
        "state_types": [],
        "num_draft_entries": 0,
        "aux_data_ptrs": [1],
        "aux_item_lens": [8],
        "owner": pool,
    }
    return SimpleNamespace(**{**fields, **changes})


def model_config(name: str = "m", *, layers: int = 2, kv_heads: int = 2) -> SimpleNamespace:
    fields = {"hidden_size": 8, "_name_or_path": name}
    return SimpleNamespace(
        dtype=torch.bfloat16,
        hf_config=SimpleNamespace(to_dict=lambda: fields),
        num_hidden_layers=layers,
        get_total_num_kv_heads=lambda: kv_heads,
    )


def test_layout_is_read_from_pointers_when_supported() -> None:
    """The same model in another folder has the same fingerprint."""
    args = kv_args()

    layout = layout_of(args, model_config("/a"), Degrees())

    assert (layout.layer_count, layout.kv_head_count, layout.head_dim) == (2, 2, 4)
    assert layout == layout_of(args, model_config("/b"), Degrees())
    pages = read(pages_of(args, layout, layout.whole, "cpu"), Block(0, 1, 0, 2, 0, 1), 9)
    assert np.array_equal(pages[0, 0, 0], args.owner[0][9].numpy())
    assert aux_of(args).row_bytes == (8,)


def test_part_is_a_ranks_own_when_the_engine_has_several() -> None:
    """The layout is of the whole model on every rank; the part says where the rank's lies in it."""
    args, model = kv_args(), model_config(layers=6, kv_heads=4)
    last, copying = Degrees(tp=2, tp_rank=1, pp=3, pp_rank=2), Degrees(tp=4, tp_rank=3)

    layout = layout_of(args, model, last)

    assert (layout.layer_count, layout.kv_head_count, layout.head_dim) == (6, 4, 4)
    assert (layout.tp, layout.pp) == (2, 3)
    assert part_of(args, layout, last, (4, 6)) == KvPart(4, 2, 2, 2, rank=5, rank_count=6)
    copied = layout_of(args, model_config(kv_heads=2), copying)
    assert (copied.kv_head_count, copied.head_dim) == (2, 8)
    assert part_of(args, copied, copying, (0, 2)) == KvPart(0, 2, 1, 1, 3, 4, copy=True)
    with pytest.raises(PreconditionError, match="stage 2 has layers 4 to 7"):
        part_of(args, layout, last, (4, 7))


def test_pages_of_a_rank_take_part_of_its_heads_when_the_sender_has_fewer() -> None:
    """Layer and head numbers are the whole model's; nothing else of the page is touched."""
    pool = [torch.zeros(POOL, dtype=torch.int16) for _ in range(4)]
    memory = PageMemory(LAYOUT, KvPart(4, 2, 2, 2), pool)
    values = np.arange(2 * 2 * 3 * 4, dtype=np.uint16).reshape(1, 2, 2, 3, 1, 4) + 1

    memory.write(Block(5, 1, 3, 1, 0, 2), np.array([2, 9], np.int32), values)

    assert torch.equal(
        pool[1][[2, 9]][:, :, 1], torch.from_numpy(values[0, 0, :, :, 0].view(np.int16))
    )
    assert torch.equal(
        pool[3][[2, 9]][:, :, 1], torch.from_numpy(values[0, 1, :, :, 0].view(np.int16))
    )
    assert sum(int(t.count_nonzero()) for t in pool) == values.size
    assert np.array_equal(
        read(memory, Block(5, 1, 2, 2, 0, 1), 9)[..., 1, :],
        values[:, :, 1:, :, 0],
    )


def test_layout_is_refused_when_the_cache_is_not_16_bit() -> None:
    """An fp8 cache would be read as garbage."""
    with pytest.raises(PreconditionError, match="fp8_e4m3"):
        layout_of(kv_args(kv_cache_dtype_str="fp8_e4m3"), model_config(), Degrees())


@pytest.mark.parametrize(
    ("args", "settings", "word"),
    [
        ({}, {"is_mla": True}, "MLA"),
        ({}, {"other_degrees": 2}, "context-parallel"),
        ({}, {"padded_heads": True}, "KV heads that tp does not divide"),
        ({"state_types": ["mamba"]}, {}, "mamba"),
        ({"num_draft_entries": 2}, {}, "speculative"),
        ({"kv_item_lens": [8, 8, 4, 4]}, {}, "unequal"),
        ({}, {"decode_allocation_policy": "prefill_complete"}, "prefill_complete"),
    ],
)
def test_engine_is_refused_when_kvlink_cannot_carry_its_cache(
    args: dict[str, object], settings: dict[str, object], word: str
) -> None:
    """At start and by name, not by wrong tokens later."""
    supported: dict[str, Any] = {
        "is_mla": False,
        "other_degrees": 1,
        "padded_heads": False,
        "decode_allocation_policy": "early",
    }
    check_supported(kv_args(), **supported)

    with pytest.raises(PreconditionError, match=word):
        check_supported(kv_args(**args), **{**supported, **settings})


def test_tensor_shares_memory_when_made_of_a_pointer() -> None:
    """A view: writing it writes the engine's cache."""
    owner = torch.zeros(POOL, dtype=torch.int16)

    tensor_at(owner.data_ptr(), POOL, torch.device("cpu"))[4, 2, 1, 3] = 7

    assert owner[4, 2, 1, 3] == 7


def test_reservation_tells_its_failure_when_the_request_comes_late() -> None:
    """Whether the room had been reserved before it was lost or not."""
    reservations = Reservations()
    reservations.add(1, 10)
    for room in (1, 2):
        reservations.fail(room, "gone")

    assert (reservations.page_count(1), reservations.failure(1)) == (None, "gone")
    assert reservations.failure(2) == "gone"
    reservations.forget(1)
    assert reservations.failure(1) is None


def test_plugin_imports_nothing_of_sglang_when_it_is_only_found() -> None:
    """Entry points are loaded in processes that have no SGLang, too."""
    code = (
        "import sys; import thunderserve.kvlink.sglang_plugin; "
        "sys.exit(any(m.split('.')[0] in {'sglang', 'torch', 'numpy'} for m in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
