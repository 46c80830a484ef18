// csrc/partition/exact_rows.cpp -- see exact_rows.h; the derivation is in docs/exactness.md, 7.
#include "exact_rows.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <stdexcept>

namespace pylinregion {
namespace {

constexpr int kLargestDigit = 24, kSmallestDigit = 16;
}  // namespace

// The digits of each width are made once, when the first slice needs them.
class NetworkDigits {
 public:
  struct Prepared {
    ScaledArithmetic arithmetic;
    DigitNetwork network;
    std::vector<std::vector<DigitMap>> input;  // by stage: its maps of the input
  };

  explicit NetworkDigits(std::vector<ExactStage> stages) : plain_(std::move(stages)) {}

  const std::vector<ExactStage>& stages() const { return plain_.stages(); }
  int64_t lines() const { return plain_.lines(); }
  int64_t first_line_of_stage_of(int64_t line) const { return plain_.first_line(plain_.stage_of(line)); }
  bool is_only_line(int64_t line) const { return plain_.is_only_line(line); }

  // With the widest digits for which every sum on the slice stays exact without carries.
  const Prepared& on(const ExactSlice& slice) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (widths_.empty()) measure();
    const int bits = widest_digits(slice);
    std::unique_ptr<Prepared>& found = prepared_[bits];
    if (!found) found = std::make_unique<Prepared>(prepared(bits));
    return *found;
  }

 private:
  struct Widths {
    std::vector<BitRange> blocks;
    BitRange bias;
    int units;  // of slopes and intercepts
  };
  // Looks at every number of the network, which takes a while and is for nothing where float64 tells all signs.
  void measure() {
    for (const ExactStage& stage : plain_.stages()) {
      Widths of{{}, BitRange(stage.bias, stage.rows), 1};
      for (const ExactBlock& block : stage.blocks) of.blocks.push_back(BitRange(block.map.numbers, block.map.count));
      for (const double* x : {stage.slopes, stage.intercepts})
        of.units = std::max(of.units, BitRange(x, stage.pieces()).width());
      widths_.push_back(std::move(of));
    }
  }
  int widest_digits(const ExactSlice& slice) const {
    BitRange plane;
    for (const double* x : {slice.u, slice.v, slice.origin}) plane.add(x, slice.dimensions);
    for (int bits = kLargestDigit; bits >= kSmallestDigit; --bits) {
      const auto levels_of = [&](int width) { return static_cast<double>(width / bits + 2); };
      double worst = levels_of(1);
      const auto see = [&](int64_t terms, int width) {
        worst = std::max(worst, static_cast<double>(terms) * levels_of(width));
      };
      for (size_t l = 0; l < widths_.size(); ++l) {
        const ExactStage& stage = stages()[l];
        for (size_t k = 0; k < stage.blocks.size(); ++k)
          see(stage.blocks[k].map.products, widths_[l].blocks[k].width());
        see(stage.rows, widths_[l].units);
        // The rows' affine part has the digits of weight, slice and bias together: it is multiplied with `rows` terms.
        see(stage.rows, affine_width(l, plane));
      }
      if (worst * std::ldexp(1.0, 2 * bits - 2) <= std::ldexp(1.0, 53)) return bits;
    }
    throw std::overflow_error("the exponents of weights and slice are too far apart for exact integers");
  }

  // The bits of what a stage's rows take from the input and the bias, as functions of (s, t).
  int affine_width(size_t l, const BitRange& plane) const {
    BitRange out = widths_[l].bias;
    for (size_t k = 0; k < widths_[l].blocks.size(); ++k) {
      const BitRange& weight = widths_[l].blocks[k];
      if (stages()[l].blocks[k].source >= 0 || weight.empty() || plane.empty()) continue;
      out.low = std::min(out.low, weight.low + plane.low);
      out.high = std::max(out.high, weight.high + plane.high + 32);
    }
    return out.width();
  }

  Prepared prepared(int bits) const {
    Prepared out{{bits, ScaledArithmetic::kAnyProducts}, DigitNetwork(stages()), {}};
    out.network.prepare(out.arithmetic);
    for (const ExactStage& stage : stages()) {
      out.input.emplace_back();
      for (const ExactBlock& block : stage.blocks)
        if (block.source < 0) out.input.back().emplace_back(block.map, out.arithmetic);
    }
    return out;
  }

  const DigitNetwork plain_;
  std::vector<Widths> widths_;
  std::mutex mutex_;
  std::map<int, std::unique_ptr<Prepared>> prepared_;  // by bits
};

std::shared_ptr<NetworkDigits> network_digits(std::vector<ExactStage> stages) {
  return std::make_shared<NetworkDigits>(std::move(stages));
}

class SliceNetwork {
 public:
  using Row = std::array<BigInt, 3>;

  SliceNetwork(std::shared_ptr<NetworkDigits> network, const ExactSlice& slice)
      : network_(std::move(network)), slice_(slice) {}

  int64_t lines() const { return network_->lines(); }
  int64_t first_line_of_stage_of(int64_t line) const { return network_->first_line_of_stage_of(line); }
  bool is_only_line(int64_t line) const { return network_->is_only_line(line); }

  // See DigitNetwork::pull_back.
  Row row(int64_t line, int64_t less, const uint8_t* on) {
    std::call_once(prepared_, [this] { prepare(); });
    Sum sum{*this, digits_->arithmetic, {}};
    digits_->network.pull_back(line, less, on, sum);
    const ScaledArithmetic& arithmetic = digits_->arithmetic;
    Row row{arithmetic.integer(sum.abc, 0), arithmetic.integer(sum.abc, 1), arithmetic.integer(sum.abc, 2)};
    if (slice_.n_corners == 2) row[0] = row[0] + row[1], row[1] = BigInt();  // along u + v
    return row;
  }
  const Row& border(int64_t e) {
    std::call_once(bordered_, [this] { make_borders(); });
    return borders_[static_cast<size_t>(e)];
  }

 private:
  struct Sum {  // takes a row that is pulled back
    const SliceNetwork& on_slice;
    const ScaledArithmetic& arithmetic;
    Scaled abc;

    void rows(size_t stage, const Scaled& g) { arithmetic.add(abc, arithmetic.product(g, on_slice.affine_[stage])); }
    void constant(const Scaled& number) {
      Digits c(3);
      for (int64_t q = 0; q < number.digits.levels(); ++q) c.level(q)[2] = number.digits[q][0];
      arithmetic.add(abc, {std::move(c), number.exponent, true});
    }
    void multiply(double integer) { arithmetic.multiply(abc, integer); }
  };

  void prepare() {
    digits_ = &network_->on(slice_);
    const ScaledArithmetic& arithmetic = digits_->arithmetic;
    std::array<Scaled, 3> plane;
    for (size_t k = 0; k < 3; ++k) {
      const double* x = std::array{slice_.u, slice_.v, slice_.origin}[k];
      plane[k] = arithmetic.vector(x, slice_.dimensions);
    }
    for (size_t l = 0; l < network_->stages().size(); ++l) {
      const ExactStage& stage = network_->stages()[l];
      std::vector<double> constants(static_cast<size_t>(3 * stage.rows), 0.0);
      for (int64_t r = 0; r < stage.rows; ++r) constants[static_cast<size_t>(3 * r + 2)] = stage.bias[r];
      Scaled sum = arithmetic.vector(constants.data(), 3 * stage.rows);
      for (const DigitMap& map : digits_->input[l])
        for (size_t k = 0; k < 3; ++k) arithmetic.add(sum, in_column(map.times(plane[k]), k));
      affine_.push_back({std::move(sum.digits), 3, sum.exponent});
    }
  }
  // Numbers as one of three columns, the others 0.
  static Scaled in_column(const Scaled& numbers, size_t column) {
    Digits out(3 * numbers.digits.size());
    for (int64_t q = 0; q < numbers.digits.levels(); ++q) {
      double* to = out.level(q) + column;
      for (int64_t i = 0; i < numbers.digits.size(); ++i) to[3 * i] = numbers.digits[q][i];
    }
    return {std::move(out), numbers.exponent, true};
  }

  // Coordinates are integers times 2^exponent =: h. With X = x / h the border row is (dy, -dx, ...) up to its scale:
  // a x + b y + c with a = (Y1 - Y2) h, b = (X2 - X1) h, c = (X1 Y2 - X2 Y1) h^2; divided by h^2, times 2^-k if h > 1.
  void make_borders() {
    const double* points = slice_.borders;
    const int64_t exponent = BitRange(points ? points : slice_.corners, (points ? 4 : 2) * slice_.n_corners).exponent();
    const auto integer = [&](double x) {
      return Digits::from(&x, 1, exponent, kLargestDigit).integer(0, kLargestDigit);
    };
    for (int64_t e = 0; e < slice_.n_corners; ++e) {
      if (slice_.n_corners == 2) {  // the ends of a segment on the axis: s = corner
        const BigInt end = -integer(slice_.corners[2 * e]);
        borders_.push_back({BigInt(1).shifted(std::max<int64_t>(0, -exponent)), BigInt(),
                            end.shifted(std::max<int64_t>(0, exponent))});
        continue;
      }
      const double* p = points ? points + 4 * e : slice_.corners + 2 * e;
      const double* q = points ? p + 2 : slice_.corners + 2 * ((e + 1) % slice_.n_corners);
      const BigInt x1 = integer(p[0]), y1 = integer(p[1]), x2 = integer(q[0]), y2 = integer(q[1]);
      Row row{y1 - y2, x2 - x1, x1 * y2 - x2 * y1};
      if (exponent > 0)
        row[2] = row[2].shifted(exponent);
      else
        for (size_t i = 0; i < 2; ++i) row[i] = row[i].shifted(-exponent);
      borders_.push_back(row);
    }
  }

  const std::shared_ptr<NetworkDigits> network_;
  const ExactSlice slice_;
  std::once_flag prepared_, bordered_;
  const NetworkDigits::Prepared* digits_ = nullptr;
  std::vector<Matrix> affine_;  // by stage [rows, 3]: the input's part and the bias, in (s, t, 1)
  std::vector<Row> borders_;
};

ExactRows::ExactRows(std::shared_ptr<NetworkDigits> network, const ExactSlice& slice, const Groups& groups)
    : network_(std::make_shared<SliceNetwork>(std::move(network), slice)),
      groups_(&groups),
      axis_{BigInt(), BigInt(1), BigInt()} {}
ExactRows::ExactRows(const ExactRows& other) : network_(other.network_), groups_(other.groups_), axis_(other.axis_) {}
ExactRows::~ExactRows() = default;

const ExactRows::Row& ExactRows::row(int64_t number, const uint8_t* on) {
  if (number == kAxisRow) return axis_;
  if (is_border(number)) return network_->border(border_of(number));
  const auto found = cache_.find(number);
  if (found != cache_.end() && std::equal(found->second.pattern.begin(), found->second.pattern.end(), on))
    return found->second.row;
  const bool is_pair = number >= network_->lines();
  const auto [line, less] = is_pair ? groups_->table().members(number) : GroupTable::Members{number, -1};
  Row row = network_->row(line, less, on);
  Cached& cached = cache_[number];
  cached.pattern.assign(on, on + read_by(number));
  cached.row = std::move(row);
  return cached.row;
}

int64_t ExactRows::read_by(int64_t number) const {
  if (number < 0) return 0;
  return network_->first_line_of_stage_of(number >= network_->lines() ? groups_->table().members(number).first
                                                                      : number);
}

const uint8_t* ExactRows::both_off(int64_t i, int64_t j, int64_t k, const uint8_t* on) {
  off_.assign(on, on + std::max({read_by(i), read_by(j), read_by(k)}));
  for (const int64_t line : {i, j})
    if (line >= 0 && line < static_cast<int64_t>(off_.size()) && network_->is_only_line(line) &&
        groups_->table().of_line[line] < 0)
      off_[static_cast<size_t>(line)] = 0;
  return off_.data();
}

std::array<double, 2> ExactRows::crossing(int64_t i, int64_t j, const uint8_t* on) {
  on = both_off(i, j, kAxisRow, on);
  const Row &p = row(i, on), &q = row(j, on);
  const BigInt w = p[0] * q[1] - q[0] * p[1];
  return {BigInt::ratio(p[1] * q[2] - q[1] * p[2], w), BigInt::ratio(q[0] * p[2] - p[0] * q[2], w)};
}

int ExactRows::sign_at(int64_t i, int64_t j, int64_t k, const uint8_t* on) {
  if (groups_->follows(i, j, k)) return 0;
  on = both_off(i, j, k, on);
  const Row &p = row(i, on), &q = row(j, on), &r = row(k, on);
  const BigInt minor = p[0] * q[1] - q[0] * p[1];
  const BigInt det = r[0] * (p[1] * q[2] - q[1] * p[2]) - r[1] * (p[0] * q[2] - q[0] * p[2]) + r[2] * minor;
  return det.sign() * minor.sign();
}

}  // namespace pylinregion
