// csrc/partition/linear_map.cpp -- see linear_map.h.
#include "linear_map.h"

#include <algorithm>
#include <stdexcept>

namespace pylinregion {
namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }

bool all_zero(const double* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    if (x[i] != 0) return false;
  return true;
}

// The targets whose window has, at a kernel's place k, a source inside: [begin, end).
struct Range {
  int64_t begin, end, first;  // first: the source of target `begin`
};
Range targets(const ConvolutionMap& map, size_t d, int64_t k) {
  const int64_t offset = k * map.dilation[d] - map.padding[d], stride = map.stride[d];
  const int64_t begin = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
  const int64_t last = map.source[d] - 1 - offset;
  const int64_t end = last < 0 ? 0 : std::min(map.target[d], last / stride + 1);
  return {begin, std::max(begin, end), begin * stride + offset};
}
}  // namespace

Scaled DigitMap::applied(const Scaled& x, int64_t size, bool forwards) const {
  Digits out(size);
  const int64_t limit = arithmetic_.products();
  if (limit - 2 < map_.products) throw std::overflow_error("an affine map sums too many products for exact integers");
  int64_t room = limit - 1;  // products that may be added to one number before carries are due
  for (int64_t p = 0; p < x.digits.levels(); ++p) {
    if (all_zero(x.digits[p], x.digits.size())) continue;
    for (int64_t q = 0; q < numbers_.digits.levels(); ++q) {
      if (room < map_.products) {
        arithmetic_.carry(out);
        room = limit - 2;  // what a carry leaves counts as one
      }
      room -= map_.products;
      add(x.digits[p], numbers_.digits[q], out.level(p + q), forwards);
    }
  }
  arithmetic_.carry(out);
  return {std::move(out), x.exponent + numbers_.exponent, true};
}

void DigitMap::add(const double* x, const double* w, double* out, bool forwards) const {
  switch (map_.kind) {
    case LinearMap::Kind::dense: return add_dense(x, w, out, forwards);
    case LinearMap::Kind::terms: return add_terms(x, w, out, forwards);
    case LinearMap::Kind::convolution: return add_convolution(x, w, out, forwards != map_.convolution.transposed);
  }
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

void DigitMap::add_convolution(const double* x, const double* w, double* out, bool to_target) const {
  const ConvolutionMap& map = map_.convolution;
  const auto size = [](const std::array<int64_t, 3>& shape) { return shape[0] * shape[1] * shape[2]; };
  const int64_t source = size(map.source), target = size(map.target), places = size(map.kernel);
  const int64_t inputs = map.in_channels / map.groups, outputs = map.out_channels / map.groups;
  std::vector<uint8_t> empty(at(to_target ? map.in_channels : map.out_channels));
  for (size_t channel = 0; channel < empty.size(); ++channel) {
    const int64_t n = to_target ? source : target;
    empty[channel] = all_zero(x + static_cast<int64_t>(channel) * n, n);
  }
  for (int64_t place = 0; place < places; ++place) {
    const int64_t k[] = {place / (map.kernel[1] * map.kernel[2]), place / map.kernel[2] % map.kernel[1],
                         place % map.kernel[2]};
    const Range z = targets(map, 0, k[0]), y = targets(map, 1, k[1]), s = targets(map, 2, k[2]);
    const int64_t width = s.end - s.begin, step = map.stride[2];
    if (width <= 0) continue;
    for (int64_t o = 0; o < map.out_channels; ++o) {
      if (!to_target && empty[at(o)]) continue;
      for (int64_t i = 0; i < inputs; ++i) {
        const int64_t input = o / outputs * inputs + i;
        const double digit = w[(o * inputs + i) * places + place];
        if (digit == 0 || (to_target && empty[at(input)])) continue;
        for (int64_t a = z.begin; a < z.end; ++a)
          for (int64_t b = y.begin; b < y.end; ++b) {
            const int64_t plane = z.first + (a - z.begin) * map.stride[0];
            const int64_t line = y.first + (b - y.begin) * map.stride[1];
            const int64_t at_source = input * source + (plane * map.source[1] + line) * map.source[2] + s.first;
            const int64_t at_target = o * target + (a * map.target[1] + b) * map.target[2] + s.begin;
            if (to_target && step == 1) {
              for (int64_t c = 0; c < width; ++c) out[at_target + c] += digit * x[at_source + c];
            } else if (to_target) {
              for (int64_t c = 0; c < width; ++c) out[at_target + c] += digit * x[at_source + c * step];
            } else if (step == 1) {
              for (int64_t c = 0; c < width; ++c) out[at_source + c] += digit * x[at_target + c];
            } else {
              for (int64_t c = 0; c < width; ++c) out[at_source + c * step] += digit * x[at_target + c];
            }
          }
      }
    }
  }
}

}  // namespace pylinregion
