// csrc/partition/segment_rows.cpp -- see segment_rows.h; the derivation is in docs/exactness.md.
#include "segment_rows.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <mutex>

#include "scaled.h"

namespace pylinregion {
namespace {

// Digits of 20 bits: 2^15 products of two of them can be added before carries are due.
constexpr int kBits = 20;
constexpr double kBase = 1 << kBits;
constexpr int64_t kProducts = (int64_t{1} << (53 - 2 * (kBits - 1))) - 1;
constexpr size_t kProjectionsKept = 256;

int64_t exponent_of(const double* x, int64_t size) {
  int low = INT_MAX;
  for (int64_t i = 0; i < size; ++i)
    if (x[i] != 0) low = std::min(low, lowest_bit(x[i]));
  return low == INT_MAX ? 0 : low;
}

Matrix matrix(const double* x, int64_t rows, int64_t columns) {
  const int64_t exponent = exponent_of(x, rows * columns);
  return {Digits::from(x, rows * columns, 1, exponent, kBits), columns, exponent};
}

Scaled scaled(const double* x, int64_t size) {
  const int64_t exponent = exponent_of(x, size);
  return {Digits::from(x, size, 1, exponent, kBits), exponent, true};
}

// x times a matrix [size of x, columns].
Scaled product(const Scaled& x, const Matrix& w) {
  Digits out(w.columns);
  int64_t products = 0;  // that may have been added to one number since the last carry, whose rest counts as one
  for (int64_t p = 0; p < x.digits.slices(); ++p)
    for (int64_t q = 0; q < w.digits.slices(); ++q) {
      const double* left = x.digits[p];
      for (int64_t j = 0; j < x.digits.size(); ++j) {
        if (left[j] == 0) continue;
        if (++products == kProducts) {
          out.carry(kBase);
          products = 2;
        }
        const double digit = left[j];
        const double* line = w.digits[q] + j * w.columns;
        double* to = out.slice(p + q);
        for (int64_t k = 0; k < w.columns; ++k) to[k] += digit * line[k];
      }
    }
  out.carry(kBase);
  return {std::move(out), x.exponent + w.exponent, true};
}

// Number by number.
Scaled products(const Scaled& x, const Scaled& y) {
  Digits out(x.digits.size());
  for (int64_t p = 0; p < x.digits.slices(); ++p)
    for (int64_t q = 0; q < y.digits.slices(); ++q) {
      double* to = out.slice(p + q);
      for (int64_t i = 0; i < x.digits.size(); ++i) to[i] += x.digits[p][i] * y.digits[q][i];
    }
  out.carry(kBase);
  return {std::move(out), x.exponent + y.exponent, true};
}

// The sum of products, one number.
Scaled dot(const Scaled& x, const Scaled& y) {
  Digits out(1);
  int64_t sums = 0;
  for (int64_t p = 0; p < x.digits.slices(); ++p)
    for (int64_t q = 0; q < y.digits.slices(); ++q) {
      const double *left = x.digits[p], *right = y.digits[q];
      for (int64_t i = 0; i < x.digits.size();) {
        const int64_t end = std::min(x.digits.size(), i + kProducts / 2);
        double sums_of[4] = {};  // in any order: all are exact
        for (; i + 4 <= end; i += 4)
          for (int64_t k = 0; k < 4; ++k) sums_of[k] += left[i + k] * right[i + k];
        for (; i < end; ++i) sums_of[0] += left[i] * right[i];
        const double sum = (sums_of[0] + sums_of[1]) + (sums_of[2] + sums_of[3]);
        // |sum| <= 2^52: two such numbers and what a carry leaves are exact.
        if (++sums > 1) out.carry(kBase);
        *out.slice(p + q) += sum;
      }
    }
  out.carry(kBase);
  return {std::move(out), x.exponent + y.exponent, true};
}

BigInt integer(const Scaled& x, int64_t exponent) {
  return x.present ? x.digits.integer(0, kBits).shifted(x.exponent - exponent) : BigInt();
}
}  // namespace

double position_of(const SegmentPoint& point) { return BigInt::ratio(point[1], point[0] + point[1]); }

class DigitNetwork {
 public:
  struct Prepared {
    std::vector<std::pair<int64_t, Matrix>> blocks;  // source >= 0
    Matrix input;                                    // transposed: [dimensions, rows]; no columns: none
    Scaled bias;
    bool simple;  // slopes -1, 0, 1 and no intercepts
  };

  DigitNetwork(std::vector<ExactStage> given, int64_t inputs) : stages(std::move(given)), dimensions(inputs) {
    int64_t line = 0;
    for (const ExactStage& stage : stages) {
      line_begin_.push_back(line);
      line += stage.line_begin[stage.rows] - stage.line_begin[0];
    }
    line_begin_.push_back(line);
  }

  size_t stage_of(int64_t line) const {
    return static_cast<size_t>(std::upper_bound(line_begin_.begin(), line_begin_.end(), line) - line_begin_.begin() -
                               1);
  }
  const std::vector<Prepared>& prepared() {
    std::call_once(once_, [this] { prepare(); });
    return prepared_;
  }

  const std::vector<ExactStage> stages;
  const int64_t dimensions;

 private:
  void prepare() {
    std::vector<Prepared> out(stages.size());
    for (size_t l = 0; l < stages.size(); ++l) {
      const ExactStage& stage = stages[l];
      for (const ExactBlock& block : stage.blocks) {
        if (block.source >= 0) {
          const int64_t width = stages[static_cast<size_t>(block.source)].rows;
          out[l].blocks.emplace_back(block.source, matrix(block.weight, stage.rows, width));
          continue;
        }
        std::vector<double> transposed(static_cast<size_t>(stage.rows * dimensions));
        for (int64_t r = 0; r < stage.rows; ++r)
          for (int64_t d = 0; d < dimensions; ++d)
            transposed[static_cast<size_t>(d * stage.rows + r)] = block.weight[r * dimensions + d];
        out[l].input = matrix(transposed.data(), dimensions, stage.rows);
      }
      out[l].bias = scaled(stage.bias, stage.rows);
      out[l].simple = stage.denominator == 1;
      const int64_t pieces = stage.rows + stage.line_begin[stage.rows] - stage.line_begin[0];
      for (int64_t p = 0; p < pieces; ++p)
        out[l].simple &= std::fabs(stage.slopes[p]) <= 1 && stage.slopes[p] == std::nearbyint(stage.slopes[p]) &&
                         stage.intercepts[p] == 0;
    }
    prepared_ = std::move(out);
  }

  std::vector<int64_t> line_begin_;
  std::once_flag once_;
  std::vector<Prepared> prepared_;
};

std::shared_ptr<DigitNetwork> digit_network(std::vector<ExactStage> stages, int64_t dimensions) {
  return std::make_shared<DigitNetwork>(std::move(stages), dimensions);
}

// The products of the stages' input weights with one input.
struct SegmentRows::Projection {
  std::vector<Scaled> by_stage;
};

SegmentRows::SegmentRows(std::shared_ptr<DigitNetwork> network) : network_(std::move(network)) {}
SegmentRows::~SegmentRows() = default;

const SegmentRows::Projection& SegmentRows::projection(const double* point) {
  const auto found = projections_.find(point);
  if (found != projections_.end()) return *found->second;
  if (projections_.size() == kProjectionsKept) projections_.clear();
  auto made = std::make_unique<Projection>();
  const Scaled x = scaled(point, network_->dimensions);
  for (const DigitNetwork::Prepared& stage : network_->prepared())
    made->by_stage.push_back(stage.input.columns ? product(x, stage.input) : Scaled());
  return *(projections_[point] = std::move(made));
}

// A row less its kink, up to a positive factor: of each input its linear part, and the constant.
struct SegmentRows::Sums {
  std::vector<Scaled> linear;
  Scaled constant;

  int64_t exponent() const {
    int64_t out = constant.present ? constant.exponent : INT64_MAX;
    for (const Scaled& sum : linear)
      if (sum.present) out = std::min(out, sum.exponent);
    return out;
  }
};

SegmentRows::Sums SegmentRows::sums(int64_t line, int64_t less, const uint8_t* on, const double* const* inputs,
                                    size_t n) {
  const std::vector<ExactStage>& stages = network_->stages;
  const std::vector<DigitNetwork::Prepared>& prepared = network_->prepared();
  const size_t l = network_->stage_of(line);
  const int64_t* begin = stages[l].line_begin;
  const auto unit_of = [&](int64_t of) {
    return static_cast<size_t>(std::upper_bound(begin, begin + stages[l].rows + 1, of) - begin - 1);
  };

  // z - kink = (gradient by what is pending) + linear . inputs + constant
  std::vector<Scaled> pending(stages.size());
  Sums out;
  out.linear.resize(n);
  const auto push = [&](size_t stage, const Scaled& g) {  // a vector on the rows of a stage
    for (const auto& [source, weight] : prepared[stage].blocks)
      add(pending[static_cast<size_t>(source)], product(g, weight), kBits);
    if (prepared[stage].input.columns)
      for (size_t i = 0; i < n; ++i) add(out.linear[i], dot(g, projection(inputs[i]).by_stage[stage]), kBits);
    add(out.constant, dot(g, prepared[stage].bias), kBits);
  };
  const double kink = less < 0 ? -stages[l].kinks[line - begin[0]] : 0;
  if (kink != 0) out.constant = scaled(&kink, 1);
  std::vector<double> chosen(static_cast<size_t>(stages[l].rows), 0.0);
  chosen[unit_of(line)] = 1;
  if (less >= 0) chosen[unit_of(less)] = -1;
  push(l, scaled(chosen.data(), stages[l].rows));
  for (size_t j = l; j-- > 0;) {
    if (!pending[j].present) continue;
    const ExactStage& stage = stages[j];
    if (stage.denominator != 1) {  // the units of this stage are so many times too large: all else is made so
      for (size_t i = 0; i < j; ++i) times(pending[i], stage.denominator, kBits);
      for (Scaled& sum : out.linear) times(sum, stage.denominator, kBits);
      times(out.constant, stage.denominator, kBits);
    }
    std::vector<double> slope(static_cast<size_t>(stage.rows)), intercept(static_cast<size_t>(stage.rows));
    for (int64_t u = 0; u < stage.rows; ++u) {
      int64_t piece = stage.line_begin[u] - stage.line_begin[0] + u;
      for (int64_t k = stage.line_begin[u]; k < stage.line_begin[u + 1]; ++k) piece += on[k];
      slope[static_cast<size_t>(u)] = stage.slopes[piece];
      intercept[static_cast<size_t>(u)] = stage.intercepts[piece];
    }
    Scaled& g = pending[j];
    if (prepared[j].simple) {
      for (int64_t q = 0; q < g.digits.slices(); ++q) {
        double* x = g.digits.slice(q);
        for (int64_t u = 0; u < stage.rows; ++u) x[u] *= slope[static_cast<size_t>(u)];
      }
    } else {
      add(out.constant, dot(g, scaled(intercept.data(), stage.rows)), kBits);
      g = products(g, scaled(slope.data(), stage.rows));
    }
    push(j, g);
    pending[j] = Scaled();
  }
  return out;
}

SegmentRow SegmentRows::row(int64_t line, const uint8_t* on) {
  const double* const ends[] = {segment_.first, segment_.second};
  const Sums found = sums(line, -1, on, ends, 2);
  const int64_t exponent = found.exponent();
  const BigInt first = integer(found.linear[0], exponent), second = integer(found.linear[1], exponent),
               constant = integer(found.constant, exponent);
  if (!segment_.centred) return {first + constant, second + constant};
  const Scaled r = scaled(&segment_.radius, 1);
  const BigInt centre = (first + constant).shifted(std::max<int64_t>(0, -r.exponent));
  const BigInt reach = (second * r.digits.integer(0, kBits)).shifted(std::max<int64_t>(0, r.exponent));
  return {centre - reach, centre + reach};
}

int SegmentRows::side(int64_t line, int64_t less, const uint8_t* on, const std::array<const double*, 3>& x, double s,
                      double t) {
  Sums found = sums(line, less, on, x.data(), x.size());
  Scaled total = std::move(found.constant);
  const double weights[] = {s, t, 1};
  for (size_t i = 0; i < x.size(); ++i)
    if (found.linear[i].present) add(total, products(found.linear[i], scaled(&weights[i], 1)), kBits);
  return total.present ? total.digits.integer(0, kBits).sign() : 0;
}

}  // namespace pylinregion
