// libFuzzer's target for the compiled codec: any payload is refused by all levels of this machine,
// or decoded by all to the same finite values; what was decoded is encoded and decoded again.
// Built by `make fuzz` where there is a clang, with AddressSanitizer and UBSan.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" {
int32_t kvlink_int4_level();
int32_t kvlink_int4_quantise(int32_t, int32_t, const uint16_t*, int64_t, int64_t, int64_t, uint8_t*);
int32_t kvlink_int4_dequantise(int32_t, int32_t, const uint8_t*, int64_t, int64_t, int64_t, uint16_t*);
}

namespace {

size_t packed_bytes(size_t rows, size_t tokens, size_t channels) {
  size_t lines = 0, groups = tokens < 64 ? 1 : tokens / 64;
  for (size_t g = 0; g < groups; ++g)
    lines += 1 + ((g + 1 == groups ? tokens - 64 * g : 64) + 7) / 8;
  return 4 * rows * lines * channels;
}

void check(bool kept) {
  if (!kept) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 5) return 0;
  const size_t rows = 1 + data[0] % 3, tokens = 1 + data[1] % 140, channels = 2 * (1 + data[2] % 40);
  const int32_t dtype = data[3] % 2;
  const uint16_t exponent = dtype == 0 ? 0x7F80 : 0x7C00;
  // Exactly as long as it must be: one byte read beyond it is seen.
  std::vector<uint8_t> payload(packed_bytes(rows, tokens, channels));
  for (size_t at = 0; at < payload.size(); ++at) payload[at] = data[4 + at % (size - 4)];
  std::vector<uint16_t> first(rows * tokens * channels), other(first.size());
  int32_t first_status = 0;
  for (int32_t level = 0; level <= kvlink_int4_level(); ++level) {
    std::vector<uint16_t>& got = level == 0 ? first : other;
    const int32_t status = kvlink_int4_dequantise(level, dtype, payload.data(), int64_t(rows),
                                                  int64_t(tokens), int64_t(channels), got.data());
    if (level == 0) first_status = status;
    check(status == first_status && (status == 0 || status == 2));
    if (status != 0) continue;
    for (uint16_t value : got) check((value & 0x7FFF) < exponent);
    check(std::memcmp(first.data(), got.data(), 2 * got.size()) == 0);
    std::vector<uint8_t> again(payload.size());
    check(kvlink_int4_quantise(level, dtype, got.data(), int64_t(rows), int64_t(tokens),
                               int64_t(channels), again.data()) == 0);
    check(kvlink_int4_dequantise(level, dtype, again.data(), int64_t(rows), int64_t(tokens),
                                 int64_t(channels), other.data()) == 0);
  }
  return 0;
}
