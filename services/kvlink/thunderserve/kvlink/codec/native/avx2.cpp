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

  // bfloat16: even channels and odd ones, for each is one instruction away from its float.
  KVLINK_OP Pair widen(U x, BFloat16) {
    const U odd = _mm256_and_si256(x, _mm256_set1_epi32(int(0xFFFF0000)));
    return {{_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)), _mm256_castsi256_ps(odd)}};
  }
  KVLINK_OP __m256i rounded(F x) {
    const __m256i b = _mm256_castps_si256(x), one = _mm256_set1_epi32(1);
    const __m256i tie = _mm256_and_si256(_mm256_srli_epi32(b, 16), one);
    return _mm256_add_epi32(_mm256_add_epi32(b, _mm256_set1_epi32(0x7FFF)), tie);
  }
  KVLINK_OP U narrow(F even, F odd, BFloat16) {
    return _mm256_blend_epi16(_mm256_srli_epi32(rounded(even), 16), rounded(odd), 0xAA);
  }
  KVLINK_OP void store_words(uint32_t* p, __m256i even, __m256i odd, BFloat16) {
    const __m256i low = _mm256_unpacklo_epi32(even, odd), high = _mm256_unpackhi_epi32(even, odd);
    store_bits(p, _mm256_permute2x128_si256(low, high, 0x20));
    store_bits(p + 8, _mm256_permute2x128_si256(low, high, 0x31));
  }
  KVLINK_OP Words load_words(const uint32_t* p, BFloat16) {
    const F a = _mm256_castsi256_ps(load_bits(p)), b = _mm256_castsi256_ps(load_bits(p + 8));
    const __m256i even = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
    const __m256i odd = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD));
    return {{_mm256_permute4x64_epi64(even, 0xD8), _mm256_permute4x64_epi64(odd, 0xD8)}};
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

  KVLINK_OP __m256i zero() { return _mm256_setzero_si256(); }
  KVLINK_OP __m256i add_code(__m256i word, F x, size_t token) {
    const __m256i code = _mm256_cvtps_epi32(x);
    return _mm256_or_si256(word, _mm256_slli_epi32(code, int(4 * token)));
  }
  KVLINK_OP F level(__m256i word, size_t token) {
    const __m256i code = _mm256_srli_epi32(word, int(4 * token));
    const F number = _mm256_cvtepi32_ps(_mm256_and_si256(code, _mm256_set1_epi32(15)));
    return _mm256_fmsub_ps(number, set(2.0f), set(15.0f));
  }
};

}  // namespace

const Kernels kAvx2 = kernels_of<Avx2>();

}  // namespace kvlink
#endif
