// x86-64 with AVX2, FMA and F16C: 16 channels at a time.
#if defined(__x86_64__)
#include <immintrin.h>

#define KVLINK_TARGET __attribute__((target("avx2,fma,f16c")))
#define KVLINK_OP KVLINK_TARGET static inline __attribute__((always_inline))
#include "kernel.h"

namespace kvlink {
namespace {

struct Avx2 {
  static constexpr size_t kChannels = 16;
  using U = __m256i;
  using F = __m256;
  struct Pair {
    F part[2];
  };
  struct Words {
    __m256i part[2];
  };
  // Tokens 0 and 2, 1 and 3, 4 and 6, 5 and 7: the levels of both in each channel's 32 bits.
  struct Codes {
    __m256i pairs[4][2];
  };

  KVLINK_OP __m256i load_bits(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  KVLINK_OP void store_bits(void* p, __m256i x) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), x);
  }

  KVLINK_OP U set16(uint16_t x) { return _mm256_set1_epi16(short(x)); }
  KVLINK_OP U load(const uint16_t* p) { return load_bits(p); }
  KVLINK_OP void store(uint16_t* p, U x) { store_bits(p, x); }
  KVLINK_OP void stream(uint16_t* p, U x) { _mm256_stream_si256(reinterpret_cast<U*>(p), x); }
  KVLINK_OP U and16(U a, U b) { return _mm256_and_si256(a, b); }
  KVLINK_OP U or16(U a, U b) { return _mm256_or_si256(a, b); }
  KVLINK_OP U and_not(U a, U b) { return _mm256_andnot_si256(a, b); }
  KVLINK_OP U not16(U a) { return _mm256_andnot_si256(a, set16(0xFFFF)); }
  KVLINK_OP U equal(U a, U b) { return _mm256_cmpeq_epi16(a, b); }
  KVLINK_OP U below(U a, U b) { return not16(equal(_mm256_max_epu16(a, b), a)); }
  KVLINK_OP bool any(U a) { return !_mm256_testz_si256(a, a); }
  KVLINK_OP U max_unsigned(U a, U b) { return _mm256_max_epu16(a, b); }
  KVLINK_OP U min_unsigned(U a, U b) { return _mm256_min_epu16(a, b); }
  KVLINK_OP U max_signed(U a, U b) { return _mm256_max_epi16(a, b); }
  KVLINK_OP U if_negative(U test, U yes, U no) {
    return _mm256_blendv_epi8(no, yes, _mm256_srai_epi16(test, 15));
  }

  KVLINK_OP F set(float x) { return _mm256_set1_ps(x); }
  KVLINK_OP F load(const float* p) { return _mm256_load_ps(p); }
  KVLINK_OP void store(float* p, F x) { _mm256_store_ps(p, x); }
  KVLINK_OP F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  KVLINK_OP F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  KVLINK_OP F mul_add(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  KVLINK_OP F mul_sub(F a, F b, F c) { return _mm256_fmsub_ps(a, b, c); }
  KVLINK_OP F truncate(F a) {
    return _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(int(kHalfStepMask))));
  }
  KVLINK_OP F inverse(F a) {
    const F some = _mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_GT_OQ);
    return _mm256_and_ps(some, _mm256_div_ps(set(1.0f), a));
  }
  KVLINK_OP bool any_negative(F a) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_LT_OQ)) != 0;
  }

  // The lower halves of 32-bit lanes, and the upper ones.
  KVLINK_OP Words apart(__m256i a, __m256i b) {
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    const __m256i first = _mm256_shuffle_epi8(a, order), second = _mm256_shuffle_epi8(b, order);
    return {{_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second)}};
  }

  // bfloat16: the parts of a Pair are the lower and the upper four channels of each half of a
  // vector, 0-3 and 8-11, 4-7 and 12-15: the order in which instructions unpack and pack.
  KVLINK_OP Pair widen(U x, BFloat16) {
    const U zero = _mm256_setzero_si256();
    return {{_mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, x)),
             _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, x))}};
  }
  // Rounds up where the lower half, the lowest bit of the upper and 0x7FFF give a carry, which an
  // average, half of a sum, keeps in its highest bit.
  KVLINK_OP U narrow(F first, F second, BFloat16) {
    const Words halves = apart(_mm256_castps_si256(first), _mm256_castps_si256(second));
    const U lower = halves.part[0], upper = halves.part[1];
    const U odd = or16(and16(upper, set16(1)), set16(0x7FFE));
    return _mm256_add_epi16(upper, _mm256_srli_epi16(_mm256_avg_epu16(lower, odd), 15));
  }

  KVLINK_OP void store_words(uint32_t* p, __m256i first, __m256i second, BFloat16) {
    store_bits(p, _mm256_permute2x128_si256(first, second, 0x20));
    store_bits(p + 8, _mm256_permute2x128_si256(first, second, 0x31));
  }
  KVLINK_OP Words load_words(const uint32_t* p, BFloat16) {
    const __m256i a = load_bits(p), b = load_bits(p + 8);
    return {{_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31)}};
  }

  // float16: the first eight channels and the second, as the instructions want them.
  KVLINK_OP Pair widen(U x, Float16) {
    return {{_mm256_cvtph_ps(_mm256_castsi256_si128(x)),
             _mm256_cvtph_ps(_mm256_extracti128_si256(x, 1))}};
  }
  KVLINK_OP U narrow(F first, F second, Float16) {
    return _mm256_set_m128i(_mm256_cvtps_ph(second, _MM_FROUND_TO_NEAREST_INT),
                            _mm256_cvtps_ph(first, _MM_FROUND_TO_NEAREST_INT));
  }
  KVLINK_OP void store_words(uint32_t* p, __m256i first, __m256i second, Float16) {
    store_bits(p, first);
    store_bits(p + 8, second);
  }
  KVLINK_OP Words load_words(const uint32_t* p, Float16) {
    return {{load_bits(p), load_bits(p + 8)}};
  }

  // Four tokens of a channel are 16 bits; two of them, as levels, are the halves of 32.
  template <class D>
  KVLINK_OP Codes load_codes(const uint32_t* p, D d) {
    const Words words = load_words(p, d), halves = apart(words.part[0], words.part[1]);
    Codes codes;
    put_levels(codes.pairs, halves.part[0]);
    put_levels(codes.pairs + 2, halves.part[1]);
    return codes;
  }
  KVLINK_OP void put_levels(__m256i (*pairs)[2], U tokens) {
    const U mask = set16(0x0F0F);
    put_pair(pairs[0], and16(tokens, mask));
    put_pair(pairs[1], and16(_mm256_srli_epi16(tokens, 4), mask));
  }
  // Bytes 0 to 15 to the upper halves of the floats -15, -13 to 15.
  KVLINK_OP void put_pair(__m256i* pair, U codes) {
    const __m256i upper = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        char(0xC1), char(0xC1), char(0xC1), char(0xC1), char(0xC0), char(0xC0), char(0xC0),
        char(0xBF), 0x3F, 0x40, 0x40, 0x40, 0x41, 0x41, 0x41, 0x41));
    const __m256i lower = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0x70, 0x50, 0x30, 0x10, char(0xE0), char(0xA0), 0x40, char(0x80),
                      char(0x80), 0x40, char(0xA0), char(0xE0), 0x10, 0x30, 0x50, 0x70));
    const __m256i u = _mm256_shuffle_epi8(upper, codes), l = _mm256_shuffle_epi8(lower, codes);
    pair[0] = _mm256_unpacklo_epi8(l, u);
    pair[1] = _mm256_unpackhi_epi8(l, u);
  }
  KVLINK_OP Pair levels(const Codes& codes, size_t token) {
    const __m256i* pair = codes.pairs[token / 4 * 2 + token % 2];
    return {{half_of(pair[0], token), half_of(pair[1], token)}};
  }
  KVLINK_OP F half_of(__m256i pair, size_t token) {
    return _mm256_castsi256_ps(token % 4 < 2 ? _mm256_slli_epi32(pair, 16)
                                             : _mm256_and_si256(pair, _mm256_set1_epi32(int(0xFFFF0000))));
  }

  KVLINK_OP __m256i zero() { return _mm256_setzero_si256(); }
  KVLINK_OP __m256i add_code(__m256i word, F x, size_t token) {
    const __m256i code = _mm256_cvtps_epi32(x);
    return _mm256_or_si256(word, _mm256_slli_epi32(code, int(4 * token)));
  }
};

}  // namespace

const Kernels kAvx2 = kernels_of<Avx2>();

}  // namespace kvlink
#endif
