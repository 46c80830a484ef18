// csrc/partition/exact_rows.cpp -- see exact_rows.h; the derivation is in docs/exactness.md.
#include "exact_rows.h"

#include <algorithm>
#include <climits>
#include <stdexcept>

#include "scaled.h"

namespace pylinregion {
namespace {

struct Range {  // of the bits that some doubles have set
  int low = INT_MAX, high = INT_MIN;
  void add(const double* x, int64_t size) {
    for (int64_t i = 0; i < size; ++i) {
      if (x[i] == 0) continue;
      low = std::min(low, lowest_bit(x[i]));
      high = std::max(high, std::ilogb(x[i]) + 1);
    }
  }
  int exponent() const { return low == INT_MAX ? 0 : low; }
  int width() const { return low == INT_MAX ? 1 : high - low; }
};

constexpr int kLargestDigit = 24, kSmallestDigit = 16;
}  // namespace

class ExactNetwork {
 public:
  ExactNetwork(std::vector<ExactStage> stages, const ExactSlice& slice) : stages_(std::move(stages)), slice_(slice) {
    int64_t line = 0;
    for (const ExactStage& stage : stages_) {
      line_begin_.push_back(line);
      line += stage.line_begin[stage.rows] - stage.line_begin[0];
    }
    line_begin_.push_back(line);
  }

  int64_t lines() const { return line_begin_.back(); }
  int64_t first_line_of_stage_of(int64_t line) const { return line_begin_[stage_of(line)]; }
  const ExactSlice& slice() const { return slice_; }

  // The row of a line; with `less`, another line of its stage, their difference without the kinks.
  std::array<BigInt, 3> row(int64_t line, int64_t less, const uint8_t* on) {
    std::call_once(prepared_, [this] { prepare(); });
    const size_t l = stage_of(line);
    const ExactStage& stage = stages_[l];
    const int64_t* begin = stage.line_begin;
    const auto unit_of = [&](int64_t of) { return std::upper_bound(begin, begin + stage.rows + 1, of) - begin - 1; };

    std::vector<Scaled> pending(stages_.size());
    Scaled result;
    Scaled one;
    one.digits = Digits(stage.rows);
    one.digits.slice(0)[unit_of(line)] = 1;
    if (less >= 0) one.digits.slice(0)[unit_of(less)] = -1;
    one.present = true;
    const double kink = less < 0 ? stage.kinks[line - begin[0]] : 0;
    if (kink != 0) {
      const double constant[3] = {0, 0, -kink};
      add(result, {Digits::from(constant, 3, 1, lowest_bit(kink), bits_), lowest_bit(kink), true}, bits_);
    }
    push(l, one, pending, result);
    for (size_t j = l; j-- > 0;) {
      if (!pending[j].present) continue;
      if (stages_[j].denominator != 1) {  // the units of this stage are so many times too large: all else is made so
        for (size_t i = 0; i < j; ++i) times(pending[i], stages_[j].denominator, bits_);
        times(result, stages_[j].denominator, bits_);
      }
      through(j, pending[j], on, pending, result);
    }
    std::array<BigInt, 3> out;
    if (result.present)
      for (int64_t i = 0; i < 3; ++i) out[static_cast<size_t>(i)] = result.digits.integer(i, bits_);
    return out;
  }

 private:
  struct Prepared {
    std::vector<std::pair<int64_t, Matrix>> blocks;  // source >= 0
    Matrix affine;                                   // [rows, 3]: the input's part and the bias, in (s, t, 1)
    bool simple;                                     // slopes -1, 0, 1 and no intercepts
  };

  size_t stage_of(int64_t line) const {
    return static_cast<size_t>(std::upper_bound(line_begin_.begin(), line_begin_.end(), line) - line_begin_.begin() -
                               1);
  }
  double base() const { return std::ldexp(1.0, bits_); }

  void prepare() {
    choose_bits();
    prepared_stages_.resize(stages_.size());
    const Matrix plane = plane_of_slice();
    for (size_t l = 0; l < stages_.size(); ++l) {
      const ExactStage& stage = stages_[l];
      Prepared& out = prepared_stages_[l];
      Scaled affine;
      Range bias_range;
      bias_range.add(stage.bias, stage.rows);
      std::vector<double> constants(static_cast<size_t>(3 * stage.rows), 0.0);
      for (int64_t r = 0; r < stage.rows; ++r) constants[static_cast<size_t>(3 * r + 2)] = stage.bias[r];
      const int low = bias_range.exponent();
      add(affine, {Digits::from(constants.data(), 3 * stage.rows, 1, low, bits_), low, true}, bits_);
      for (const ExactBlock& block : stage.blocks) {
        const Matrix weight = matrix(block.weight, stage.rows, width(block.source));
        if (block.source >= 0) {
          out.blocks.emplace_back(block.source, weight);
          continue;
        }
        Digits product(3 * stage.rows);
        for (int64_t r = 0; r < stage.rows; ++r)
          multiply(weight.digits, r * weight.columns, weight.columns, plane, product, 3 * r);
        product.carry(base());
        add(affine, {std::move(product), weight.exponent + plane.exponent, true}, bits_);
      }
      out.affine = {std::move(affine.digits), 3, affine.exponent};
      out.simple = stage.denominator == 1;
      const int64_t pieces = stage.rows + stage.line_begin[stage.rows] - stage.line_begin[0];
      for (int64_t p = 0; p < pieces; ++p)
        out.simple &= std::fabs(stage.slopes[p]) <= 1 && stage.slopes[p] == std::nearbyint(stage.slopes[p]) &&
                      stage.intercepts[p] == 0;
    }
  }

  // The widest digits for which every sum stays exact.
  void choose_bits() {
    for (bits_ = kLargestDigit; bits_ >= kSmallestDigit; --bits_) {
      double worst = slices_of(1);
      const auto see = [&](int64_t terms, int bits) {
        worst = std::max(worst, static_cast<double>(terms) * static_cast<double>(slices_of(bits)));
      };
      for (const ExactStage& stage : stages_)
        for (const ExactBlock& block : stage.blocks) {
          Range range;
          range.add(block.weight, stage.rows * width(block.source));
          see(std::max(stage.rows, width(block.source)), range.width());
        }
      for (const ExactStage& stage : stages_) {
        const int64_t pieces = stage.rows + stage.line_begin[stage.rows] - stage.line_begin[0];
        for (const double* x : {stage.slopes, stage.intercepts}) {
          Range range;
          range.add(x, pieces);
          see(stage.rows, range.width());
        }
      }
      // The rows' affine part has the digits of weight, slice and bias together: it is multiplied with `rows` terms.
      for (const ExactStage& stage : stages_) see(stage.rows, affine_width(stage));
      if (worst * std::ldexp(1.0, 2 * bits_ - 2) <= std::ldexp(1.0, 53)) return;
    }
    throw std::overflow_error("the exponents of weights and slice are too far apart for exact integers");
  }
  int affine_width(const ExactStage& stage) const {
    Range slice, rest;
    for (const double* x : {slice_.u, slice_.v, slice_.origin}) slice.add(x, slice_.dimensions);
    rest.add(stage.bias, stage.rows);
    int low = rest.low, high = rest.high;
    for (const ExactBlock& block : stage.blocks) {
      if (block.source >= 0) continue;
      Range range;
      range.add(block.weight, stage.rows * slice_.dimensions);
      if (range.low == INT_MAX || slice.low == INT_MAX) continue;
      low = std::min(low, range.low + slice.low);
      high = std::max(high, range.high + slice.high + 32);
    }
    return low == INT_MAX ? 1 : high - low;
  }
  int64_t slices_of(int width_in_bits) const { return width_in_bits / bits_ + 2; }

  int64_t width(int64_t source) const {
    return source < 0 ? slice_.dimensions : stages_[static_cast<size_t>(source)].rows;
  }
  Matrix matrix(const double* x, int64_t rows, int64_t columns) const {
    Range range;
    range.add(x, rows * columns);
    return {Digits::from(x, rows * columns, 1, range.exponent(), bits_), columns, range.exponent()};
  }
  Matrix plane_of_slice() const {
    std::vector<double> plane(static_cast<size_t>(3 * slice_.dimensions));
    for (int64_t d = 0; d < slice_.dimensions; ++d) {
      plane[static_cast<size_t>(3 * d)] = slice_.u[d];
      plane[static_cast<size_t>(3 * d + 1)] = slice_.v[d];
      plane[static_cast<size_t>(3 * d + 2)] = slice_.origin[d];
    }
    return matrix(plane.data(), slice_.dimensions, 3);
  }

  // out[at ...] += x[from .. from + n] times the matrix [n, columns]; carried by the caller.
  static void multiply(const Digits& x, int64_t from, int64_t n, const Matrix& w, Digits& out, int64_t at) {
    for (int64_t p = 0; p < x.slices(); ++p)
      for (int64_t q = 0; q < w.digits.slices(); ++q) {
        double* to = out.slice(p + q) + at;
        const double *left = x[p] + from, *right = w.digits[q];
        for (int64_t j = 0; j < n; ++j) {
          if (left[j] == 0) continue;
          const double digit = left[j];
          const double* line = right + j * w.columns;
          for (int64_t k = 0; k < w.columns; ++k) to[k] += digit * line[k];
        }
      }
  }

  // A vector on the rows of stage l, pushed to the units before and to the result.
  void push(size_t l, const Scaled& g, std::vector<Scaled>& pending, Scaled& result) const {
    const Prepared& stage = prepared_stages_[l];
    const auto product = [&](const Matrix& w) {
      Digits out(w.columns);
      multiply(g.digits, 0, g.digits.size(), w, out, 0);
      out.carry(base());
      return Scaled{std::move(out), g.exponent + w.exponent, true};
    };
    for (const auto& [source, weight] : stage.blocks) add(pending[static_cast<size_t>(source)], product(weight), bits_);
    add(result, product(stage.affine), bits_);
  }

  // A vector on the units of stage j, through their pieces to its rows, and on.
  void through(size_t j, Scaled& g, const uint8_t* on, std::vector<Scaled>& pending, Scaled& result) const {
    const ExactStage& stage = stages_[j];
    std::vector<double> slope(static_cast<size_t>(stage.rows)), intercept(static_cast<size_t>(stage.rows));
    for (int64_t u = 0; u < stage.rows; ++u) {
      int64_t piece = stage.line_begin[u] - stage.line_begin[0] + u;
      for (int64_t line = stage.line_begin[u]; line < stage.line_begin[u + 1]; ++line) piece += on[line];
      slope[static_cast<size_t>(u)] = stage.slopes[piece];
      intercept[static_cast<size_t>(u)] = stage.intercepts[piece];
    }
    if (prepared_stages_[j].simple) {
      for (int64_t q = 0; q < g.digits.slices(); ++q) {
        double* x = g.digits.slice(q);
        for (int64_t u = 0; u < stage.rows; ++u) x[u] *= slope[static_cast<size_t>(u)];
      }
      push(j, g, pending, result);
      return;
    }
    const Matrix b = matrix(intercept.data(), stage.rows, 1);
    Digits constant(1);
    multiply(g.digits, 0, stage.rows, b, constant, 0);
    constant.carry(base());
    Digits on_constant(3);
    for (int64_t q = 0; q < constant.slices(); ++q) on_constant.slice(q)[2] = constant[q][0];
    add(result, {std::move(on_constant), g.exponent + b.exponent, true}, bits_);
    const Matrix s = matrix(slope.data(), stage.rows, 1);
    Scaled scaled{Digits(stage.rows), g.exponent + s.exponent, true};
    for (int64_t p = 0; p < g.digits.slices(); ++p)
      for (int64_t q = 0; q < s.digits.slices(); ++q) {
        double* x = scaled.digits.slice(p + q);
        for (int64_t u = 0; u < stage.rows; ++u) x[u] += g.digits[p][u] * s.digits[q][u];
      }
    scaled.digits.carry(base());
    push(j, scaled, pending, result);
  }

  std::vector<ExactStage> stages_;
  ExactSlice slice_;
  std::vector<int64_t> line_begin_;
  std::once_flag prepared_;
  std::vector<Prepared> prepared_stages_;
  int bits_ = kLargestDigit;
};

ExactRows::ExactRows(std::vector<ExactStage> stages, const ExactSlice& slice, const Groups& groups)
    : network_(std::make_shared<ExactNetwork>(std::move(stages), slice)),
      groups_(&groups),
      cache_(static_cast<size_t>(network_->lines())),
      axis_{BigInt(), BigInt(1), BigInt()} {
  Range range;
  range.add(slice.corners, 2 * slice.n_corners);
  const auto integer = [&](double x) {
    return x == 0 ? BigInt() : Digits::from(&x, 1, 1, range.exponent(), kLargestDigit).integer(0, kLargestDigit);
  };
  // Coordinates are integers times 2^exponent =: h. With X = x / h the border row is (dy, -dx, ...) up to its scale:
  // a x + b y + c with a = (Y1 - Y2) h, b = (X2 - X1) h, c = (X1 Y2 - X2 Y1) h^2; divided by h^2, times 2^-k if h > 1.
  const int64_t exponent = range.exponent();
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
