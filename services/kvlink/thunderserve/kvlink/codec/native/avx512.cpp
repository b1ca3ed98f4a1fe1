// x86-64 with AVX-512 F, BW and DQ: 32 channels at a time.
#if defined(__x86_64__)
#include <immintrin.h>

#define KVLINK_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c")))
#define KVLINK_OP KVLINK_TARGET static inline __attribute__((always_inline))
#include "kernel.h"

namespace kvlink {
namespace {

constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

struct Avx512 {
  static constexpr size_t kChannels = 32;
  using U = __m512i;
  using F = __m512;
  struct Pair {
    F part[2];
  };
  struct Codes {
    __m512i part[2];
  };

  KVLINK_OP U set16(uint16_t x) { return _mm512_set1_epi16(short(x)); }
  KVLINK_OP U load(const uint16_t* p) { return _mm512_loadu_si512(p); }
  KVLINK_OP void store(uint16_t* p, U x) { _mm512_storeu_si512(p, x); }
  KVLINK_OP void stream(uint16_t* p, U x) { _mm512_stream_si512(reinterpret_cast<U*>(p), x); }
  KVLINK_OP U and16(U a, U b) { return _mm512_and_si512(a, b); }
  KVLINK_OP U or16(U a, U b) { return _mm512_or_si512(a, b); }
  KVLINK_OP U and_not(U a, U b) { return _mm512_andnot_si512(a, b); }
  KVLINK_OP U not16(U a) { return _mm512_andnot_si512(a, set16(0xFFFF)); }
  KVLINK_OP U below(U a, U b) { return _mm512_movm_epi16(_mm512_cmplt_epu16_mask(a, b)); }
  KVLINK_OP U equal(U a, U b) { return _mm512_movm_epi16(_mm512_cmpeq_epi16_mask(a, b)); }
  KVLINK_OP bool any(U a) { return _mm512_test_epi16_mask(a, a) != 0; }
  KVLINK_OP U max_unsigned(U a, U b) { return _mm512_max_epu16(a, b); }
  KVLINK_OP U min_unsigned(U a, U b) { return _mm512_min_epu16(a, b); }
  KVLINK_OP U max_signed(U a, U b) { return _mm512_max_epi16(a, b); }
  KVLINK_OP U if_negative(U test, U yes, U no) {
    return _mm512_mask_blend_epi16(_mm512_movepi16_mask(test), no, yes);
  }

  KVLINK_OP F set(float x) { return _mm512_set1_ps(x); }
  KVLINK_OP F load(const float* p) { return _mm512_load_ps(p); }
  KVLINK_OP void store(float* p, F x) { _mm512_store_ps(p, x); }
  KVLINK_OP F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  KVLINK_OP F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  KVLINK_OP F mul_add(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  KVLINK_OP F mul_sub(F a, F b, F c) { return _mm512_fmsub_ps(a, b, c); }
  KVLINK_OP F truncate(F a) {
    return _mm512_and_ps(a, _mm512_castsi512_ps(_mm512_set1_epi32(int(kHalfStepMask))));
  }
  KVLINK_OP F inverse(F a) {
    const __mmask16 some = _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_GT_OQ);
    return _mm512_maskz_div_ps(some, set(1.0f), a);
  }
  KVLINK_OP bool any_negative(F a) {
    return _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_LT_OQ) != 0;
  }

  // bfloat16: even channels and odd ones, for each is one instruction away from its float.
  KVLINK_OP Pair widen(U x, BFloat16) {
    const U odd = _mm512_and_si512(x, _mm512_set1_epi32(int(0xFFFF0000)));
    return {{_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)), _mm512_castsi512_ps(odd)}};
  }
  KVLINK_OP __m512i rounded(F x) {
    const __m512i b = _mm512_castps_si512(x), one = _mm512_set1_epi32(1);
    const __m512i tie = _mm512_and_si512(_mm512_srli_epi32(b, 16), one);
    return _mm512_add_epi32(_mm512_add_epi32(b, _mm512_set1_epi32(0x7FFF)), tie);
  }
  KVLINK_OP U narrow(F even, F odd, BFloat16) {
    return _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(rounded(even), 16), rounded(odd));
  }
  KVLINK_OP void store_words(uint32_t* p, __m512i even, __m512i odd, BFloat16) {
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    _mm512_storeu_si512(p, _mm512_permutex2var_epi32(even, first, odd));
    _mm512_storeu_si512(p + 16, _mm512_permutex2var_epi32(even, second, odd));
  }
  KVLINK_OP Codes load_codes(const uint32_t* p, BFloat16) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + 16);
    return {{_mm512_permutex2var_epi32(a, even, b), _mm512_permutex2var_epi32(a, odd, b)}};
  }

  // float16: the first sixteen channels and the second, as the instructions want them.
  KVLINK_OP Pair widen(U x, Float16) {
    return {{_mm512_cvtph_ps(_mm512_castsi512_si256(x)),
             _mm512_cvtph_ps(_mm512_extracti64x4_epi64(x, 1))}};
  }
  KVLINK_OP U narrow(F first, F second, Float16) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtps_ph(first, kNearest)),
                              _mm512_cvtps_ph(second, kNearest), 1);
  }
  KVLINK_OP void store_words(uint32_t* p, __m512i first, __m512i second, Float16) {
    _mm512_storeu_si512(p, first);
    _mm512_storeu_si512(p + 16, second);
  }
  KVLINK_OP Codes load_codes(const uint32_t* p, Float16) {
    return {{_mm512_loadu_si512(p), _mm512_loadu_si512(p + 16)}};
  }

  KVLINK_OP __m512i zero() { return _mm512_setzero_si512(); }
  KVLINK_OP __m512i add_code(__m512i word, F x, size_t token) {
    const __m512i code = _mm512_cvt_roundps_epi32(x, kNearest);
    return _mm512_or_si512(word, _mm512_slli_epi32(code, unsigned(4 * token)));
  }
  // A permutation reads the lowest four bits of its index: no mask, no conversion.
  KVLINK_OP F level(__m512i word, size_t token) {
    const F levels = _mm512_setr_ps(-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(word, unsigned(4 * token)), levels);
  }
  KVLINK_OP Pair levels(const Codes& codes, size_t token) {
    return {{level(codes.part[0], token), level(codes.part[1], token)}};
  }
};

}  // namespace

const Kernels kAvx512 = kernels_of<Avx512>();

}  // namespace kvlink
#endif
