// csrc/partition/linear_map.cpp -- see linear_map.h.
#include "linear_map.h"

#include <algorithm>
#include <stdexcept>

#include "../convolution/convolution.h"

namespace pylinregion {
namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }

bool all_zero(const double* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    if (x[i] != 0) return false;
  return true;
}

}  // namespace

Scaled DigitMap::applied(const Scaled& x, int64_t size, bool forwards) const {
  Digits out(size);
  const int64_t limit = arithmetic_.products();
  if (limit - 2 < map_.products) throw std::overflow_error("an affine map sums too many products for exact integers");
  int64_t room = limit - 1;  // products that may be added to one number before carries are due
  const auto make_room = [&] {
    if (room < map_.products) {
      arithmetic_.carry(out);
      room = limit - 2;  // what a carry leaves counts as one
    }
    room -= map_.products;
  };
  const int64_t levels = x.digits.levels();
  for (int64_t q = 0; q < numbers_.digits.levels(); ++q) {
    if (map_.kind == LinearMap::Kind::convolution) {
      const std::vector<double> images = convolved(x.digits, numbers_.digits[q], size, forwards);
      for (int64_t p = 0; p < levels; ++p) {
        make_room();
        double* to = out.level(p + q);
        for (int64_t i = 0; i < size; ++i) to[i] += images[at(p * size + i)];
      }
      continue;
    }
    for (int64_t p = 0; p < levels; ++p) {
      if (all_zero(x.digits[p], x.digits.size())) continue;
      make_room();
      const auto add = map_.kind == LinearMap::Kind::dense ? &DigitMap::add_dense : &DigitMap::add_terms;
      (this->*add)(x.digits[p], numbers_.digits[q], out.level(p + q), forwards);
    }
  }
  arithmetic_.carry(out);
  return {std::move(out), x.exponent + numbers_.exponent, true};
}

// Each level of x as a vector of its own, [levels, size]: sums of integers, exact in any order.
std::vector<double> DigitMap::convolved(const Digits& x, const double* weights, int64_t size, bool forwards) const {
  const int64_t levels = x.levels(), width = x.size();
  std::vector<double> vectors(at(levels * width)), out(at(levels * size), 0.0);
  for (int64_t p = 0; p < levels; ++p) std::copy(x[p], x[p] + width, vectors.begin() + p * width);
  LinearMap level = map_;
  level.numbers = weights;
  convolve({level, forwards, vectors.data(), out.data(), levels, 1});
  return out;
}

void DigitMap::add_dense(const double* x, const double* w, double* out, bool forwards) const {
  const auto [outputs, inputs, places] = map_.dense;
  for (int64_t p = 0; p < places; ++p) {
    const double* from = x + p * (forwards ? inputs : outputs);
    double* to = out + p * (forwards ? outputs : inputs);
    for (int64_t r = 0; r < outputs; ++r) {
      const double* row = w + r * inputs;
      if (!forwards) {
        const double digit = from[r];
        if (digit == 0) continue;
        for (int64_t c = 0; c < inputs; ++c) to[c] += digit * row[c];
        continue;
      }
      double sums[8] = {};  // in any order: all are exact
      int64_t c = 0;
      for (; c + 8 <= inputs; c += 8)
        for (int64_t k = 0; k < 8; ++k) sums[k] += row[c + k] * from[c + k];
      for (; c < inputs; ++c) sums[0] += row[c] * from[c];
      for (const double sum : sums) to[r] += sum;
    }
  }
}

void DigitMap::add_terms(const double* x, const double* w, double* out, bool forwards) const {
  const int64_t terms = map_.few.terms;
  const int64_t* place = map_.few.place;
  for (int64_t r = 0; r < map_.rows; ++r, place += terms, w += terms) {
    if (forwards)
      for (int64_t k = 0; k < terms; ++k) out[r] += w[k] * x[place[k]];
    else if (x[r] != 0)
      for (int64_t k = 0; k < terms; ++k) out[place[k]] += w[k] * x[r];
  }
}

}  // namespace pylinregion
