// Runs the codec on blocks and on mutated payloads, for AddressSanitizer and UBSan to watch.
// Prints how many payloads were read; exits with 1 when a decoded value is not finite.
#include <cstdint>
#include <cstdio>
#include <vector>

extern "C" {
int32_t kvlink_int4_level();
int32_t kvlink_int4_quantise(int32_t, int32_t, const uint16_t*, int64_t, int64_t, int64_t, uint8_t*);
int32_t kvlink_int4_dequantise(int32_t, int32_t, const uint8_t*, int64_t, int64_t, int64_t, uint16_t*);
}

static uint64_t state = 1;
static uint32_t draw() {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return uint32_t(state >> 33);
}

static size_t packed_bytes(size_t rows, size_t tokens, size_t channels) {
  size_t lines = 0, groups = tokens < 64 ? 1 : tokens / 64;
  for (size_t g = 0; g < groups; ++g)
    lines += 1 + ((g + 1 == groups ? tokens - 64 * g : 64) + 7) / 8;
  return 4 * rows * lines * channels;
}

int main() {
  const size_t shapes[][3] = {{1, 1, 2}, {2, 7, 18}, {1, 64, 34}, {2, 131, 50}, {1, 127, 66}};
  const uint16_t exponents[] = {0x7F80, 0x7C00};
  long count = 0;
  for (int level = 0; level <= kvlink_int4_level(); ++level)
    for (int dtype = 0; dtype < 2; ++dtype)
      for (const auto& s : shapes) {
        std::vector<uint16_t> values(s[0] * s[1] * s[2]), got(values.size());
        for (auto& v : values) {
          v = uint16_t(draw());
          if ((v & 0x7FFF) >= exponents[dtype]) v &= 0x83FF;
        }
        std::vector<uint8_t> payload(packed_bytes(s[0], s[1], s[2]));
        if (kvlink_int4_quantise(level, dtype, values.data(), s[0], s[1], s[2], payload.data()))
          return 1;
        for (int round = 0; round < 100; ++round, ++count) {
          std::vector<uint8_t> hostile = payload;
          for (int n = round % 9; n > 0; --n) hostile[draw() % hostile.size()] = uint8_t(draw());
          const int status =
              kvlink_int4_dequantise(level, dtype, hostile.data(), s[0], s[1], s[2], got.data());
          if (status == 0)
            for (uint16_t v : got)
              if ((v & 0x7FFF) >= exponents[dtype]) return 1;
          values[draw() % values.size()] = uint16_t(draw());  // NaN at times: refused, not crashed
          kvlink_int4_quantise(level, dtype, values.data(), s[0], s[1], s[2], hostile.data());
        }
      }
  std::printf("%ld\n", count);
}
