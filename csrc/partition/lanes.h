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
inline V set(double x) { return V{} + x; }
inline V abs(V v) { return v < 0.0 ? -v : v; }
inline V min(V a, V b) { return a < b ? a : b; }
inline V max(V a, V b) { return a > b ? a : b; }

#if defined(__AVX512F__)
inline V multiply_add(V a, V b, V c) { return V(_mm512_fmadd_pd(__m512d(a), __m512d(b), __m512d(c))); }
inline uint32_t above(V a, V b) { return _mm512_cmp_pd_mask(__m512d(a), __m512d(b), _CMP_GT_OQ); }
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

// out[i] = in[at[i]] for i in [begin, end).
inline void gather(const double* in, const int32_t* at, int64_t begin, int64_t end, double* out) {
#if defined(__AVX512F__)
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    __m256i index;
    std::memcpy(&index, at + i, sizeof index);
    _mm512_storeu_pd(out + i, _mm512_mask_i32gather_pd(_mm512_setzero_pd(), 0xff, index, in, 8));
  }
  for (; i < end; ++i) out[i] = in[at[i]];
#else
  for (int64_t i = begin; i < end; ++i) out[i] = in[at[i]];
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
// Rows [r, r + 8 K): out = in + sum over i of column[t[i]] * (a, b, c, |p|) of values[i], in rising order.
template <int K> inline void add_columns(const Rows4& in, const Rows4& out, int64_t r, const Columns& columns) {
  V x[K], y[K], z[K], q[K];
  for (int k = 0; k < K; ++k) {
    const int64_t at = r + k * kLanes;
    x[k] = load(in.a + at), y[k] = load(in.b + at), z[k] = load(in.c + at), q[k] = load(in.p + at);
  }
  for (int64_t i = 0; i < columns.n; ++i) {
    const double* column = columns.begin + columns.t[i] * columns.stride + r;
    const double* v = columns.values + 4 * i;
    const V a = set(v[0]), b = set(v[1]), c = set(v[2]), p = set(v[3]);
    for (int k = 0; k < K; ++k) {
      const V w = load(column + k * kLanes);
      x[k] = multiply_add(w, a, x[k]), y[k] = multiply_add(w, b, y[k]), z[k] = multiply_add(w, c, z[k]);
      q[k] = multiply_add(abs(w), p, q[k]);
    }
  }
  for (int k = 0; k < K; ++k) {
    const int64_t at = r + k * kLanes;
    store(out.a + at, x[k]), store(out.b + at, y[k]), store(out.c + at, z[k]), store(out.p + at, q[k]);
  }
}

// Bit i to byte i.
inline uint64_t spread(uint32_t bits) {
  const uint64_t copies = (bits & 0x7f) * 0x0002040810204081u & 0x0101010101010101u;  // bits 0 to 6, seven places apart
  return copies | static_cast<uint64_t>(bits >> 7 & 1) << 56;
}

// Its inverse: byte i, which is 0 or 1, to bit i.
inline uint8_t gathered(uint64_t bytes) { return static_cast<uint8_t>((bytes * 0x0102040810204080u) >> 56); }

inline int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

}  // namespace
}  // namespace pylinregion
