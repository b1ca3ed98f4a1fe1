// The algorithm, once for every instruction set: each includes this file with its own `Vector`
// and KVLINK_TARGET, and so makes the same bits.
//
// A Vector has `kChannels` 16-bit lanes (U), which widen to two vectors of floats (Pair); which
// lanes go to which is the Vector's own affair.

#include "format.h"

namespace kvlink {
namespace {

template <class V>
struct Ends {
  typename V::U least, greatest;
  bool valid;
};

// Makes ends canonical: +0 for -0, and zero for a group whose every value is below kSmallest, so
// that no backend meets a subnormal float that matters.
template <class V, class D>
KVLINK_TARGET inline Ends<V> canonical(typename V::U least, typename V::U greatest) {
  using U = typename V::U;
  const U exponent = V::set16(D::kExponent), mask = V::set16(0x7FFF);
  const U size = V::max_unsigned(V::and16(least, mask), V::and16(greatest, mask));
  const bool valid = !V::any(V::not16(V::below(size, exponent)));
  const U zero = V::below(size, V::set16(D::kSmallest)), minus = V::set16(0x8000);
  least = V::and_not(V::or16(zero, V::equal(least, minus)), least);
  greatest = V::and_not(V::or16(zero, V::equal(greatest, minus)), greatest);
  return {least, greatest, valid};
}

template <class V>
KVLINK_TARGET inline typename V::F half_step(typename V::F least, typename V::F greatest) {
  const auto half = V::set(0.5f);
  const auto range = V::sub(V::mul(greatest, half), V::mul(least, half));
  return V::truncate(V::mul(range, V::set(kFifteenth)));
}

// Least and greatest of each channel from the bit patterns alone: as unsigned numbers negative
// values are the greatest and grow away from zero.
template <class V>
struct Extremes {
  alignas(64) uint16_t most_signed[kTileChannels], most[kTileChannels], fewest[kTileChannels];

  KVLINK_TARGET void start(size_t count) {
    for (size_t c = 0; c < count; c += V::kChannels) {
      V::store(most_signed + c, V::set16(0x8000));
      V::store(most + c, V::set16(0));
      V::store(fewest + c, V::set16(0xFFFF));
    }
  }

  KVLINK_TARGET void add(const uint16_t* values, size_t stride, size_t tokens, size_t count) {
    for (size_t c = 0; c < count; c += V::kChannels) {
      auto a = V::load(most_signed + c), b = V::load(most + c), l = V::load(fewest + c);
      for (size_t t = 0; t < tokens; ++t) {
        const auto x = V::load(values + t * stride + c);
        a = V::max_signed(a, x);
        b = V::max_unsigned(b, x);
        l = V::min_unsigned(l, x);
      }
      V::store(most_signed + c, a);
      V::store(most + c, b);
      V::store(fewest + c, l);
    }
  }

  template <class D>
  KVLINK_TARGET Ends<V> ends(size_t c) const {
    const auto a = V::load(most_signed + c), b = V::load(most + c), l = V::load(fewest + c);
    return canonical<V, D>(V::if_negative(b, b, l), V::if_negative(a, l, a));
  }
};

template <class V, class D>
struct Quantiser {
  using F = typename V::F;
  alignas(64) float half_least[kTileChannels], inverse[kTileChannels];

  KVLINK_TARGET bool scales(const Extremes<V>& extremes, size_t count, Encoded record) {
    bool valid = true;
    for (size_t c = 0; c < count; c += V::kChannels) {
      const Ends<V> ends = extremes.template ends<D>(c);
      valid &= ends.valid;
      V::store(record.least + c, ends.least);
      V::store(record.greatest + c, ends.greatest);
      const auto low = V::widen(ends.least, D{}), high = V::widen(ends.greatest, D{});
      for (size_t i = 0; i < 2; ++i) {
        const size_t at = c + i * (V::kChannels / 2);
        V::store(half_least + at, V::mul(low.part[i], V::set(0.5f)));
        V::store(inverse + at, V::inverse(half_step<V>(low.part[i], high.part[i])));
      }
    }
    return valid;
  }

  template <size_t kTokens>
  KVLINK_TARGET void word(const uint16_t* values, size_t stride, size_t tokens, size_t count,
                          uint32_t* words) const {
    const F half = V::set(0.5f);
    for (size_t c = 0; c < count; c += V::kChannels) {
      const F l0 = V::load(half_least + c), l1 = V::load(half_least + c + V::kChannels / 2);
      const F i0 = V::load(inverse + c), i1 = V::load(inverse + c + V::kChannels / 2);
      auto w0 = V::zero(), w1 = V::zero();
      for (size_t t = 0; t < (kTokens ? kTokens : tokens); ++t) {
        const auto x = V::widen(V::load(values + t * stride + c), D{});
        w0 = V::add_code(w0, V::mul(V::mul_sub(x.part[0], half, l0), i0), t);
        w1 = V::add_code(w1, V::mul(V::mul_sub(x.part[1], half, l1), i1), t);
      }
      V::store_words(words + c, w0, w1, D{});
    }
  }
};

template <class V, class D>
KVLINK_TARGET bool quantise(const uint16_t* values, size_t tokens, size_t count, Encoded record) {
  Extremes<V> extremes;
  Quantiser<V, D> quantiser;
  const size_t stride = record.channels;
  extremes.start(count);
  for (size_t t = 0; t < tokens; t += kWordTokens) {
    const size_t left = tokens - t < kWordTokens ? tokens - t : kWordTokens;
    extremes.add(values + t * stride, stride, left, count);
  }
  if (!quantiser.scales(extremes, count, record)) return false;
  for (size_t t = 0; t < tokens; t += kWordTokens) {
    const uint16_t* row = values + t * stride;
    uint32_t* words = record.codes + t / kWordTokens * stride;
    if (tokens - t >= kWordTokens)
      quantiser.template word<kWordTokens>(row, stride, kWordTokens, count, words);
    else
      quantiser.template word<0>(row, stride, tokens - t, count, words);
  }
  return true;
}

inline void prefetch(const uint32_t* words, size_t ahead, size_t line) {
  const uintptr_t address = uintptr_t(words) + ahead * sizeof *words + 64 * line;
  __builtin_prefetch(reinterpret_cast<const void*>(address));
}

template <class V, class D>
struct Dequantiser {
  using F = typename V::F;
  static constexpr size_t kRun = 4 * V::kChannels;
  static constexpr size_t kLines = V::kChannels * sizeof(uint32_t) / 64;  // of a vector's codes
  alignas(64) float middle[kTileChannels], half[kTileChannels];

  KVLINK_TARGET bool scales(ConstEncoded record, size_t count) {
    bool valid = true;
    for (size_t c = 0; c < count; c += V::kChannels) {
      const Ends<V> ends =
          canonical<V, D>(V::load(record.least + c), V::load(record.greatest + c));
      valid &= ends.valid;
      const auto low = V::widen(ends.least, D{}), high = V::widen(ends.greatest, D{});
      for (size_t i = 0; i < 2; ++i) {
        const size_t at = c + i * (V::kChannels / 2);
        const F step = half_step<V>(low.part[i], high.part[i]), one_half = V::set(0.5f);
        valid &= !V::any_negative(step);
        V::store(half + at, step);
        V::store(middle + at, V::mul_add(low.part[i], one_half, V::mul(high.part[i], one_half)));
      }
    }
    return valid;
  }

  // A few vectors of one token, then of the next: whole runs of lines are written at a time. The
  // codes of two words on are fetched meanwhile; beyond the payload that asks for nothing.
  template <size_t kTokens, bool kStream>
  KVLINK_TARGET void word(const uint32_t* words, size_t stride, size_t tokens, size_t count,
                          uint16_t* values) const {
    typename V::Codes codes[kRun / V::kChannels];
    for (size_t first = 0; first < count; first += kRun) {
      const size_t end = first + kRun < count ? first + kRun : count;
      for (size_t c = first; c < end; c += V::kChannels)
        codes[(c - first) / V::kChannels] = V::load_codes(words + c, D{});
      for (size_t t = 0; t < (kTokens ? kTokens : tokens); ++t) {
        for (size_t c = first; c < end; c += V::kChannels) {
          if (t < kLines) prefetch(words, c + 2 * stride, t);
          const F m0 = V::load(middle + c), m1 = V::load(middle + c + V::kChannels / 2);
          const F h0 = V::load(half + c), h1 = V::load(half + c + V::kChannels / 2);
          const auto level = V::levels(codes[(c - first) / V::kChannels], t);
          const F x0 = V::mul_add(level.part[0], h0, m0);
          const F x1 = V::mul_add(level.part[1], h1, m1);
          const auto narrow = V::narrow(x0, x1, D{});
          if (kStream)
            V::stream(values + t * stride + c, narrow);
          else
            V::store(values + t * stride + c, narrow);
        }
      }
    }
  }

  template <bool kStream>
  KVLINK_TARGET void group(ConstEncoded record, size_t tokens, size_t count,
                           uint16_t* values) const {
    const size_t stride = record.channels;
    for (size_t t = 0; t < tokens; t += kWordTokens) {
      const uint32_t* words = record.codes + t / kWordTokens * stride;
      uint16_t* row = values + t * stride;
      if (tokens - t >= kWordTokens)
        word<kWordTokens, kStream>(words, stride, kWordTokens, count, row);
      else
        word<0, kStream>(words, stride, tokens - t, count, row);
    }
  }
};

template <class V, class D>
KVLINK_TARGET bool dequantise(ConstEncoded record, size_t tokens, size_t count, bool stream,
                              uint16_t* values) {
  Dequantiser<V, D> dequantiser;
  if (!dequantiser.scales(record, count)) return false;
  if (stream)
    dequantiser.template group<true>(record, tokens, count, values);
  else
    dequantiser.template group<false>(record, tokens, count, values);
  return true;
}

template <class V>
constexpr Kernels kernels_of() {
  return {V::kChannels,
          {quantise<V, BFloat16>, quantise<V, Float16>},
          {dequantise<V, BFloat16>, dequantise<V, Float16>}};
}

}  // namespace
}  // namespace kvlink
