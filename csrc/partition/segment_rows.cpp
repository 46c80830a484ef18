// csrc/partition/segment_rows.cpp -- see segment_rows.h; the derivation is in docs/exactness.md, 7 and 11.
#include "segment_rows.h"

#include <algorithm>
#include <climits>
#include <mutex>

namespace pylinregion {
namespace {

constexpr size_t kProjectionsKept = 256;
}  // namespace

double position_of(const SegmentPoint& point) { return BigInt::ratio(point[1], point[0] + point[1]); }

class SegmentNetwork {
 public:
  SegmentNetwork(std::vector<ExactStage> stages, int64_t dimensions_)
      : dimensions(dimensions_), network_(std::move(stages)) {}

  const DigitNetwork& weights() {
    std::call_once(prepared_, [this] { prepare(); });
    return network_;
  }

  const ScaledArithmetic arithmetic = ScaledArithmetic::of_any_length();
  const int64_t dimensions;
  // By stage, once weights() has been called.
  std::vector<std::vector<DigitMap>> input;
  std::vector<Scaled> bias;  // [rows]

 private:
  void prepare() {
    network_.prepare(arithmetic);
    for (const ExactStage& stage : network_.stages()) {
      bias.push_back(arithmetic.vector(stage.bias, stage.rows));
      input.emplace_back();
      for (const ExactBlock& block : stage.blocks)
        if (block.source < 0) input.back().emplace_back(block.map, arithmetic);
    }
  }

  DigitNetwork network_;
  std::once_flag prepared_;
};

std::shared_ptr<SegmentNetwork> segment_network(std::vector<ExactStage> stages, int64_t dimensions) {
  return std::make_shared<SegmentNetwork>(std::move(stages), dimensions);
}

// The products of the stages' input weights with one input.
struct SegmentRows::Projection {
  std::vector<Scaled> by_stage;
};

SegmentRows::SegmentRows(std::shared_ptr<SegmentNetwork> network) : network_(std::move(network)) {}
SegmentRows::~SegmentRows() = default;

const SegmentRows::Projection& SegmentRows::projection(const double* point) {
  const auto found = projections_.find(point);
  if (found != projections_.end()) return *found->second;
  if (projections_.size() == kProjectionsKept) projections_.clear();
  auto made = std::make_unique<Projection>();
  const Scaled x = network_->arithmetic.vector(point, network_->dimensions);
  for (const std::vector<DigitMap>& maps : network_->input) {
    made->by_stage.emplace_back();
    for (const DigitMap& map : maps) network_->arithmetic.add(made->by_stage.back(), map.times(x));
  }
  return *(projections_[point] = std::move(made));
}

// A row that is pulled back: of each input its linear part, and the constant.
struct SegmentRows::Row {
  SegmentRows& of;
  const double* const* inputs;
  std::vector<Scaled> linear;  // [inputs]
  Scaled number;

  void rows(size_t stage, const Scaled& g) {
    const SegmentNetwork& network = *of.network_;
    if (!network.input[stage].empty())
      for (size_t i = 0; i < linear.size(); ++i)
        network.arithmetic.add(linear[i], network.arithmetic.dot(g, of.projection(inputs[i]).by_stage[stage]));
    constant(network.arithmetic.dot(g, network.bias[stage]));
  }
  void constant(Scaled more) { of.network_->arithmetic.add(number, std::move(more)); }
  void multiply(double integer) {
    for (Scaled& sum : linear) of.network_->arithmetic.multiply(sum, integer);
    of.network_->arithmetic.multiply(number, integer);
  }
  // Of a sum, as a multiple of the finest of all their units.
  BigInt integer(const Scaled& sum) const {
    int64_t finest = number.present ? number.exponent : INT64_MAX;
    for (const Scaled& each : linear)
      if (each.present) finest = std::min(finest, each.exponent);
    return sum.present ? of.network_->arithmetic.integer(sum, 0).shifted(sum.exponent - finest) : BigInt();
  }
};

SegmentRows::Row SegmentRows::pulled_back(int64_t line, int64_t less, const uint8_t* on, const double* const* inputs,
                                          size_t n) {
  const DigitNetwork& weights = network_->weights();
  Row out{*this, inputs, std::vector<Scaled>(n), {}};
  weights.pull_back(line, less, on, out);
  return out;
}

SegmentRow SegmentRows::row(int64_t line, const uint8_t* on) {
  const double* const ends[] = {segment_.first, segment_.second};
  const Row found = pulled_back(line, -1, on, ends, 2);
  const BigInt first = found.integer(found.linear[0]), second = found.integer(found.linear[1]),
               constant = found.integer(found.number);
  if (!segment_.centred) return {first + constant, second + constant};
  const Scaled r = network_->arithmetic.vector(&segment_.radius, 1);
  const BigInt centre = (first + constant).shifted(std::max<int64_t>(0, -r.exponent));
  const BigInt reach = (second * network_->arithmetic.integer(r, 0)).shifted(std::max<int64_t>(0, r.exponent));
  return {centre - reach, centre + reach};
}

int SegmentRows::side(int64_t line, int64_t less, const uint8_t* on, const std::array<const double*, 3>& x, double s,
                      double t) {
  Row found = pulled_back(line, less, on, x.data(), x.size());
  const double weights[] = {s, t, 1};
  for (size_t i = 0; i < x.size(); ++i) {
    const Scaled& sum = found.linear[i];
    if (sum.present) found.constant(network_->arithmetic.products(sum, network_->arithmetic.vector(&weights[i], 1)));
  }
  return network_->arithmetic.integer(found.number, 0).sign();
}

}  // namespace pylinregion
