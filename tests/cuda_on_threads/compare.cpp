// The CUDA kernels, on threads, against the CPU kernels: equal to the bit, and nothing written beside the results.
#include "compare.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "distinct_patterns.h"
#include "label_changes.h"
#include "sign_changes.h"

using namespace pylinregion;

static int failures = 0;
static int comparisons = 0;

void same(bool equal, const char* what, int64_t points, int64_t vertices, int64_t neurons) {
  ++comparisons;
  if (equal) return;
  ++failures;
  std::printf("%s differ for %lld points, %lld vertices, %lld neurons\n", what, static_cast<long long>(points),
              static_cast<long long>(vertices), static_cast<long long>(neurons));
}

namespace {

template <class T> T number(double value) { return static_cast<T>(value); }
template <> BFloat16 number<BFloat16>(double value) {
  const float wide = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &wide, sizeof bits);
  return {static_cast<uint16_t>(bits >> 16)};
}
template <> Float16 number<Float16>(double value) { return {static_cast<uint16_t>(value > 0 ? 0x3c01 : 0xbc01)}; }

template <class T> struct Results {
  std::vector<T> activation;
  std::vector<uint64_t> patterns;
  std::vector<int64_t> changes;
  std::vector<uint8_t> nonfinite;
};

template <class T> void signs(DType dtype, int64_t points, int64_t vertices, int64_t neurons, const Kink& kink,
                              bool split, bool in_place, bool with_nan) {
  std::mt19937 random(static_cast<unsigned>(points * 100 + vertices * 10 + neurons));
  std::normal_distribution<double> normal;
  const auto fill = [&](int64_t count) {  // quarters, so that breakpoints and zeros are hit often
    std::vector<T> values(static_cast<size_t>(count + 1));
    for (T& value : values) value = number<T>(std::round(normal(random) * 4) / 4);
    return values;
  };
  std::vector<T> z = fill(points * vertices * neurons);
  const std::vector<T> centre = fill(points * neurons), directions = fill(vertices / 2 * neurons);
  if (with_nan && z.size() > 1) z[z.size() / 2] = number<T>(std::numeric_limits<double>::quiet_NaN());
  std::vector<double> radius(static_cast<size_t>(points + 1));
  for (double& r : radius) r = std::abs(normal(random)) + 0.1;

  const int64_t row_words = kink.n_breakpoints * words_for_bits(neurons) + 2;
  Results<T> results[2];
  for (int device = 0; device < 2; ++device) {
    Results<T>& out = results[device];
    out.activation = z;
    out.patterns.assign(static_cast<size_t>(points * vertices * row_words + 1), 7);
    out.changes.assign(static_cast<size_t>(2 * points + 1), 3);
    out.nonfinite.assign(static_cast<size_t>(points + 1), 0);
    const void* dense = in_place ? out.activation.data() : z.data();
    const Preactivations from{
        split ? nullptr : dense, centre.data(), directions.data(), radius.data(), points, vertices, neurons};
    const SignChanges to{out.activation.data(), out.patterns.data() + 1, row_words, out.changes.data() + 1, 2,
                         out.nonfinite.data()};
    if (device == 0)
      sign_changes_cpu(dtype, from, kink, to, 1);
    else
      sign_changes_cuda(dtype, from, kink, to, nullptr);
  }
  same(equal_bytes(results[0].activation, results[1].activation), "activations", points, vertices, neurons);
  same(results[0].patterns == results[1].patterns, "patterns", points, vertices, neurons);
  same(results[0].changes == results[1].changes, "changes", points, vertices, neurons);
  same(results[0].nonfinite == results[1].nonfinite, "flags", points, vertices, neurons);
}

template <class T> void labels(LabelType type, int64_t points, int64_t vertices, int64_t neurons) {
  std::mt19937 random(5);
  std::vector<T> values(static_cast<size_t>(points * vertices * neurons + 1));
  for (T& value : values) value = random() % 40 ? 3 : 5;
  const int64_t row_words = (neurons + 1) / 2 + 1;
  std::vector<uint64_t> patterns[2];
  std::vector<int64_t> changes[2];
  for (int device = 0; device < 2; ++device) {
    patterns[device].assign(static_cast<size_t>(points * vertices * row_words + 1), 9);
    changes[device].assign(static_cast<size_t>(points + 1), 2);
    if (device == 0)
      label_changes_cpu(type, values.data(), points, vertices, neurons, patterns[0].data(), row_words,
                        changes[0].data(), 1, 1);
    else
      label_changes_cuda(type, values.data(), points, vertices, neurons, patterns[1].data(), row_words,
                         changes[1].data(), 1, nullptr);
  }
  same(patterns[0] == patterns[1], "label patterns", points, vertices, neurons);
  same(changes[0] == changes[1], "label changes", points, vertices, neurons);
}

void distinct(int64_t points, int64_t vertices, int64_t words, bool weak_hash) {
  std::mt19937 random(6);
  std::vector<uint64_t> patterns(static_cast<size_t>(points * vertices * words + 1));
  for (int64_t row = 0; row < points * vertices; ++row) {
    const uint64_t kind = random() % static_cast<uint64_t>(1 + vertices / 3);
    for (int64_t w = 0; w < words; ++w) patterns[static_cast<size_t>(row * words + w)] = kind * 77 + 1;
  }
  std::vector<int64_t> counts[2];
  std::vector<Hash128> hashes(static_cast<size_t>(points * vertices + 1));
  counts[0].assign(static_cast<size_t>(points + 1), -1);
  counts[1] = counts[0];
  distinct_patterns_cpu(patterns.data(), points, vertices, words, counts[0].data(), weak_hash, 1);
  distinct_patterns_cuda(patterns.data(), points, vertices, words, counts[1].data(), weak_hash, hashes.data(), nullptr);
  same(counts[0] == counts[1], "distinct patterns", points, vertices, words);
}
}  // namespace

int main() {
  const double inf = std::numeric_limits<double>::infinity();
  const Kink kinks[] = {{Activation::relu, 1, {0, 0}, 0, -inf, inf},
                        {Activation::leaky_relu, 1, {0, 0}, 0.25, -inf, inf},
                        {Activation::clamp, 2, {-0.5, 0.75}, 0, -0.5, 0.75},
                        {Activation::none, 2, {-0.25, 0.5}, 0, -inf, inf}};
  const int64_t sizes[][3] = {{0, 4, 5}, {3, 2, 0}, {1, 2, 1}, {2, 4, 7}, {3, 4, 64}, {2, 18, 65}, {1, 10, 515}};
  for (const auto& [points, vertices, neurons] : sizes) {
    for (const Kink& kink : kinks) {
      for (const bool split : {false, true}) {
        signs<float>(DType::float32, points, vertices, neurons, kink, split, false, false);
        signs<double>(DType::float64, points, vertices, neurons, kink, split, !split, true);
      }
      if (kink.activation == Activation::relu || kink.activation == Activation::none) {
        signs<BFloat16>(DType::bfloat16, points, vertices, neurons, kink, false, true, false);
        signs<Float16>(DType::float16, points, vertices, neurons, kink, false, false, false);
      }
    }
    labels<int64_t>(LabelType::int64, points, vertices, neurons);
    labels<uint8_t>(LabelType::uint8, points, vertices, neurons);
  }
  for (const bool weak_hash : {false, true}) {
    distinct(0, 3, 2, weak_hash);
    distinct(1, 1, 1, weak_hash);
    distinct(2, 7, 0, weak_hash);
    distinct(3, 50, 10, weak_hash);
    distinct(1, 300, 40, weak_hash);
  }
  compare_chains();
  std::printf("CUDA kernels on threads: %d of %d comparisons failed\n", failures, comparisons);
  return failures ? 1 : 0;
}
