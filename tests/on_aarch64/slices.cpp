// The slice engine and the tracer: counts that are known in closed form. Both are one text for 16-byte vectors.
#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <set>

#include "comparison.h"
#include "partition/exact_rows.h"
#include "partition/groups.h"
#include "partition/mesh.h"
#include "partition/system.h"
#include "partition/trace.h"

using namespace pylinregion;

namespace {

// ReLU layers of n rows each on the square [-h, h]^2, the first on (s, t), the others on the layer before.
struct Layers {
  int64_t n;
  std::vector<std::vector<double>> weight, bias;  // [layers][n * inputs], [layers][n]
};

// What the engine and the tracer need of them, kept while they run.
class Network {
 public:
  explicit Network(Layers layers) : layers_(std::move(layers)), size_(static_cast<int64_t>(layers_.weight.size())) {
    const int64_t n = layers_.n;
    kinks_.assign(length(n), 0);
    intercepts_.assign(length(2 * n), 0);
    for (int64_t i = 0; i < n; ++i) slopes_.push_back(0), slopes_.push_back(1);
    lines_.resize(length(size_));
    for (int64_t l = 0; l < size_; ++l)
      for (int64_t i = 0; i <= n; ++i) lines_[length(l)].push_back(l * n + i);
  }

  std::vector<ExactStage> stages() const {
    std::vector<ExactStage> stages;
    for (int64_t l = 0; l < size_; ++l)
      stages.push_back({layers_.n,
                        {{l - 1, LinearMap::of_matrix(layers_.weight[length(l)].data(), layers_.n, l ? layers_.n : 2)}},
                        layers_.bias[length(l)].data(),
                        lines_[length(l)].data(),
                        kinks_.data(),
                        slopes_.data(),
                        intercepts_.data(),
                        1});
    return stages;
  }

  // Cells of the square after each layer; with `mesh`, the cells of the last.
  std::vector<int64_t> regions(double h, int threads, bool force_exact, Mesh* mesh) const {
    const int64_t n = layers_.n, lines = size_ * n;
    const double u[] = {1, 0}, v[] = {0, 1}, origin[] = {0, 0}, corners[] = {-h, -h, h, -h, h, h, -h, h};
    std::vector<int64_t> none(length(lines), -1), own(length(lines));
    std::iota(own.begin(), own.end(), 0);
    const Groups groups(lines, {}, none.data(), own.data(), own.data(), false);
    std::vector<double> a(length(lines), 0), b = a, c = a;
    const std::vector<double> error(length(lines), 0x1p-500);
    std::vector<std::vector<double>> columns;
    std::vector<StageView> views;
    for (int64_t l = 0; l < size_; ++l) {
      for (int64_t i = 0; i < n; ++i) {
        const double* row = layers_.weight[length(l)].data() + (l ? i * n : 2 * i);
        if (l == 0) a[length(i)] = row[0], b[length(i)] = row[1];
        c[length(l * n + i)] = layers_.bias[length(l)][length(i)];
      }
      const int64_t extent = std::min(size_, l + 2) * n, stride = extent - (l + 1) * n + 8;
      columns.emplace_back(length(n * stride), 0.0);
      for (int64_t from = 0; from < n && l + 1 < size_; ++from)
        for (int64_t to = 0; to < n; ++to)
          columns.back()[length(from * stride + to)] = layers_.weight[length(l + 1)][length(to * n + from)];
      views.push_back({l * n, (l + 1) * n, extent, columns.back().data(), stride});
    }
    System system{};  // of all lines
    system.stages = {views.data(), static_cast<int64_t>(views.size())};
    system.lines = system.rows = lines;
    system.a = a.data(), system.b = b.data(), system.c = c.data();
    system.error = error.data();
    system.corners = corners;
    system.n_corners = 4;
    system.groups = groups.table();
    const ExactRows exact(network_digits(stages()), {2, u, v, origin, corners, 4}, groups);
    EngineOptions options;
    options.cells = mesh;
    options.threads = threads;
    options.force_exact = force_exact;
    EngineProgress progress;
    return enumerate_portable(system, options, exact, progress).regions;
  }

  // Where the regions along a segment begin, [0, 1], its start left out.
  std::vector<double> breakpoints(const std::vector<double>& start, const std::vector<double>& end) const {
    std::vector<std::vector<double>> norms;
    for (const auto& weight : layers_.weight) {
      double sum = 0;
      for (const double w : weight) sum += w * w;
      norms.push_back({std::sqrt(sum) * (1 + 1e-9)});
    }
    const TraceNetwork network(stages(), 2, norms);
    const int64_t pair[] = {0, 0};
    TraceProgress progress;
    const TraceResult result =
        trace_segments(network, {1, pair, start.data(), end.data(), 1, 1, nullptr}, TraceOptions(), 1, progress);
    return {result.t.begin(), result.t.end()};
  }

 private:
  Layers layers_;
  int64_t size_;
  std::vector<std::vector<int64_t>> lines_;
  std::vector<double> kinks_, slopes_, intercepts_;
};

using Line = std::array<int64_t, 3>;  // a s + b t + c = 0

// The same line has the same numbers.
Line reduced(Line line) {
  const int64_t most = std::gcd(std::gcd(line[0], line[1]), line[2]);
  const int64_t sign = line[0] < 0 || (line[0] == 0 && line[1] < 0) ? -1 : 1;
  for (int64_t& each : line) each = sign * each / most;
  return line;
}

// Cells into which integer lines cut [-h, h]^2: one more for every line through it, and for every point inside as many
// as lines meet there, less one.
int64_t cells_of(const std::vector<Line>& all, int64_t h) {
  std::set<Line> lines;
  for (const Line& line : all) {
    const int64_t reach = h * (std::abs(line[0]) + std::abs(line[1]));
    if (std::abs(line[2]) < reach) lines.insert(reduced(line));
  }
  std::map<Line, std::set<Line>> through;  // the lines through a point (x / w, y / w)
  for (const Line& p : lines)
    for (const Line& q : lines) {
      const Line point{p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]};
      const int64_t reach = h * std::abs(point[2]);
      if (std::abs(point[0]) < reach && std::abs(point[1]) < reach) {
        const int64_t sign = point[2] < 0 ? -1 : 1, most = std::gcd(std::gcd(point[0], point[1]), point[2]);
        std::set<Line>& at = through[{sign * point[0] / most, sign * point[1] / most, sign * point[2] / most}];
        at.insert(p), at.insert(q);
      }
    }
  int64_t cells = 1 + static_cast<int64_t>(lines.size());
  for (const auto& [point, at] : through) cells += static_cast<int64_t>(at.size()) - 1;
  return cells;
}

Layers one_layer(const std::vector<Line>& lines) {
  Layers layers{static_cast<int64_t>(lines.size()), {{}}, {{}}};
  for (const Line& line : lines) {
    layers.weight[0].insert(layers.weight[0].end(), {double(line[0]), double(line[1])});
    layers.bias[0].push_back(double(line[2]));
  }
  return layers;
}

// Every layer folds the square along both axes, |x| - half of its side, by x = relu(x), relu(-x): 4 pieces each.
Layers folds(int64_t depth) {
  Layers layers{4, {{1, 0, -1, 0, 0, 1, 0, -1}}, {{0, 0, 0, 0}}};
  for (double side = 0.5; static_cast<int64_t>(layers.weight.size()) < depth; side /= 2) {
    layers.weight.push_back({1, 1, 0, 0, -1, -1, 0, 0, 0, 0, 1, 1, 0, 0, -1, -1});
    layers.bias.push_back({-side, side, -side, side});
  }
  return layers;
}
}  // namespace

void compare_slices() {
  std::mt19937 random(1);
  for (const int64_t n : {1, 5, 30, 90})
    for (const int64_t size : {3, 1000}) {  // many lines through a point, and few
      std::vector<Line> lines;
      while (static_cast<int64_t>(lines.size()) < n) {
        Line line;
        for (int64_t& each : line) each = static_cast<int64_t>(random() % static_cast<uint64_t>(2 * size + 1)) - size;
        if (line[0] != 0 || line[1] != 0) lines.push_back(line);
      }
      const Network network(one_layer(lines));
      const int64_t expected = cells_of(lines, 2);
      for (const bool force_exact : {false, true})
        same(network.regions(2, 1, force_exact, nullptr) == std::vector<int64_t>{expected}, "cells",
             {n, size, expected});
      Mesh mesh;
      network.regions(2, 2, false, &mesh);
      same(static_cast<int64_t>(mesh.offsets.size()) == expected + 1, "cells of the mesh", {n, size, expected});
      const int64_t euler =
          static_cast<int64_t>(mesh.vertices.size() / 2) - static_cast<int64_t>(mesh.edge_rows.size()) + expected;
      same(euler == 1, "Euler's numbers", {n, size, euler});
    }
  const int64_t depth = 6;
  const Network folded(folds(depth));
  std::vector<int64_t> expected;
  for (int64_t l = 0, cells = 4; l < depth; ++l, cells *= 4) expected.push_back(cells);
  for (const int threads : {1, 2}) same(folded.regions(1, threads, false, nullptr) == expected, "folds", {threads});
  const int64_t pieces = int64_t{1} << depth;
  std::vector<double> places;
  for (int64_t i = 1; i < pieces; ++i) places.push_back(double(i) / double(pieces));
  same(folded.breakpoints({-1, 0.3}, {1, 0.3}) == places, "breakpoints", {pieces});
}
