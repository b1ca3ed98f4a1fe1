"""The names that SGLang imports from its kernels on a CPU; calling one is an error."""

from __future__ import annotations

from typing import NoReturn

__all__ = [
    "assign_draft_cache_locs_contiguous_cpu",
    "assign_extend_cache_locs_cpu",
    "assign_req_to_token_pool_cpu",
    "build_tree_kernel_efficient_cpu",
    "copy_all_layer_kv_cache_cpu",
    "fill_accept_out_cache_loc_cpu",
    "fill_bonus_tokens_cpu",
    "verify_tree_greedy_cpu",
]


def _absent(*_args: object, **_kwargs: object) -> NoReturn:
    raise NotImplementedError(
        "SGLang called a kernel of sgl_kernel, which has no build for this CPU; "
        "turn off the feature that needs it (speculative decoding, or AMX kernels)"
    )


assign_draft_cache_locs_contiguous_cpu = _absent
assign_extend_cache_locs_cpu = _absent
assign_req_to_token_pool_cpu = _absent
build_tree_kernel_efficient_cpu = _absent
copy_all_layer_kv_cache_cpu = _absent
fill_accept_out_cache_loc_cpu = _absent
fill_bonus_tokens_cpu = _absent
verify_tree_greedy_cpu = _absent
