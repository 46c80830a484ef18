// csrc/convolution/images.cpp -- see convolution.h.
#include <utility>

#include "../parallel.h"
#include "convolution.h"

namespace pylinregion {

void add_images(const Images& given) {
  const ConvolutionMap& map = given.map.convolution;
  const bool to_target = !map.transposed;
  const auto &from = to_target ? map.source : map.target, &to = to_target ? map.target : map.source;
  const int64_t inputs = (to_target ? map.in_channels : map.out_channels) / map.groups;
  const int64_t outputs = (to_target ? map.out_channels : map.in_channels) / map.groups;
  const int64_t kernel = map.kernel[0] * map.kernel[1] * map.kernel[2], places = to[0] * to[1] * to[2];
  // Where a place of the kernel takes a place of the operand to, in one dimension; -1: nowhere.
  const auto moved = [&](size_t d, int64_t place, int64_t k) -> int64_t {
    const int64_t offset = k * map.dilation[d] - map.padding[d];
    int64_t found = to_target ? place - offset : place * map.stride[d] + offset;
    if (to_target) {
      if (found < 0 || found % map.stride[d] != 0) return -1;
      found /= map.stride[d];
    }
    return found >= 0 && found < to[d] ? found : -1;
  };
  parallel_ranges(given.n, given.threads, [&](int64_t begin, int64_t end) {
    std::vector<std::pair<int64_t, int64_t>> reached;  // places of the kernel, and of the result
    for (int64_t i = begin; i < end; ++i) {
      int64_t unit = given.units[i];
      const int64_t x = unit % from[2], y = (unit /= from[2]) % from[1], z = (unit /= from[1]) % from[0];
      const int64_t channel = unit / from[0], group = channel / inputs;
      reached.clear();
      for (int64_t k = 0; k < kernel; ++k) {
        const int64_t a = moved(0, z, k / map.kernel[2] / map.kernel[1]);
        const int64_t b = moved(1, y, k / map.kernel[2] % map.kernel[1]), c = moved(2, x, k % map.kernel[2]);
        if (a >= 0 && b >= 0 && c >= 0) reached.emplace_back(k, (a * to[1] + b) * to[2] + c);
      }
      double* out = given.out + i * given.map.rows + group * outputs * places;
      for (int64_t o = 0; o < outputs; ++o, out += places) {
        const int64_t row = to_target ? group * outputs + o : channel, column = to_target ? channel % inputs : o;
        const double* weights = given.map.numbers + (row * (to_target ? inputs : outputs) + column) * kernel;
        for (const auto& [k, place] : reached) out[place] += weights[k] * given.factors[i];
      }
    }
  });
}

}  // namespace pylinregion
