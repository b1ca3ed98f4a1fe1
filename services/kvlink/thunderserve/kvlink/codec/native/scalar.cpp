// Any machine: two channels at a time, plain C++.
#include <cstring>

#define KVLINK_TARGET
#include "kernel.h"

namespace kvlink {
namespace {

template <class To, class From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline float widened(uint16_t x, BFloat16) { return bits<float>(uint32_t{x} << 16); }

inline float widened(uint16_t x, Float16) {
  const uint32_t sign = uint32_t(x & 0x8000) << 16, size = uint32_t(x & 0x7FFF) << 13;
  // A half read as a float is 2^-112 of itself; subnormals come right with it.
  const float value = bits<float>(size) * 0x1p112f;
  return bits<float>(bits<uint32_t>(value) | sign);
}

inline uint16_t narrowed(float x, BFloat16) {
  const uint32_t b = bits<uint32_t>(x);
  return uint16_t((b + 0x7FFF + ((b >> 16) & 1)) >> 16);
}

inline uint16_t narrowed(float x, Float16) {
  const uint32_t b = bits<uint32_t>(x), sign = (b >> 16) & 0x8000, size = b & 0x7FFFFFFF;
  if (size < 0x38800000) {  // below 2^-14: let the float addition round at 2^-24
    const float shifted = bits<float>(size) + 0.5f;
    return uint16_t(sign | (bits<uint32_t>(shifted) - 0x3F000000));
  }
  const uint32_t rounded = size + 0xFFF + ((size >> 13) & 1);
  return uint16_t(sign | ((rounded - 0x38000000) >> 13));
}

struct Scalar {
  static constexpr size_t kChannels = 2;
  struct U {
    uint16_t lane[2];
  };
  using F = float;
  struct Pair {
    F part[2];
  };
  struct Codes {
    uint32_t part[2];
  };

  template <class Function>
  static U each(U a, U b, Function f) {
    return {{uint16_t(f(a.lane[0], b.lane[0])), uint16_t(f(a.lane[1], b.lane[1]))}};
  }
  static U set16(uint16_t x) { return {{x, x}}; }
  static U load(const uint16_t* p) { return {{p[0], p[1]}}; }
  static void store(uint16_t* p, U x) { p[0] = x.lane[0], p[1] = x.lane[1]; }
  static void stream(uint16_t* p, U x) { store(p, x); }
  static U and16(U a, U b) { return each(a, b, [](int x, int y) { return x & y; }); }
  static U or16(U a, U b) { return each(a, b, [](int x, int y) { return x | y; }); }
  static U and_not(U a, U b) { return each(a, b, [](int x, int y) { return ~x & y; }); }
  static U not16(U a) { return and_not(a, set16(0xFFFF)); }
  static U below(U a, U b) { return each(a, b, [](int x, int y) { return x < y ? 0xFFFF : 0; }); }
  static U equal(U a, U b) { return each(a, b, [](int x, int y) { return x == y ? 0xFFFF : 0; }); }
  static bool any(U a) { return (a.lane[0] | a.lane[1]) != 0; }
  static U max_unsigned(U a, U b) { return each(a, b, [](int x, int y) { return x > y ? x : y; }); }
  static U min_unsigned(U a, U b) { return each(a, b, [](int x, int y) { return x < y ? x : y; }); }
  static U max_signed(U a, U b) {
    return each(a, b, [](int x, int y) { return (x ^ 0x8000) > (y ^ 0x8000) ? x : y; });
  }
  static U if_negative(U test, U yes, U no) {
    return {{test.lane[0] & 0x8000 ? yes.lane[0] : no.lane[0],
             test.lane[1] & 0x8000 ? yes.lane[1] : no.lane[1]}};
  }

  static F set(float x) { return x; }
  static F load(const float* p) { return *p; }
  static void store(float* p, F x) { *p = x; }
  static F mul(F a, F b) { return a * b; }
  static F sub(F a, F b) { return a - b; }
  static F mul_add(F a, F b, F c) { return a * b + c; }
  static F mul_sub(F a, F b, F c) { return a * b - c; }
  static F truncate(F a) { return bits<float>(bits<uint32_t>(a) & kHalfStepMask); }
  static F inverse(F a) { return a > 0 ? 1.0f / a : 0.0f; }
  static bool any_negative(F a) { return a < 0; }
  template <class D>
  static Pair widen(U x, D d) {
    return {{widened(x.lane[0], d), widened(x.lane[1], d)}};
  }
  template <class D>
  static U narrow(F a, F b, D d) {
    return {{narrowed(a, d), narrowed(b, d)}};
  }

  static uint32_t zero() { return 0; }
  // Adding 1.5 * 2^23 leaves the nearest integer, ties to even, in the lowest bits.
  static uint32_t add_code(uint32_t word, F x, size_t token) {
    return word | (bits<uint32_t>(x + 0x1.8p23f) & 15) << (4 * token);
  }
  template <class D>
  static void store_words(uint32_t* p, uint32_t a, uint32_t b, D) {
    p[0] = a, p[1] = b;
  }
  template <class D>
  static Codes load_codes(const uint32_t* p, D) {
    return {{p[0], p[1]}};
  }
  static float level(uint32_t word, size_t token) {
    return float(2 * int((word >> (4 * token)) & 15) - 15);
  }
  static Pair levels(const Codes& codes, size_t token) {
    return {{level(codes.part[0], token), level(codes.part[1], token)}};
  }
};

}  // namespace

const Kernels kScalar = kernels_of<Scalar>();

}  // namespace kvlink
