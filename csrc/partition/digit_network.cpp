// csrc/partition/digit_network.cpp -- see digit_network.h; the derivation is in docs/exactness.md, 7.
#include "digit_network.h"

#include <algorithm>
#include <cmath>

namespace pylinregion {
namespace {

bool is_simple(const ExactStage& stage) {
  bool simple = stage.denominator == 1;
  for (int64_t p = 0; p < stage.pieces(); ++p)
    simple &= std::fabs(stage.slopes[p]) <= 1 && stage.slopes[p] == std::nearbyint(stage.slopes[p]) &&
              stage.intercepts[p] == 0;
  return simple;
}
}  // namespace

DigitNetwork::DigitNetwork(std::vector<ExactStage> stages) : stages_(std::move(stages)), first_lines_{0} {
  for (const ExactStage& stage : stages_) first_lines_.push_back(first_lines_.back() + stage.lines());
}

void DigitNetwork::prepare(const ScaledArithmetic& arithmetic) {
  arithmetic_ = arithmetic;
  prepared_.clear();
  for (const ExactStage& stage : stages_) {
    Prepared out;
    for (const ExactBlock& block : stage.blocks) {
      if (block.source < 0) continue;
      const size_t source = static_cast<size_t>(block.source);
      out.blocks.emplace_back(source, DigitMap(block.map, arithmetic_));
    }
    out.simple = is_simple(stage);
    prepared_.push_back(std::move(out));
  }
}

size_t DigitNetwork::stage_of(int64_t line) const {
  return static_cast<size_t>(std::upper_bound(first_lines_.begin(), first_lines_.end(), line) - first_lines_.begin() -
                             1);
}

bool DigitNetwork::is_only_line(int64_t line) const {
  const size_t l = stage_of(line);
  const ExactStage& stage = stages_[l];
  const int64_t place = line - first_lines_[l] + stage.line_begin[0];
  const int64_t* end = std::upper_bound(stage.line_begin, stage.line_begin + stage.rows + 1, place);
  return *end - *(end - 1) == 1;
}

// 1 for the row of a line, -1 for that of `less`.
Scaled DigitNetwork::chosen_rows(size_t l, int64_t line, int64_t less) const {
  const ExactStage& stage = stages_[l];
  const int64_t* begin = stage.line_begin;
  const auto unit_of = [&](int64_t of) {
    return static_cast<size_t>(std::upper_bound(begin, begin + stage.rows + 1, of) - begin - 1);
  };
  std::vector<double> chosen(static_cast<size_t>(stage.rows), 0.0);
  chosen[unit_of(line)] = 1;
  if (less >= 0) chosen[unit_of(less)] = -1;
  return arithmetic_.vector(chosen.data(), stage.rows);
}

DigitNetwork::Pieces DigitNetwork::pieces(size_t l, const uint8_t* on) const {
  const ExactStage& stage = stages_[l];
  const size_t units = static_cast<size_t>(stage.rows);
  Pieces out{std::vector<double>(units), std::vector<double>(units)};
  for (size_t u = 0; u < units; ++u) {
    int64_t piece = stage.line_begin[u] - stage.line_begin[0] + static_cast<int64_t>(u);
    for (int64_t line = stage.line_begin[u]; line < stage.line_begin[u + 1]; ++line) piece += on[line];
    out.slopes[u] = stage.slopes[piece];
    out.intercepts[u] = stage.intercepts[piece];
  }
  return out;
}

}  // namespace pylinregion
