// csrc/partition/lanes.h -- eight doubles at a time, whatever vectors the file is compiled for: with the words of
// Lanes<double> (../lanes_avx512.h), as functions. Internal linkage: see ../sign_changes_row.inl for why.
#pragma once
#if defined(PLR_WARP)
#include "lanes_warp.h"
#else
#include <algorithm>
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include "../lanes_avx512.h"
#elif defined(__AVX2__)
#include "../lanes_avx2.h"
#elif defined(__aarch64__)
#include "../lanes_neon.h"
#else
#include "../lanes_portable.h"
#endif

namespace pylinregion {
namespace {

constexpr int64_t kLanes = 8;
using Bits = uint8_t;  // one for each lane
constexpr uint32_t kAllLanes = 0xff;

// The processor's vectors. Eight doubles are one of them, or a tree of pairs: wider vectors than it has would be kept
// in memory by some compilers.
using Native = Lanes<double>;
using Word = double __attribute__((vector_size(sizeof(Native::V))));
using Mask = decltype(Word{} < Word{});
// Vectors of rows that columns are added to at a time: as many sums as there are registers.
constexpr int kTall = sizeof(Word) == 64 ? 4 : 1;
template <class T> constexpr int kWidth = sizeof(T) / sizeof(double);
template <class Half> struct Pair {
  Half low, high;
  double operator[](int64_t i) const { return i < kWidth<Half> ? low[i] : high[i - kWidth<Half>]; }
};

template <int n> struct Eight {  // doubles as n words
  using Type = Pair<typename Eight<n / 2>::Type>;
};
template <> struct Eight<1> {
  using Type = Word;
};
using V = Eight<kLanes / Native::count>::Type;

// --- words ---

template <class T> struct Make;
template <> struct Make<Word> {
  static Word of(double x) { return Native::set(x); }
  static Word from(const double* memory) { return Native::load(memory); }
};
inline void store(double* to, Word v) { Native::store(to, v); }
inline Word abs(Word v) { return Native::abs(v); }
inline Word min(Word a, Word b) { return Native::min(a, b); }
inline Word max(Word a, Word b) { return Native::max(a, b); }
inline Word multiply_add(Word a, Word b, Word c) { return Native::multiply_add(a, b, c); }
inline uint32_t above(Word a, Word b) { return static_cast<uint32_t>(Native::above(a, b)); }
inline Word select(uint32_t bits, Word yes, Word no) { return Native::select(bits, yes, no); }
inline Mask less(Word a, Word b) { return a < b; }
inline Mask both(Mask a, Mask b) { return a & b; }
inline Word choose(Mask where, Word yes, Word no) { return where ? yes : no; }

// --- pairs ---

template <class T> struct Make<Pair<T> > {
  static Pair<T> of(double x) { return {Make<T>::of(x), Make<T>::of(x)}; }
  static Pair<T> from(const double* memory) { return {Make<T>::from(memory), Make<T>::from(memory + kWidth<T>)}; }
};
template <class T> inline void store(double* to, Pair<T> v) { store(to, v.low), store(to + kWidth<T>, v.high); }
template <class T> inline Pair<T> operator+(Pair<T> a, Pair<T> b) { return {a.low + b.low, a.high + b.high}; }
template <class T> inline Pair<T> operator-(Pair<T> a, Pair<T> b) { return {a.low - b.low, a.high - b.high}; }
template <class T> inline Pair<T> operator*(Pair<T> a, Pair<T> b) { return {a.low * b.low, a.high * b.high}; }
template <class T> inline Pair<T> operator/(Pair<T> a, Pair<T> b) { return {a.low / b.low, a.high / b.high}; }
template <class T> inline Pair<T> operator-(Pair<T> a) { return {-a.low, -a.high}; }
template <class T> inline Pair<T>& operator+=(Pair<T>& a, Pair<T> b) { return a = a + b; }
template <class T> inline Pair<T> abs(Pair<T> v) { return {abs(v.low), abs(v.high)}; }
template <class T> inline Pair<T> min(Pair<T> a, Pair<T> b) { return {min(a.low, b.low), min(a.high, b.high)}; }
template <class T> inline Pair<T> max(Pair<T> a, Pair<T> b) { return {max(a.low, b.low), max(a.high, b.high)}; }
template <class T> inline auto less(Pair<T> a, Pair<T> b) {
  return Pair<decltype(less(a.low, b.low))>{less(a.low, b.low), less(a.high, b.high)};
}
template <class T> inline Pair<T> both(Pair<T> a, Pair<T> b) { return {both(a.low, b.low), both(a.high, b.high)}; }
template <class M, class T> inline Pair<T> choose(Pair<M> where, Pair<T> yes, Pair<T> no) {
  return {choose(where.low, yes.low, no.low), choose(where.high, yes.high, no.high)};
}
template <class T> inline Pair<T> multiply_add(Pair<T> a, Pair<T> b, Pair<T> c) {
  return {multiply_add(a.low, b.low, c.low), multiply_add(a.high, b.high, c.high)};
}
template <class T> inline uint32_t above(Pair<T> a, Pair<T> b) {
  return above(a.low, b.low) | above(a.high, b.high) << kWidth<T>;
}
template <class T> inline Pair<T> select(uint32_t bits, Pair<T> yes, Pair<T> no) {
  const uint32_t mask = (1u << kWidth<T>)-1;
  return {select(bits & mask, yes.low, no.low), select(bits >> kWidth<T>, yes.high, no.high)};
}

// --- eight doubles ---

// Besides the words of Lanes: less is a mask, both of two masks, choose(mask, yes, no) for each lane.
inline V load(const double* from) { return Make<V>::from(from); }
inline V set(double x) { return Make<V>::of(x); }

// As Lanes::compress; returns the end of what is kept.
inline double* compress(double* to, V z, uint32_t bits) {
#if defined(__AVX512F__)
  Native::compress(to, z, bits);
  return to + __builtin_popcount(bits);
#else
  double lanes[kLanes];
  store(lanes, z);
  for (int i = 0; i < kLanes; ++i) {
    *to = lanes[i];
    to += bits >> i & 1;
  }
  return to;
#endif
}
// The same of eight numbers in memory.
inline int32_t* compress(int32_t* to, const int32_t* from, uint32_t bits) {
#if defined(__AVX512F__)
  const __m512i eight = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  const __m512i chosen = _mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), eight);
  std::memcpy(to, &chosen, kLanes * sizeof *to);
  return to + __builtin_popcount(bits);
#else
  for (int i = 0; i < kLanes; ++i) {
    *to = from[i];
    to += bits >> i & 1;
  }
  return to;
#endif
}
// A bit for each of the first n lanes, n > 0.
inline uint32_t first_lanes(int64_t n) { return n >= kLanes ? 0xff : (1u << n) - 1; }

// Bit i to byte i.
inline uint64_t spread(uint32_t bits) {
  const uint64_t copies = (bits & 0x7f) * 0x0002040810204081u & 0x0101010101010101u;  // bits 0 to 6, seven places apart
  return copies | static_cast<uint64_t>(bits >> 7 & 1) << 56;
}
// To eight bytes: 1 where there is a bit in `above`, -1 where there is one in `below`, else 0.
inline void put_signs(int8_t* to, uint32_t is_above, uint32_t is_below) {
  const uint64_t bytes = spread(is_above) + spread(is_below) * 0xff;
  std::memcpy(to, &bytes, sizeof bytes);
}

// Its inverse: byte i of `bytes` [n], which is 0 or 1, to bit i % 8 of bits[i / 8]; n is a multiple of 8.
inline void pack(const uint8_t* bytes, int64_t n, uint8_t* bits) {
  int64_t i = 0;
#if defined(__AVX2__)
  for (; i + 32 <= n; i += 32) {
    __m256i these;
    std::memcpy(&these, bytes + i, sizeof these);
    const uint32_t word = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_slli_epi16(these, 7)));
    std::memcpy(bits + i / 8, &word, sizeof word);
  }
#endif
  for (; i < n; i += 8) {
    uint64_t eight;
    std::memcpy(&eight, bytes + i, sizeof eight);
    bits[i / 8] = static_cast<uint8_t>((eight * 0x0102040810204080u) >> 56);
  }
}

inline int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }
inline double lane(V v, int64_t i) { return v[i]; }

// --- the engine's text, which a warp of a GPU walks, too (lanes_warp.h): there all lanes run what is not of vectors,
// each with the same numbers. So a place in memory is written once before a sync, or by one lane (put, add_to, leads).

#define PLR_ENGINE inline
#define PLR_STEP inline  // on a GPU a function of its own, which keeps less in registers at once
#define PLR_COLD [[gnu::noinline]]

// work(i) for each i in [0, n): in any order, at once.
template <class Work> inline void each(int64_t n, const Work& work) {
  for (int64_t i = 0; i < n; ++i) work(i);
}
// The same for each bit.
template <class Work> inline void each_bit(uint32_t bits, const Work& work) {
  for (; bits; bits &= bits - 1) work(__builtin_ctz(bits));
}
template <class T> inline void fill(T* to, int64_t n, T value) { std::fill_n(to, n, value); }
template <class T> inline void copy(const T* from, int64_t n, T* to) {
  if (n > 0) std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
}
template <class T> inline void put(T& to, T value) { to = value; }
inline void add_to(int64_t& to, int64_t n) { to += n; }
inline bool leads() { return true; }
inline bool in_all_lanes(bool x) { return x; }
inline void sync() {}
inline int count_bits(uint32_t bits) { return __builtin_popcount(bits); }
inline int lowest_bit(uint32_t bits) { return __builtin_ctz(bits); }
inline int highest_bit(uint32_t bits) { return 31 - __builtin_clz(bits); }

}  // namespace
}  // namespace pylinregion
#endif
