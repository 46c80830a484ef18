// sign_changes: the same bits as the portable rows. linear: the sums that its text says, in its order.
#include <limits>

#include "comparison.h"
#include "linear.h"
#include "sign_changes.h"
#include "simd.h"

using namespace pylinregion;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
const char* const kSets[] = {"portable", "neon"};

template <class T> void signs(DType dtype, int64_t neurons, const Kink& kink, bool split, bool in_place) {
  const int64_t points = 3, vertices = 6, row_words = kink.n_breakpoints * words_for_bits(neurons) + 1;
  std::mt19937 random(static_cast<unsigned>(neurons));
  std::vector<T> z = numbers<T>(random, points * vertices * neurons, true);
  std::vector<T> centre = numbers<T>(random, points * neurons, true);
  const std::vector<T> directions = numbers<T>(random, vertices / 2 * neurons, false);
  const std::vector<double> radius{0.5, 1e-3, 3};
  // In the last point, which must be the only one that is flagged.
  const T odd[] = {static_cast<T>(kInf), static_cast<T>(-0.0), std::numeric_limits<T>::quiet_NaN(),
                   std::numeric_limits<T>::denorm_min()};
  for (size_t i = 0; i < 4 && length(neurons) > 8; ++i) {
    z[length((points - 1) * vertices * neurons) + (i + 1) * length(neurons) + i] = odd[i];
    centre[length((points - 1) * neurons) + i] = odd[i];
  }
  std::vector<T> activation[2];
  std::vector<uint64_t> patterns[2];
  std::vector<int64_t> changes[2];
  std::vector<uint8_t> nonfinite[2];
  for (int set = 0; set < 2; ++set) {
    set_simd(kSets[set]);
    activation[set] = z;
    patterns[set].assign(length(points * vertices * row_words), 7);
    changes[set].assign(length(points), 3);
    nonfinite[set].assign(length(points), 0);
    const void* dense = in_place ? activation[set].data() : z.data();
    const Preactivations from{
        split ? nullptr : dense, centre.data(), directions.data(), radius.data(), points, vertices, neurons};
    const SignChanges to{activation[set].data(), patterns[set].data(), row_words, changes[set].data(), 1,
                         nonfinite[set].data()};
    sign_changes_cpu(dtype, from, kink, to, 1);
  }
  same(equal_bytes(activation[0], activation[1]), "activations", {neurons, split});
  same(patterns[0] == patterns[1], "patterns", {neurons, split});
  same(changes[0] == changes[1], "changes", {neurons, split});
  same(nonfinite[0] == nonfinite[1], "flags", {neurons, split});
  same(neurons <= 8 || nonfinite[1] == std::vector<uint8_t>({0, 0, 1}), "flags and what they must be", {neurons});
}

// Every output is a chain of fused multiply-adds over the inputs, from the bias on.
template <class T> void linear(DType dtype, int64_t rows, int64_t in, int64_t out, bool with_bias) {
  std::mt19937 random(static_cast<unsigned>(rows + in + out));
  const std::vector<T> x = numbers<T>(random, rows * in, false), weight = numbers<T>(random, in * out, false),
                       bias = numbers<T>(random, out, false);
  std::vector<T> packed(length(packed_size(dtype, in, out))), y(length(rows * out + 1), T(7)), expected = y;
  pack_linear(dtype, weight.data(), with_bias ? bias.data() : nullptr, in, out, packed.data());
  linear_cpu(dtype, x.data(), rows, {in, out, packed.data()}, y.data(), 1);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < out; ++c) {
      T sum = with_bias ? bias[length(c)] : T(0);
      for (int64_t k = 0; k < in; ++k) sum = std::fma(x[length(r * in + k)], weight[length(c * in + k)], sum);
      expected[length(r * out + c)] = sum;
    }
  same(equal_bytes(y, expected), "linear layers", {rows, in, out, with_bias});
}
}  // namespace

void compare_signs() {
  const Kink kinks[] = {{Activation::relu, 1, {0, 0}, 0, -kInf, kInf},
                        {Activation::leaky_relu, 1, {0, 0}, 0.3, -kInf, kInf},
                        {Activation::clamp, 2, {-0.5, 0.75}, 0, -0.5, 0.75},
                        {Activation::none, 2, {-0.25, 0.5}, 0, -kInf, kInf}};
  for (const int64_t neurons : {0, 1, 7, 63, 64, 65, 128, 515})
    for (const Kink& kink : kinks)
      for (const bool split : {false, true}) {
        signs<float>(DType::float32, neurons, kink, split, false);
        signs<double>(DType::float64, neurons, kink, split, !split);
      }
}

void compare_linear() {
  set_simd("neon");
  for (const int64_t rows : {1, 5, 6, 13})
    for (const int64_t in : {1, 7, 200, 1030})
      for (const int64_t out : {1, 4, 15, 16, 17, 47, 64, 200}) {
        linear<float>(DType::float32, rows, in, out, true);
        linear<double>(DType::float64, rows, in, out, out % 2 == 0);
      }
}
