// csrc/partition/lanes.h -- eight doubles at a time, in whatever the file is compiled for. Internal linkage: see
// sign_changes_row.inl for why.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pylinregion {
namespace {

constexpr int64_t kLanes = 8;

// The processor's vectors. Eight doubles are one of them, or a tree of pairs: wider vectors than it has would be kept
// in memory.
#if defined(__AVX512F__)
using Word = double __attribute__((vector_size(64)));
using WordBits = int64_t __attribute__((vector_size(64)));
#elif defined(__AVX2__)
using Word = double __attribute__((vector_size(32)));
using WordBits = int64_t __attribute__((vector_size(32)));
#else
using Word = double __attribute__((vector_size(16)));
using WordBits = int64_t __attribute__((vector_size(16)));
#endif
template <class T> constexpr int kWidth = sizeof(T) / sizeof(double);
template <class Half> struct Pair {
  Half low, high;
  double operator[](int64_t i) const { return i < kWidth<Half> ? low[i] : high[i - kWidth<Half>]; }
};

template <int n> struct Eight;  // doubles as n words
template <> struct Eight<1> {
  using Type = Word;
};
template <> struct Eight<2> {
  using Type = Pair<Word>;
};
template <> struct Eight<4> {
  using Type = Pair<Pair<Word>>;
};
using V = Eight<kLanes / kWidth<Word>>::Type;

// --- words ---

template <class T> struct Make;
template <> struct Make<Word> {
  static Word of(double x) { return x - Word{}; }
  static Word from(const double* memory) {
    Word v;
    std::memcpy(&v, memory, sizeof v);
    return v;
  }
};
inline void store(double* to, Word v) { std::memcpy(to, &v, sizeof v); }
inline Word abs(Word v) { return Word(WordBits(v) & INT64_MAX); }
inline Word min(Word a, Word b) { return a < b ? a : b; }
inline Word max(Word a, Word b) { return a > b ? a : b; }
inline WordBits less(Word a, Word b) { return a < b; }
inline WordBits both(WordBits a, WordBits b) { return a & b; }
inline Word choose(WordBits where, Word yes, Word no) { return where ? yes : no; }
#if defined(__AVX512F__)
inline Word multiply_add(Word a, Word b, Word c) { return Word(_mm512_fmadd_pd(__m512d(a), __m512d(b), __m512d(c))); }
inline uint32_t above(Word a, Word b) { return _mm512_cmp_pd_mask(__m512d(a), __m512d(b), _CMP_GT_OQ); }
inline Word select(uint32_t bits, Word yes, Word no) {
  return Word(_mm512_mask_blend_pd(static_cast<__mmask8>(bits), __m512d(no), __m512d(yes)));
}
#elif defined(__AVX2__) && defined(__FMA__)
inline Word multiply_add(Word a, Word b, Word c) { return Word(_mm256_fmadd_pd(__m256d(a), __m256d(b), __m256d(c))); }
inline uint32_t above(Word a, Word b) {
  return static_cast<uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(__m256d(a), __m256d(b), _CMP_GT_OQ)));
}
inline Word select(uint32_t bits, Word yes, Word no) {
  const WordBits each{1, 2, 4, 8};
  return ((WordBits{} + static_cast<int64_t>(bits)) & each) != 0 ? yes : no;
}
#else
#if defined(__aarch64__)
inline Word multiply_add(Word a, Word b, Word c) {
  return Word(vfmaq_f64(float64x2_t(c), float64x2_t(a), float64x2_t(b)));
}
inline uint32_t above(Word a, Word b) {
  const uint64x2_t each{1, 2};
  return static_cast<uint32_t>(vaddvq_u64(vandq_u64(vcgtq_f64(float64x2_t(a), float64x2_t(b)), each)));
}
#else
inline Word multiply_add(Word a, Word b, Word c) { return a * b + c; }
inline uint32_t above(Word a, Word b) {
#if defined(__SSE2__)
  return static_cast<uint32_t>(_mm_movemask_pd(_mm_cmpgt_pd(__m128d(a), __m128d(b))));
#else
  return static_cast<uint32_t>(a[0] > b[0]) | static_cast<uint32_t>(a[1] > b[1]) << 1;
#endif
}
#endif
inline Word select(uint32_t bits, Word yes, Word no) {
  return WordBits{-static_cast<int64_t>(bits & 1), -static_cast<int64_t>(bits >> 1 & 1)} ? yes : no;
}
#endif

// --- pairs ---

template <class T> struct Make<Pair<T>> {
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

// store(to, v); for each lane: abs, min, max; less is a mask, both of two masks, choose(mask, yes, no). multiply_add is
// one operation where the processor has it. above: bit i is set where lane i of a is above that of b; select(bits, yes,
// no).
inline V load(const double* from) { return Make<V>::from(from); }
inline V set(double x) { return Make<V>::of(x); }

// The lanes where a bit is set, next to each other at `out`, which has room for eight; returns their end.
inline double* put(double* out, V v, uint32_t bits) {
#if defined(__AVX512F__)
  _mm512_storeu_pd(out, _mm512_maskz_compress_pd(static_cast<__mmask8>(bits), __m512d(v)));
  return out + __builtin_popcount(bits);
#else
  double lanes[kLanes];
  store(lanes, v);
  for (int i = 0; i < kLanes; ++i) {
    *out = lanes[i];
    out += bits >> i & 1;
  }
  return out;
#endif
}
// The same of eight numbers.
inline int32_t* put(int32_t* out, const int32_t* from, uint32_t bits) {
#if defined(__AVX512F__)
  const __m512i eight = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  const __m512i chosen = _mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), eight);
  std::memcpy(out, &chosen, kLanes * sizeof *out);
  return out + __builtin_popcount(bits);
#else
  for (int i = 0; i < kLanes; ++i) {
    *out = from[i];
    out += bits >> i & 1;
  }
  return out;
#endif
}
// A bit for each of the first n lanes, n > 0.
inline uint32_t first_lanes(int64_t n) { return n >= kLanes ? 0xff : (1u << n) - 1; }

// Bit i to byte i.
inline uint64_t spread(uint32_t bits) {
  const uint64_t copies = (bits & 0x7f) * 0x0002040810204081u & 0x0101010101010101u;  // bits 0 to 6, seven places apart
  return copies | static_cast<uint64_t>(bits >> 7 & 1) << 56;
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

}  // namespace
}  // namespace pylinregion
