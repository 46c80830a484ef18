// csrc/partition/exact_rows.cpp -- see exact_rows.h; the derivation is in docs/exactness.md, 7.
#include "exact_rows.h"

#include <algorithm>
#include <mutex>
#include <stdexcept>

namespace pylinregion {
namespace {

constexpr int kLargestDigit = 24, kSmallestDigit = 16;

// The bits of what a stage's rows take from the input and the bias, as functions of (s, t).
int affine_width(const ExactStage& stage, const ExactSlice& slice) {
  BitRange plane, out(stage.bias, stage.rows);
  for (const double* x : {slice.u, slice.v, slice.origin}) plane.add(x, slice.dimensions);
  for (const ExactBlock& block : stage.blocks) {
    if (block.source >= 0) continue;
    const BitRange weight(block.weight, stage.rows * slice.dimensions);
    if (weight.empty() || plane.empty()) continue;
    out.low = std::min(out.low, weight.low + plane.low);
    out.high = std::max(out.high, weight.high + plane.high + 32);
  }
  return out.width();
}

// The widest digits for which every sum stays exact without carries.
ScaledArithmetic widest_digits(const std::vector<ExactStage>& stages, const ExactSlice& slice) {
  for (int bits = kLargestDigit; bits >= kSmallestDigit; --bits) {
    const auto levels_of = [&](int width) { return static_cast<double>(width / bits + 2); };
    double worst = levels_of(1);
    const auto see = [&](int64_t terms, int width) {
      worst = std::max(worst, static_cast<double>(terms) * levels_of(width));
    };
    for (const ExactStage& stage : stages) {
      for (const ExactBlock& block : stage.blocks) {
        const int64_t width = block.source < 0 ? slice.dimensions : stages[static_cast<size_t>(block.source)].rows;
        see(std::max(stage.rows, width), BitRange(block.weight, stage.rows * width).width());
      }
      for (const double* x : {stage.slopes, stage.intercepts}) see(stage.rows, BitRange(x, stage.pieces()).width());
      // The rows' affine part has the digits of weight, slice and bias together: it is multiplied with `rows` terms.
      see(stage.rows, affine_width(stage, slice));
    }
    if (worst * std::ldexp(1.0, 2 * bits - 2) <= std::ldexp(1.0, 53)) return {bits, ScaledArithmetic::kAnyProducts};
  }
  throw std::overflow_error("the exponents of weights and slice are too far apart for exact integers");
}
}  // namespace

class SliceNetwork {
 public:
  SliceNetwork(std::vector<ExactStage> stages, const ExactSlice& slice) : network_(std::move(stages)), slice_(slice) {}

  int64_t lines() const { return network_.lines(); }
  int64_t first_line_of_stage_of(int64_t line) const { return network_.first_line(network_.stage_of(line)); }

  // See DigitNetwork::pull_back.
  std::array<BigInt, 3> row(int64_t line, int64_t less, const uint8_t* on) {
    std::call_once(prepared_, [this] { prepare(); });
    Row sum{*this, {}};
    network_.pull_back(line, less, on, sum);
    return {arithmetic_.integer(sum.abc, 0), arithmetic_.integer(sum.abc, 1), arithmetic_.integer(sum.abc, 2)};
  }

 private:
  struct Row {  // takes a row that is pulled back
    const SliceNetwork& on_slice;
    Scaled abc;

    void rows(size_t stage, const Scaled& g) {
      const ScaledArithmetic& arithmetic = on_slice.arithmetic_;
      arithmetic.add(abc, arithmetic.product(g, on_slice.affine_[stage]));
    }
    void constant(const Scaled& number) {
      Digits c(3);
      for (int64_t q = 0; q < number.digits.levels(); ++q) c.level(q)[2] = number.digits[q][0];
      on_slice.arithmetic_.add(abc, {std::move(c), number.exponent, true});
    }
    void multiply(double integer) { on_slice.arithmetic_.multiply(abc, integer); }
  };

  void prepare() {
    arithmetic_ = widest_digits(network_.stages(), slice_);
    network_.prepare(arithmetic_);
    const size_t dimensions = static_cast<size_t>(slice_.dimensions);
    std::vector<double> columns(3 * dimensions);
    for (size_t d = 0; d < dimensions; ++d)
      columns[3 * d] = slice_.u[d], columns[3 * d + 1] = slice_.v[d], columns[3 * d + 2] = slice_.origin[d];
    const Matrix plane = arithmetic_.matrix(columns.data(), slice_.dimensions, 3);
    affine_.clear();
    for (const ExactStage& stage : network_.stages()) {
      std::vector<double> constants(static_cast<size_t>(3 * stage.rows), 0.0);
      for (int64_t r = 0; r < stage.rows; ++r) constants[static_cast<size_t>(3 * r + 2)] = stage.bias[r];
      Scaled sum = arithmetic_.vector(constants.data(), 3 * stage.rows);
      for (const ExactBlock& block : stage.blocks) {
        if (block.source >= 0) continue;
        const Matrix weight = arithmetic_.matrix(block.weight, stage.rows, slice_.dimensions);
        arithmetic_.add(sum, arithmetic_.product(weight, plane));
      }
      affine_.push_back({std::move(sum.digits), 3, sum.exponent});
    }
  }

  DigitNetwork network_;
  const ExactSlice slice_;
  std::once_flag prepared_;
  ScaledArithmetic arithmetic_ = ScaledArithmetic::of_any_length();
  std::vector<Matrix> affine_;  // by stage [rows, 3]: the input's part and the bias, in (s, t, 1)
};

ExactRows::ExactRows(std::vector<ExactStage> stages, const ExactSlice& slice, const Groups& groups)
    : network_(std::make_shared<SliceNetwork>(std::move(stages), slice)),
      groups_(&groups),
      cache_(static_cast<size_t>(network_->lines())),
      axis_{BigInt(), BigInt(1), BigInt()} {
  const int64_t exponent = BitRange(slice.corners, 2 * slice.n_corners).exponent();
  const auto integer = [&](double x) { return Digits::from(&x, 1, exponent, kLargestDigit).integer(0, kLargestDigit); };
  // Coordinates are integers times 2^exponent =: h. With X = x / h the border row is (dy, -dx, ...) up to its scale:
  // a x + b y + c with a = (Y1 - Y2) h, b = (X2 - X1) h, c = (X1 Y2 - X2 Y1) h^2; divided by h^2, times 2^-k if h > 1.
  for (int64_t e = 0; e < slice.n_corners; ++e) {
    if (slice.n_corners == 2) {  // the ends of a segment on the axis: s = corner
      const BigInt end = -integer(slice.corners[2 * e]);
      borders_.push_back(
          {BigInt(1).shifted(std::max<int64_t>(0, -exponent)), BigInt(), end.shifted(std::max<int64_t>(0, exponent))});
      continue;
    }
    const double *p = slice.corners + 2 * e, *q = slice.corners + 2 * ((e + 1) % slice.n_corners);
    const BigInt x1 = integer(p[0]), y1 = integer(p[1]), x2 = integer(q[0]), y2 = integer(q[1]);
    Row row{y1 - y2, x2 - x1, x1 * y2 - x2 * y1};
    if (exponent > 0)
      row[2] = row[2].shifted(exponent);
    else
      for (size_t i = 0; i < 2; ++i) row[i] = row[i].shifted(-exponent);
    borders_.push_back(row);
  }
}
ExactRows::ExactRows(const ExactRows& other)
    : network_(other.network_),
      groups_(other.groups_),
      cache_(other.cache_.size()),
      borders_(other.borders_),
      axis_(other.axis_) {}
ExactRows::~ExactRows() = default;

const ExactRows::Row& ExactRows::row(int64_t number, const uint8_t* on) {
  if (number == kAxisRow) return axis_;
  if (number < 0) return borders_[static_cast<size_t>(-2 - number)];
  const bool is_pair = number >= network_->lines();
  Cached& cached = is_pair ? pairs_[number] : cache_[static_cast<size_t>(number)];
  if (!cached.filled || !std::equal(cached.pattern.begin(), cached.pattern.end(), on)) {
    const auto [line, less] = is_pair ? groups_->members(number) : std::pair<int64_t, int64_t>(number, -1);
    const size_t before = static_cast<size_t>(network_->first_line_of_stage_of(line));
    cached.row = network_->row(line, less, on);
    cached.pattern.assign(on, on + before);
    cached.filled = true;
  }
  return cached.row;
}

std::array<double, 2> ExactRows::crossing(int64_t i, int64_t j, const uint8_t* on) {
  const Row &p = row(i, on), &q = row(j, on);
  const BigInt w = p[0] * q[1] - q[0] * p[1];
  return {BigInt::ratio(p[1] * q[2] - q[1] * p[2], w), BigInt::ratio(q[0] * p[2] - p[0] * q[2], w)};
}

int ExactRows::sign_at(int64_t i, int64_t j, int64_t k, const uint8_t* on) {
  if (groups_->follows(i, j, k)) return 0;
  const Row &p = row(i, on), &q = row(j, on), &r = row(k, on);
  const BigInt minor = p[0] * q[1] - q[0] * p[1];
  const BigInt det = r[0] * (p[1] * q[2] - q[1] * p[2]) - r[1] * (p[0] * q[2] - q[0] * p[2]) + r[2] * minor;
  return det.sign() * minor.sign();
}

}  // namespace pylinregion
