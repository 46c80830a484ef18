// Chains by the CUDA kernel, on the host, against the CPU's walks: equal to the bit.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <string>

#include "compare.h"
#include "cuda_runtime.h"
#include "displacement/chain.h"
#include "simd.h"

namespace pylinregion {
void chain_fused(DType, const Chain&, const ChainPoints&, const ChainCounts&, int64_t begin, int64_t end);
}
using namespace pylinregion;

namespace {

enum class Slope { relu, leaky, abs, each };
struct Case {
  std::vector<int64_t> widths;  // of the input, then of the layers
  int64_t pairs, points;
  double radius, scale;
  Slope slope = Slope::relu;
  bool split = true;
  bool grid = false;          // weights, biases (half of them 0), points and frame are few numbers: many exact zeros
  double poison = 0;          // what a pre-activation of the last point is instead, if not 0
  double largest_weight = 0;  // what a weight of the second layer is instead, if not 0
};

using Numbers = std::vector<double>;

// Rows of `x` times a matrix, and a bias.
Numbers affine(const Numbers& matrix, const Numbers& bias, const Numbers& x, int64_t inputs) {
  const int64_t neurons = static_cast<int64_t>(bias.size()), rows = static_cast<int64_t>(x.size()) / inputs;
  Numbers y;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < neurons; ++i) {
      double sum = bias[static_cast<size_t>(i)];
      for (int64_t k = 0; k < inputs; ++k)
        sum += matrix[static_cast<size_t>(i * inputs + k)] * x[static_cast<size_t>(r * inputs + k)];
      y.push_back(sum);
    }
  return y;
}
double norm(const double* from, int64_t n) {
  double squares = 0;
  for (int64_t k = 0; k < n; ++k) squares += from[k] * from[k];
  return std::sqrt(squares) * (1 + 1e-9);
}
Numbers norms(const Numbers& x, int64_t width) {
  Numbers found;
  for (size_t at = 0; at < x.size(); at += static_cast<size_t>(width)) found.push_back(norm(x.data() + at, width));
  return found;
}

template <class T> struct Layer {
  Numbers exact, bias, bias_size, row_norm, column_square, slope;
  std::vector<T> weight;
};
struct Found {
  std::vector<int64_t> changes, ambiguous, classes, work;
  std::vector<uint8_t> nonfinite;
};
struct Totals {
  int64_t changes = 0, unchanged = 0, ambiguous = 0, classes = 0, nonfinite = 0;
} totals;

template <class T> void chain_case(const Case& c, unsigned seed) {
  const DType dtype = sizeof(T) == 4 ? DType::float32 : DType::float64;
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  const auto numbers = [&](int64_t count, double scale) {
    Numbers values(static_cast<size_t>(count));
    for (double& value : values) {
      value = static_cast<T>(normal(random) * scale);
      if (c.grid) value = std::round(normal(random));
    }
    return values;
  };
  const int64_t n_layers = static_cast<int64_t>(c.widths.size()) - 1, inputs = c.widths[0];
  std::vector<Layer<T>> data(static_cast<size_t>(n_layers));
  std::vector<ChainLayer> layers;
  int64_t neurons_in_all = 0;
  for (int64_t l = 0; l < n_layers; ++l) {
    Layer<T>& layer = data[static_cast<size_t>(l)];
    const int64_t in = c.widths[static_cast<size_t>(l)], out = c.widths[static_cast<size_t>(l) + 1];
    neurons_in_all += out;
    layer.exact = numbers(in * out, c.scale / std::sqrt(static_cast<double>(in)));
    if (l == 1 && c.largest_weight != 0) layer.exact[0] = static_cast<T>(c.largest_weight);
    if (c.grid) std::fill(layer.exact.begin(), layer.exact.begin() + in, 0.0);  // a row without weights
    layer.weight.assign(layer.exact.begin(), layer.exact.end());
    layer.bias = numbers(out, 0.3);
    if (c.grid)
      for (size_t i = 0; i < layer.bias.size(); i += 2) layer.bias[i] = 0;
    for (const double b : layer.bias) layer.bias_size.push_back(std::fabs(b));
    for (int64_t i = 0; i < out; ++i) {
      const double size = norm(layer.exact.data() + i * in, in);
      layer.row_norm.push_back(size == 0 ? 0 : size + 1e-150);
    }
    layer.column_square.assign(static_cast<size_t>(in), 1e-300);
    for (size_t k = 0; k < layer.exact.size(); ++k)
      layer.column_square[k % static_cast<size_t>(in)] += layer.exact[k] * layer.exact[k] * (1 + 1e-9);
    if (c.slope == Slope::leaky) layer.slope.assign(static_cast<size_t>(out), 0.25);
    if (c.slope == Slope::abs) layer.slope.assign(static_cast<size_t>(out), -1);
    if (c.slope == Slope::each)
      for (int64_t i = 0; i < out; ++i) layer.slope.push_back(i % 3 ? static_cast<T>(0.1 * static_cast<double>(i)) : 0);
    double steepest = 1;
    for (const double a : layer.slope) steepest = std::max(steepest, std::fabs(a));
    const double frobenius = norm(layer.exact.data(), in * out) + 1e-150;
    layers.push_back({in, out, l == 0 && c.split ? nullptr : layer.weight.data(), layer.exact.data(),
                      layer.bias_size.data(), layer.row_norm.data(), layer.slope.empty() ? nullptr : layer.slope.data(),
                      frobenius, frobenius, norm(layer.bias_size.data(), out), steepest, layer.column_square.data()});
  }

  Numbers x = numbers(c.points * inputs, 1), frame = numbers(c.pairs * inputs, 1 / std::sqrt(double(inputs)));
  Numbers radius(static_cast<size_t>(c.points), c.radius);
  const int64_t stride = (c.pairs + 15) / 16 * 16;
  Numbers directions(static_cast<size_t>(c.widths[1] * stride)), direction_size;
  double direction_norm = 0;
  const Numbers of_frame = affine(data[0].exact, Numbers(static_cast<size_t>(c.widths[1])), frame, inputs);
  for (int64_t i = 0; i < c.widths[1]; ++i) {
    double most = 0;
    for (int64_t p = 0; p < c.pairs; ++p) {
      const double d = of_frame[static_cast<size_t>(p * c.widths[1] + i)];
      directions[static_cast<size_t>(i * stride + p)] = d, most = std::max(most, std::fabs(d));
    }
    direction_size.push_back(most);
  }
  for (const double each : norms(of_frame, c.widths[1])) direction_norm = std::max(direction_norm, each);
  std::vector<T> vertices;
  if (!c.split) {
    x.clear();
    for (int64_t b = 0; b < c.points; ++b) {
      const Numbers centre = numbers(inputs, 1);
      Numbers sum(static_cast<size_t>(inputs));
      for (int64_t v = 0; v < 2 * c.pairs; ++v)
        for (int64_t k = 0; k < inputs; ++k) {
          const double away = c.radius * frame[static_cast<size_t>(v % c.pairs * inputs + k)];
          double at = centre[static_cast<size_t>(k)] + (v < c.pairs ? away : -away);
          if (k % 4 == 0 && v % 3 == 0) at += 0.5 * c.radius;   // as behind a kink: not even around the mean
          if (k % 5 == 1) at = centre[static_cast<size_t>(k)];  // the same at all vertices
          vertices.push_back(static_cast<T>(at)), sum[static_cast<size_t>(k)] += vertices.back();
        }
      for (const double each : sum) x.push_back(each / static_cast<double>(2 * c.pairs));
    }
  }

  std::vector<Numbers> z, size;
  Numbers before = x;
  for (size_t l = 0; l < data.size(); ++l) {
    size.push_back(norms(before, c.widths[l]));
    z.push_back(affine(data[l].exact, data[l].bias, before, c.widths[l]));
    if (c.poison != 0 && l == data.size() / 2) z.back().back() = c.poison;
    before = z.back();
    for (size_t at = 0; at < before.size(); ++at)
      if (!(before[at] > 0))
        before[at] = data[l].slope.empty() ? 0 : before[at] * data[l].slope[at % data[l].bias.size()];
  }
  std::vector<const double*> centres, point_norms;
  for (size_t l = 0; l < data.size(); ++l) centres.push_back(z[l].data()), point_norms.push_back(size[l].data());

  const Chain chain{n_layers, layers.data(), c.pairs, directions.data(), direction_size.data(), direction_norm};
  const ChainPoints points{
      c.points, centres.data(), point_norms.data(), radius.data(), c.split ? nullptr : vertices.data(), x.data()};
  constexpr int64_t kApart = 2;  // of the classes of two vertices
  const auto run = [&](const auto& count) {
    Found found;
    found.changes.assign(static_cast<size_t>(c.points * (n_layers + 1)), -7);
    found.ambiguous.assign(static_cast<size_t>(c.points), -7);
    found.work.assign(static_cast<size_t>(c.points), -7);
    found.classes.assign(static_cast<size_t>(c.points * 2 * c.pairs * kApart), -7);
    found.nonfinite.assign(static_cast<size_t>(c.points * n_layers), 0);
    count({found.changes.data(), n_layers + 1, found.ambiguous.data(), found.classes.data(), kApart, found.work.data(),
           found.nonfinite.data()});
    return found;
  };
  const Found cuda = run([&](const ChainCounts& out) {
    const size_t bytes = static_cast<size_t>(chain_scratch_cuda(dtype, chain, c.points));
    std::vector<unsigned char> scratch(bytes + 64, 0xff);
    chain_counts_cuda(dtype, chain, points, out, scratch.data(), nullptr);
    const bool untouched = std::count(scratch.begin() + static_cast<std::ptrdiff_t>(bytes), scratch.end(), 0xff) == 64;
    if (c.points > 1) {  // the stand-in's device runs two blocks: the second has scratch of its own
      const auto second = scratch.begin() + static_cast<std::ptrdiff_t>(chain_scratch_cuda(dtype, chain, 1));
      const auto end = scratch.begin() + static_cast<std::ptrdiff_t>(bytes);
      same(std::count(second, end, 0xff) < end - second, "scratch of a chain's second block", c.points, 2 * c.pairs,
           neurons_in_all);
    }
    same(untouched, "bytes behind a chain's scratch", c.points, 2 * c.pairs, neurons_in_all);
  });
  const auto compare = [&](const Found& cpu, const std::string& which, bool work) {
    const auto check = [&](bool equal, const char* what) {
      same(equal, (what + which).c_str(), c.points, 2 * c.pairs, neurons_in_all);
    };
    check(equal_bytes(cpu.changes, cuda.changes), "changes of chains, ");
    check(equal_bytes(cpu.ambiguous, cuda.ambiguous), "ambiguous signs of chains, ");
    check(equal_bytes(cpu.classes, cuda.classes), "classes of chains, ");
    check(equal_bytes(cpu.nonfinite, cuda.nonfinite), "flags of chains, ");
    if (work) check(equal_bytes(cpu.work, cuda.work), "work of chains, ");
  };
  compare(run([&](const ChainCounts& out) { chain_fused(dtype, chain, points, out, 0, c.points); }), "fused", true);
#if defined(__x86_64__)
  const auto vectors = [&](ChainKernel walk) {
    return run([&](const ChainCounts& out) { walk(dtype, chain, points, out, 0, c.points); });
  };
  if (simd() != Simd::portable) compare(vectors(chain_avx2), "AVX2", false);
  if (simd() == Simd::avx512) compare(vectors(chain_avx512), "AVX-512", false);
#endif
  for (const int64_t each : cuda.changes) totals.changes += each > 0, totals.unchanged += each == 0;
  for (const int64_t each : cuda.ambiguous) totals.ambiguous += each > 0;
  for (const int64_t each : cuda.classes) totals.classes += each > 0;
  for (const uint8_t each : cuda.nonfinite) totals.nonfinite += each;
}

void both(const Case& c, unsigned seed) {
  chain_case<float>(c, seed);
  chain_case<double>(c, seed + 1);
}
}  // namespace

void compare_chains() {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  unsigned seed = 1;
  for (const int limit : {227 << 10, 12 << 10, 0}) {  // panels in shared memory, in part, and in scratch
    shared_memory_limit = limit;
    for (const Slope slope : {Slope::relu, Slope::leaky, Slope::abs, Slope::each})
      for (const bool split : {true, false})
        for (const double radius : {1e-3, 0.3, 20.0})
          both({{5, 9, 8, 7, 40, 1}, 9, 3, radius, 1.5, slope, split}, seed += 2);
    for (const int64_t pairs : {1, 2, 31, 32, 33, 64, 65}) {
      both({{12, 8, 40, 9}, pairs, 2, 0.4, 2}, seed += 2);
      both({{3, 7, 1, 9}, pairs, 2, 1, 1, Slope::each, false}, seed += 2);
      both({{6, 9, 9, 9}, pairs, 3, 1, 1, Slope::relu, true, true}, seed += 2);  // exact zeros
    }
    for (const bool split : {true, false}) {
      both({{6, 8, 8, 8, 8}, 5, 4, 1, 1, Slope::abs, split, true}, seed += 2);
      for (const double poison : {nan, inf, -inf})
        both({{4, 9, 7, 5}, 6, 3, 0.5, 1, Slope::relu, split, false, poison}, seed += 2);
      for (const double large : {1e25, 1e30, 1e200, 1e308})  // squares overflow, in float32 or in float64 too
        both({{4, 9, 7, 5, 3}, 6, 3, 2, 1, Slope::leaky, split, false, 0, large}, seed += 2);
      both({{4, 1}, 3, 2, 1, 1, Slope::relu, split}, seed += 2);
      both({{4, 9, 7}, 3, 0, 1, 1, Slope::relu, split}, seed += 2);  // no points
    }
  }
  shared_memory_limit = 227 << 10;
  both({{30, 200, 200, 200}, 25, 2, 0.05, 1.4}, seed += 2);
  both({{30, 200, 200, 200}, 25, 1, 2, 1.4}, seed += 2);
  both({{300, 8, 300, 3}, 4, 2, 0.5, 1.4, Slope::relu, false}, seed += 2);
  same(totals.changes > 500 && totals.unchanged > 100 && totals.ambiguous > 50 && totals.classes > 500 &&
           totals.nonfinite > 20,
       "chains: too few that matter;", totals.changes, totals.ambiguous, totals.nonfinite);
  std::printf(
      "chains: %lld layers that change, %lld that do not, %lld points with ambiguous signs, %lld layers refused\n",
      static_cast<long long>(totals.changes), static_cast<long long>(totals.unchanged),
      static_cast<long long>(totals.ambiguous), static_cast<long long>(totals.nonfinite));
}
