// Displacements: the counts and classes of the portable kernel, and those of the vertices themselves, evaluated in long
// double (on aarch64 113 bits).
#include <algorithm>
#include <limits>
#include <map>

#include "comparison.h"
#include "displacement/chain.h"
#include "simd.h"

using namespace pylinregion;

namespace {

using Wide = long double;
constexpr double kUp = 1 + 1e-9;

struct Shape {
  int64_t inputs, width, layers, pairs;
  double slope, radius;
  bool split, grid;
  double size = 1;  // of the weights
};

template <class Number> double norm(const Number* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return std::sqrt(sum) * kUp;
}

// A network, points and a frame in the dtype of the count; all else follows from them.
template <class T> struct Problem {
  struct Layer {
    int64_t inputs, neurons;
    std::vector<T> weight;
    std::vector<double> exact, bias, bias_size, row_norm, column_square, slope;
  };
  Shape shape;
  int64_t points = 3;
  std::vector<Layer> layers;
  std::vector<T> x, frame, vertices;  // [points, inputs], [pairs, inputs], [points, 2 pairs, inputs]
  std::vector<double> radius;

  Problem(const Shape& of, unsigned seed) : shape(of) {
    std::mt19937 random(seed);
    for (int64_t l = 0; l < shape.layers; ++l) {
      const int64_t in = l ? shape.width : shape.inputs, out = shape.width + l % 2;
      Layer layer{l ? layers.back().neurons : in, out, {}, {}, {}, {}, {}, {}, {}};
      const double scale = shape.grid ? 1 : shape.size * std::sqrt(2.0 / static_cast<double>(layer.inputs));
      layer.weight = numbers<T>(random, out * layer.inputs, shape.grid, scale);
      for (int64_t i = 0; i < layer.inputs && out > 3; ++i) layer.weight[length(2 * layer.inputs + i)] = 0;  // row 2
      layer.exact.assign(layer.weight.begin(), layer.weight.end());
      for (const T bias : numbers<T>(random, out, shape.grid, 0.3)) layer.bias.push_back(static_cast<double>(bias));
      for (int64_t i = 0; i < out; ++i) {
        layer.bias_size.push_back(std::fabs(layer.bias[length(i)]));
        layer.row_norm.push_back(norm(layer.exact.data() + i * layer.inputs, layer.inputs));
      }
      layer.column_square.assign(length(layer.inputs), 0);
      for (size_t k = 0; k < layer.exact.size(); ++k)
        layer.column_square[k % length(layer.inputs)] += layer.exact[k] * layer.exact[k] * kUp;
      if (shape.slope != 0) layer.slope.assign(length(out), shape.slope);
      layers.push_back(std::move(layer));
    }
    x = numbers<T>(random, points * shape.inputs, shape.grid);
    frame = numbers<T>(random, shape.pairs * shape.inputs, shape.grid, 1 / std::sqrt(double(shape.inputs)));
    for (int64_t b = 0; b < points; ++b) radius.push_back(shape.radius * double(1 << b));
    for (int64_t b = 0; b < points; ++b)
      for (int64_t v = 0; v < 2 * shape.pairs; ++v)
        for (int64_t i = 0; i < shape.inputs; ++i) vertices.push_back(static_cast<T>(vertex(b, v, i)));
  }
  Wide vertex(int64_t b, int64_t v, int64_t i) const {
    const Wide step = Wide(radius[length(b)]) * Wide(frame[length(v % shape.pairs * shape.inputs + i)]);
    return Wide(x[length(b * shape.inputs + i)]) + (v < shape.pairs ? step : -step);
  }

  // One layer's pre-activations, and what it makes of them, in any arithmetic.
  template <class Number> std::vector<Number> apply(const Layer& layer, const std::vector<Number>& in) const {
    std::vector<Number> z;
    for (int64_t i = 0; i < layer.neurons; ++i) {
      Number sum = Number(layer.bias[length(i)]);
      for (int64_t k = 0; k < layer.inputs; ++k)
        sum += Number(layer.exact[length(i * layer.inputs + k)]) * in[length(k)];
      z.push_back(sum);
    }
    return z;
  }
  template <class Number> std::vector<Number> activate(std::vector<Number> z) const {
    for (Number& each : z) each = each > 0 ? each : each * Number(shape.slope);
    return z;
  }
};

struct Counts {
  std::vector<int64_t> changes, ambiguous, classes, work;
  std::vector<uint8_t> nonfinite;
};

template <class T> Counts at_vertices(const Problem<T>& problem) {
  const Shape& shape = problem.shape;
  Counts out;
  for (int64_t b = 0; b < problem.points; ++b) {
    std::vector<std::vector<bool>> signs;  // by vertex
    for (int64_t v = 0; v < 2 * shape.pairs; ++v) {
      std::vector<Wide> h;
      for (int64_t i = 0; i < shape.inputs; ++i)
        h.push_back(shape.split ? problem.vertex(b, v, i)
                                : Wide(problem.vertices[length((b * 2 * shape.pairs + v) * shape.inputs + i)]));
      signs.emplace_back();
      for (const auto& layer : problem.layers) {
        const std::vector<Wide> z = problem.apply(layer, h);
        for (const Wide each : z) signs.back().push_back(each > 0);
        h = problem.activate(z);
      }
    }
    size_t neuron = 0;
    for (const auto& layer : problem.layers) {
      int64_t changed = 0;
      for (int64_t i = 0; i < layer.neurons; ++i, ++neuron)
        changed += std::any_of(signs.begin(), signs.end(), [&](auto& row) { return row[neuron] != signs[0][neuron]; });
      out.changes.push_back(changed);
    }
    std::map<std::vector<bool>, int64_t> numbers;
    for (const auto& row : signs) out.classes.push_back(numbers.emplace(row, numbers.size()).first->second);
  }
  return out;
}

// By the kernel of the instruction set that is chosen.
template <class T> Counts by_displacements(const Problem<T>& problem) {
  const Shape& shape = problem.shape;
  const int64_t n = problem.points, layers = shape.layers, stride = (shape.pairs + 15) / 16 * 16;
  const auto& first = problem.layers[0];
  std::vector<ChainLayer> chain_layers;
  for (const auto& layer : problem.layers) {
    const bool begins = shape.split && &layer == &first;
    const double frobenius = norm(layer.exact.data(), layer.neurons * layer.inputs);
    chain_layers.push_back({layer.inputs, layer.neurons, begins ? nullptr : layer.weight.data(),
                            begins ? nullptr : layer.exact.data(), layer.bias_size.data(), layer.row_norm.data(),
                            shape.slope != 0 ? layer.slope.data() : nullptr, frobenius, frobenius,
                            norm(layer.bias.data(), layer.neurons), std::max(1.0, std::fabs(shape.slope)),
                            layer.column_square.data()});
  }
  std::vector<double> directions(length(first.neurons * stride)), size(length(first.neurons));
  double direction_norm = 0;
  for (int64_t p = 0; p < shape.pairs; ++p) {
    std::vector<double> column;
    for (int64_t i = 0; i < first.neurons; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < shape.inputs; ++k)
        sum += first.exact[length(i * shape.inputs + k)] * double(problem.frame[length(p * shape.inputs + k)]);
      directions[length(i * stride + p)] = sum, column.push_back(sum);
      size[length(i)] = std::max(size[length(i)], std::fabs(sum));
    }
    direction_norm = std::max(direction_norm, norm(column.data(), first.neurons));
  }
  const Chain chain{layers, chain_layers.data(), shape.pairs, directions.data(), size.data(), direction_norm};

  std::vector<double> base;
  std::vector<std::vector<double>> centre(length(layers)), norms(length(layers));
  for (int64_t b = 0; b < n; ++b) {
    std::vector<double> h(length(shape.inputs));
    for (int64_t i = 0; i < shape.inputs; ++i) {
      double& to = h[length(i)];
      if (shape.split) to = double(problem.x[length(b * shape.inputs + i)]);
      for (int64_t v = 0; v < 2 * shape.pairs && !shape.split; ++v)
        to += double(problem.vertices[length((b * 2 * shape.pairs + v) * shape.inputs + i)]);
      if (!shape.split) to /= double(2 * shape.pairs);
    }
    base.insert(base.end(), h.begin(), h.end());
    for (int64_t l = 0; l < layers; ++l) {
      norms[length(l)].push_back(norm(h.data(), problem.layers[length(l)].inputs));
      const std::vector<double> z = problem.apply(problem.layers[length(l)], h);
      centre[length(l)].insert(centre[length(l)].end(), z.begin(), z.end());
      h = problem.activate(z);
    }
  }
  std::vector<const double*> centres, norm_rows;
  for (int64_t l = 0; l < layers; ++l)
    centres.push_back(centre[length(l)].data()), norm_rows.push_back(norms[length(l)].data());
  const ChainPoints points{n,
                           centres.data(),
                           norm_rows.data(),
                           problem.radius.data(),
                           shape.split ? nullptr : static_cast<const void*>(problem.vertices.data()),
                           base.data()};
  Counts out{std::vector<int64_t>(length(n * layers), -1), std::vector<int64_t>(length(n), -1),
             std::vector<int64_t>(length(n * 2 * shape.pairs), -1), std::vector<int64_t>(length(n), -1),
             std::vector<uint8_t>(length(n * layers), 0)};
  const DType dtype = sizeof(T) == 4 ? DType::float32 : DType::float64;
  chain_counts_cpu(
      dtype, chain, points,
      {out.changes.data(), layers, out.ambiguous.data(), out.classes.data(), 1, out.work.data(), out.nonfinite.data()},
      1);
  return out;
}

int64_t with_empty_lanes = 0;  // points: portable vectors have none

template <class T> void chains(const Shape& shape, bool overflows = false) {
  const Problem<T> problem(shape, static_cast<unsigned>(shape.width * 1000 + shape.pairs));
  const std::initializer_list<int64_t> sizes{
      static_cast<int64_t>(sizeof(T)), shape.inputs, shape.width, shape.layers, shape.pairs, shape.split, shape.grid};
  set_simd("portable");
  const Counts portable = by_displacements(problem);
  set_simd("neon");
  const Counts neon = by_displacements(problem);
  same(neon.nonfinite == portable.nonfinite, "flags of chains", sizes);
  if (overflows) {
    same(std::count(neon.nonfinite.begin(), neon.nonfinite.end(), 1) == problem.points, "overflows", sizes);
    return;
  }
  const Counts vertices = at_vertices(problem);
  same(neon.ambiguous == portable.ambiguous, "ambiguous signs", sizes);
  same(neon.changes == portable.changes, "counts of neon and portable", sizes);
  same(neon.classes == portable.classes, "classes of neon and portable", sizes);
  same(neon.changes == vertices.changes, "counts of neon and of the vertices", sizes);
  same(neon.classes == vertices.classes, "classes of neon and of the vertices", sizes);
  if (shape.grid) return;
  same(std::count(neon.ambiguous.begin(), neon.ambiguous.end(), 0) == problem.points, "no ambiguous signs", sizes);
  // The same rows are left out and no pair is walked again without need, but for the lanes that stay empty: where the
  // pairs fill theirs, these are at most 3 of 8.
  for (size_t b = 0; b < neon.work.size(); ++b) {
    const int64_t one = portable.work[b], four = neon.work[b];
    if (shape.pairs % 4 == 0)
      same(one <= four && 5 * four <= 8 * one, "work", sizes);
    else
      same(one <= four, "work with lanes that may stay empty", sizes);
    with_empty_lanes += one < four;
  }
}
}  // namespace

void compare_chains() {
  for (const double slope : {0.0, 0.25, -1.0, 2.0})
    for (const bool split : {true, false})
      for (const int64_t pairs : {1, 4, 5, 24, 67})
        for (const int64_t width : {1, 7, 40})
          for (const double radius : {0.02, 0.5}) {
            const Shape shape{6, width, 3, pairs, slope, radius, split, false};
            chains<float>(shape);
            chains<double>(shape);
            if (radius == 0.5 && width < 40) {  // all sums exact, many signs exactly 0
              const Shape tied{4, width, 2, pairs, slope, radius, split, true};
              chains<float>(tied);
              chains<double>(tied);
            }
          }
  chains<float>({9, 33, 5, 18, 0, 0.3, true, false, 1e10});          // past float32, not float64
  chains<double>({9, 33, 5, 18, 0, 0.3, true, false, 1e100}, true);  // past float64, too
  chains<double>({9, 33, 5, 18, 0, 0.3, false, false, 1e100}, true);
  same(with_empty_lanes > 500, "points with lanes that stay empty", {with_empty_lanes});  // it was NEON
}
