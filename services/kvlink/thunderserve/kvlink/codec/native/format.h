// The int4 payload and what every kernel of it shares; `reference.py` says the same in Python.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvlink {

constexpr size_t kGroupTokens = 64;
constexpr size_t kWordTokens = 8;  // 4-bit codes in a 32-bit word, the first token lowest
constexpr size_t kTileChannels = 1024;  // a tile of a group stays in the second-level cache

// 1/15, rounded to float: a group's range is cut into 15 steps.
constexpr float kFifteenth = 0x1.111112p-4f;
// Half steps keep 20 bits, so that a level (4 bits) times one is exact: fused or not, all backends
// round once, where the middle is added.
constexpr uint32_t kHalfStepMask = 0xFFFFFFF0u;

struct BFloat16 {
  static constexpr uint16_t kExponent = 0x7F80;
  static constexpr uint16_t kSmallest = 0x0D80;  // 2^-100; groups below it are zero
};

struct Float16 {
  static constexpr uint16_t kExponent = 0x7C00;
  static constexpr uint16_t kSmallest = 0x0001;
};

// Channels of one group: `least` and `greatest` of each, then words of codes, a row per 8 tokens.
// Pointers are at the tile's first channel; `channels` is the distance of the rows.
template <class U16, class U32>
struct Record {
  U16* least;
  U16* greatest;
  U32* codes;
  size_t channels;
};

using Encoded = Record<uint16_t, uint32_t>;
using ConstEncoded = Record<const uint16_t, const uint32_t>;

// Both do the first `count - count % width` channels of a tile, and give false when a value or a
// scale is not what it may be. `stream`: `values` is aligned and large, write around the cache.
using Quantise = bool (*)(const uint16_t* values, size_t tokens, size_t count, Encoded record);
using Dequantise = bool (*)(ConstEncoded record, size_t tokens, size_t count, bool stream,
                            uint16_t* values);

struct Kernels {
  size_t width;           // channels of one step
  Quantise quantise[2];   // bfloat16, float16
  Dequantise dequantise[2];
};

extern const Kernels kScalar;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#endif

}  // namespace kvlink
