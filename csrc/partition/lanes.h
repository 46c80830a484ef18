// csrc/partition/lanes.h -- eight doubles at a time, in whatever the file is compiled for. Internal linkage: see
// sign_changes_row.inl for why.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace pylinregion {
namespace {

constexpr int64_t kLanes = 8;
using V = double __attribute__((vector_size(64)));

inline V load(const double* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline void store(double* to, V v) { std::memcpy(to, &v, sizeof v); }
inline V set(double x) { return V{x, x, x, x, x, x, x, x}; }
inline V abs(V v) { return v < 0.0 ? -v : v; }
inline V min(V a, V b) { return a < b ? a : b; }
inline V max(V a, V b) { return a > b ? a : b; }

#if defined(__AVX512F__)
inline V multiply_add(V a, V b, V c) { return V(_mm512_fmadd_pd(__m512d(a), __m512d(b), __m512d(c))); }
inline uint32_t above(V a, V b) { return _mm512_cmp_pd_mask(__m512d(a), __m512d(b), _CMP_GT_OQ); }
// Lane i of `yes` where bit i is set, else of `no`.
inline V select(uint32_t bits, V yes, V no) {
  return V(_mm512_mask_blend_pd(static_cast<__mmask8>(bits), __m512d(no), __m512d(yes)));
}
#elif defined(__AVX2__) && defined(__FMA__)
inline V multiply_add(V a, V b, V c) {
  __m256d x[2], y[2], z[2];
  std::memcpy(x, &a, sizeof a), std::memcpy(y, &b, sizeof b), std::memcpy(z, &c, sizeof c);
  for (int i = 0; i < 2; ++i) z[i] = _mm256_fmadd_pd(x[i], y[i], z[i]);
  V out;
  std::memcpy(&out, z, sizeof out);
  return out;
}
inline uint32_t above(V a, V b) {
  __m256d x[2], y[2];
  std::memcpy(x, &a, sizeof a), std::memcpy(y, &b, sizeof b);
  return static_cast<uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(x[0], y[0], _CMP_GT_OQ)) |
                               _mm256_movemask_pd(_mm256_cmp_pd(x[1], y[1], _CMP_GT_OQ)) << 4);
}
#else
inline V multiply_add(V a, V b, V c) { return a * b + c; }
inline uint32_t above(V a, V b) {
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(a[i] > b[i]) << i;
  return bits;
}
#endif
#if !defined(__AVX512F__)
inline V select(uint32_t bits, V yes, V no) {
  using Bits = int64_t __attribute__((vector_size(64)));
  const Bits each{1, 2, 4, 8, 16, 32, 64, 128};
  return ((Bits{} + static_cast<int64_t>(bits)) & each) != 0 ? yes : no;
}
#endif

// The lanes where a bit is set, next to each other at `out`, which has room for eight; returns their end.
inline double* put(double* out, V v, uint32_t bits) {
#if defined(__AVX512F__)
  _mm512_storeu_pd(out, _mm512_maskz_compress_pd(static_cast<__mmask8>(bits), __m512d(v)));
  return out + __builtin_popcount(bits);
#else
  for (; bits; bits &= bits - 1) *out++ = v[__builtin_ctz(bits)];
  return out;
#endif
}

// Four arrays of rows: an affine form and a bound, or what goes into them.
struct Rows4 {
  double *a, *b, *c, *p;
};

// What a sum of columns is made of: the columns `t` [n] of a matrix with this stride (indexed by row), times values[i].
struct Columns {
  const double* begin;
  int64_t stride;
  const int32_t* t;
  const double* values;  // [n, 4]
  int64_t n;
};
// Rows [r, r + 8 K) of N arrays: out = in + sum over i of column[t[i]] * values[i], in rising order; kBound: the fourth
// array takes the sizes of the columns.
template <int K, int N, bool kBound>
inline void add_columns(const Rows4& in, const Rows4& out, int64_t r, const Columns& columns) {
  const double* const from[4] = {in.a, in.b, in.c, in.p};
  double* const to[4] = {out.a, out.b, out.c, out.p};
  V sum[N][K];
  for (int j = 0; j < N; ++j)
    for (int k = 0; k < K; ++k) sum[j][k] = load(from[j] + r + k * kLanes);
  for (int64_t i = 0; i < columns.n; ++i) {
    const double* column = columns.begin + columns.t[i] * columns.stride + r;
    const double* v = columns.values + 4 * i;
    for (int k = 0; k < K; ++k) {
      const V w = load(column + k * kLanes);
      for (int j = 0; j < N; ++j) sum[j][k] = multiply_add(kBound && j == 3 ? abs(w) : w, set(v[j]), sum[j][k]);
    }
  }
  for (int j = 0; j < N; ++j)
    for (int k = 0; k < K; ++k) store(to[j] + r + k * kLanes, sum[j][k]);
}
// The rows [begin, end), and up to eight more.
template <int N, bool kBound>
inline void add_columns(const Rows4& in, const Rows4& out, int64_t begin, int64_t end, const Columns& columns) {
  int64_t r = begin;
  for (; r + 3 * kLanes <= end; r += 4 * kLanes) add_columns<4, N, kBound>(in, out, r, columns);
  for (; r < end; r += kLanes) add_columns<1, N, kBound>(in, out, r, columns);
}

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
