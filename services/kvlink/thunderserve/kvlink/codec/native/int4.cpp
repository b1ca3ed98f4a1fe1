// The C interface: blocks cut into rows, groups and tiles, done by the best kernels there are.
#include "format.h"

namespace kvlink {
namespace {

enum Status : int32_t { kDone = 0, kNotFinite = 1, kBadScale = 2, kBadArgument = 3 };

constexpr size_t kStreamBytes = size_t{1} << 20;  // an output of this size evicts what is useful
constexpr size_t kLineBytes = 64;

const Kernels* kernels(int32_t level) {
  switch (level) {
    case 0:
      return &kScalar;
#if defined(__x86_64__)
    case 1:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kAvx2 : nullptr;
    case 2:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
                 ? &kAvx512
                 : nullptr;
#endif
    default:
      return nullptr;
  }
}

struct Group {
  size_t first, tokens;
};

// Groups of 64 tokens; the last one takes what is left over, up to 127.
size_t group_count(size_t tokens) { return tokens < kGroupTokens ? 1 : tokens / kGroupTokens; }

Group group_at(size_t number, size_t tokens) {
  const size_t first = number * kGroupTokens;
  return {first, number + 1 == group_count(tokens) ? tokens - first : kGroupTokens};
}

size_t words_of(size_t tokens) { return (tokens + kWordTokens - 1) / kWordTokens; }

template <class U16, class U32, class Byte>
Record<U16, U32> record_at(Byte* bytes, size_t channels) {
  auto* least = reinterpret_cast<U16*>(bytes);
  return {least, least + channels, reinterpret_cast<U32*>(least + 2 * channels), channels};
}

template <class U16, class U32>
Record<U16, U32> from(Record<U16, U32> record, size_t channel) {
  return {record.least + channel, record.greatest + channel, record.codes + channel,
          record.channels};
}

// Calls `step(kernels, first channel, count)` over tiles; what is left of one, narrower than a
// vector, goes to the next level below.
template <class Step>
bool over_channels(int32_t level, size_t channels, Step step) {
  for (size_t first = 0; first < channels;) {
    size_t count = channels - first < kTileChannels ? channels - first : kTileChannels;
    int32_t below = level;
    while (count < kernels(below)->width) --below;
    count -= count % kernels(below)->width;
    if (!step(*kernels(below), first, count)) return false;
    first += count;
  }
  return true;
}

// Calls `step(first value of the group, its tokens, its bytes)` over rows and groups.
template <class Step>
bool over_groups(size_t rows, size_t tokens, size_t channels, Step step) {
  size_t at = 0;
  for (size_t row = 0; row < rows; ++row) {
    for (size_t number = 0; number < group_count(tokens); ++number) {
      const Group group = group_at(number, tokens);
      if (!step((row * tokens + group.first) * channels, group.tokens, at)) return false;
      at += 4 * channels * (1 + words_of(group.tokens));
    }
  }
  return true;
}

bool fits(int32_t level, int32_t dtype, int64_t rows, int64_t tokens, int64_t channels) {
  return kernels(level) != nullptr && (dtype == 0 || dtype == 1) && rows > 0 && tokens > 0 &&
         channels > 0 && channels % 2 == 0;
}

}  // namespace
}  // namespace kvlink

#define KVLINK_EXPORT __attribute__((visibility("default")))

extern "C" {

// Goes up when the payload's bytes or these functions change.
KVLINK_EXPORT int32_t kvlink_int4_format() { return 2; }

// The best level of this machine: 2 AVX-512, 1 AVX2, 0 plain.
KVLINK_EXPORT int32_t kvlink_int4_level() {
  int32_t level = 2;
  while (kvlink::kernels(level) == nullptr) --level;
  return level;
}

KVLINK_EXPORT int32_t kvlink_int4_quantise(int32_t level, int32_t dtype, const uint16_t* values, int64_t rows,
                             int64_t tokens, int64_t channels, uint8_t* out) {
  using namespace kvlink;
  if (!fits(level, dtype, rows, tokens, channels)) return kBadArgument;
  const size_t width = size_t(channels);
  const bool finite =
      over_groups(size_t(rows), size_t(tokens), width, [&](size_t at, size_t count, size_t byte) {
        const auto record = record_at<uint16_t, uint32_t>(out + byte, width);
        return over_channels(level, width, [&](const Kernels& k, size_t first, size_t channels) {
          return k.quantise[dtype](values + at + first, count, channels, from(record, first));
        });
      });
  return finite ? kDone : kNotFinite;
}

KVLINK_EXPORT int32_t kvlink_int4_dequantise(int32_t level, int32_t dtype, const uint8_t* payload, int64_t rows,
                               int64_t tokens, int64_t channels, uint16_t* out) {
  using namespace kvlink;
  if (!fits(level, dtype, rows, tokens, channels)) return kBadArgument;
  const size_t width = size_t(channels);
  const bool stream = reinterpret_cast<uintptr_t>(out) % kLineBytes == 0 &&
                      width * 2 % kLineBytes == 0 &&
                      size_t(rows) * size_t(tokens) * width * 2 >= kStreamBytes;
  const bool valid =
      over_groups(size_t(rows), size_t(tokens), width, [&](size_t at, size_t count, size_t byte) {
        const auto record = record_at<const uint16_t, const uint32_t>(payload + byte, width);
        return over_channels(level, width, [&](const Kernels& k, size_t first, size_t channels) {
          return k.dequantise[dtype](from(record, first), count, channels, stream,
                                     out + at + first);
        });
      });
#if defined(__x86_64__)
  if (stream) __builtin_ia32_sfence();  // streamed stores are visible before the caller goes on
#endif
  return valid ? kDone : kBadScale;
}
}
