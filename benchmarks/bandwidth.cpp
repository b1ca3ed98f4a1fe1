// What one core can read and write at all: the limits that a codec is held against.
#include <cstddef>
#include <immintrin.h>

extern "C" __attribute__((target("avx512f"))) long long read_all(const char* p, size_t bytes) {
  __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
  for (size_t i = 0; i + 256 <= bytes; i += 256) {
    a = _mm512_or_si512(a, _mm512_load_si512(p + i));
    b = _mm512_or_si512(b, _mm512_load_si512(p + i + 64));
    c = _mm512_or_si512(c, _mm512_load_si512(p + i + 128));
    d = _mm512_or_si512(d, _mm512_load_si512(p + i + 192));
  }
  return _mm512_reduce_or_epi64(_mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d)));
}

extern "C" __attribute__((target("avx512f"))) void stream_all(char* p, size_t bytes) {
  const __m512i x = _mm512_set1_epi32(1);
  for (size_t i = 0; i + 64 <= bytes; i += 64)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p + i), x);
  _mm_sfence();
}
