// csrc/displacement/chain.inl -- the displacement engine in one instruction set. The includer defines PLR_CHAIN and the
// Lanes; everything else here has internal linkage (see ../sign_changes_row.inl). The bounds: docs/exactness.md, 12.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "bounds.h"
#include "chain.h"
#include "panel.inl"

namespace pylinregion {
namespace {

// For each neuron of the chain, at which vertices of a point it is on the other side than at the centre: a bit for each
// plus vertex, then one for each minus vertex, both in whole words. Neurons that were not touched are all 0.
struct Flips {
  int64_t pairs = 0, words = 0;  // words of one half
  std::vector<uint64_t> bits;
  std::vector<int32_t> touched;

  void start(int64_t neurons, int64_t of_pairs) {
    pairs = of_pairs, words = words_for_bits(of_pairs);
    bits.assign(static_cast<size_t>(2 * words * neurons), 0);
    touched.clear();
  }
  uint64_t* of(int64_t neuron) { return bits.data() + 2 * words * neuron; }
  uint64_t whole(int64_t word) const {  // the bits that a word has
    const int64_t rest = pairs - word % words * 64;
    return rest >= 64 ? ~uint64_t{0} : (uint64_t{1} << rest) - 1;
  }
  void clear() {
    for (const int32_t neuron : touched) std::fill(of(neuron), of(neuron) + 2 * words, 0);
    touched.clear();
  }
};

template <class T> class Walk {
  using L = Lanes<T>;
  using Vector = typename L::V;
  static constexpr int kCount = L::count;

 public:
  Walk(const Chain& chain, const ChainPoints& points, DType vertices) : chain_(chain), points_(points) {
    float_vertices_ = vertices == DType::float32;
    for (int64_t l = 0; l < chain.n_layers; ++l)
      widest_ = std::max({widest_, chain.layers[l].neurons, chain.layers[l].weight ? chain.layers[l].inputs : 0});
    reach_.resize(static_cast<size_t>(widest_)), off_.resize(reach_.size());
    settled_.resize(reach_.size()), wanted_.resize(reach_.size());
    rows_.resize(static_cast<size_t>(widest_ + 1)), column_.resize(rows_.size()), left_.resize(rows_.size());
  }

  // The pairs `chosen` [pairs] of a point, or all of them; false if a number is NaN or infinite, in layer failed().
  bool run(int64_t point, const int32_t* chosen, int64_t pairs, Flips& flips) {
    chosen_ = chosen, pairs_ = pairs, flips_ = &flips;
    padded_ = (pairs + kCount - 1) / kCount * kCount;
    const size_t size = static_cast<size_t>(2 * padded_ * widest_);
    if (panel_.size() < size) panel_.resize(size), next_.resize(size);
    squares_.resize(static_cast<size_t>(2 * padded_));
    out_.resize(static_cast<size_t>(2 * padded_ * kTileRows + kCount));  // expand reads whole vectors
    flagged_.assign(static_cast<size_t>(words_for_bits(pairs)), 0);
    dirty_.assign(flagged_.size(), 0), now_dirty_.assign(flagged_.size(), 0);
    flagged_signs_ = n_dirty_ = n_ = 0;
    displacement_ = error_ = 0;
    first_neuron_ = 0;
    if (points_.vertices) take_vertices(point);
    for (layer_number_ = 0; layer_number_ < chain_.n_layers; ++layer_number_) {
      layer_ = &chain_.layers[layer_number_];
      last_ = layer_number_ + 1 == chain_.n_layers;
      centre_ = points_.centre[layer_number_] + point * layer_->neurons;
      int64_t infinite = !(displacement_ <= kLargest);
      for (int64_t i = 0; i < layer_->neurons; ++i)
        infinite |= static_cast<int64_t>(!(std::fabs(centre_[i]) <= kLargest));
      if (infinite) return false;
      const double norm = points_.norm[layer_number_][point];
      n_left_ = 0;
      if (layer_number_ == 0 && !points_.vertices)
        begin(norm, points_.radius[point]);
      else
        apply(norm);
      if (!last_) compact();
      first_neuron_ += layer_->neurons;
    }
    return true;
  }
  int64_t failed() const { return layer_number_; }
  // Pairs with a sign that is not certain (bits, of those chosen), and how many such signs there are.
  const std::vector<uint64_t>& flagged() const { return flagged_; }
  int64_t flagged_signs() const { return flagged_signs_; }
  int64_t work() const { return work_; }  // of all runs

 private:
  int64_t pair(int64_t p) const { return chosen_ ? chosen_[p] : p; }
  double slope(int64_t i) const { return layer_->slope ? layer_->slope[i] : 0; }
  const T* row(int64_t i) const {
    if constexpr (std::is_same<T, double>::value) return layer_->exact + i * layer_->inputs;
    return static_cast<const T*>(layer_->weight) + i * layer_->inputs;
  }

  // The first layer of a split: the displacements of row i are the radius times directions[i].
  void begin(double norm, double radius) {
    const SplitRows<T> bounds(*layer_, chain_.direction_size, norm, radius);
    take_bounds(bounds);
    const int64_t stride = (chain_.pairs + 15) / 16 * 16, n_rows = choose_rows();
    for (int64_t k = 0; k < n_rows; ++k) {
      const int64_t i = rows_[static_cast<size_t>(k)];
      T* to = next_.data() + n_left_ * 2 * padded_;
      const double* d = chain_.directions + i * stride;
      if (chosen_) {
        for (int64_t p = 0; p < pairs_; ++p) to[p] = static_cast<T>(radius * d[chosen_[p]]);
        std::fill(to + pairs_, to + padded_, T(0));
      } else {
        for (int64_t p = 0; p < padded_; ++p) to[p] = static_cast<T>(radius * d[p]);
      }
      finish(i, to);
    }
    error_ = bounds.error(*layer_, chain_.direction_norm);
  }
  template <class Bounds> void take_bounds(const Bounds bounds) {  // a copy, which reach and off cannot overwrite
    double* const reach = reach_.data();
    double* const off = off_.data();
    for (int64_t i = 0; i < layer_->neurons; ++i) reach[i] = bounds.reach(i), off[i] = bounds.off(i);
  }
  // Whether something behind needs a row all of whose vertices are on the side of the centre.
  bool needed(int64_t i) const { return !last_ && is_passed_on(centre_[i], slope(i)); }
  // The rows that must be looked at, for the displacement of row i is at most reach_[i], and off by off_[i]; their
  // number.
  int64_t choose_rows() {
    const int64_t n = layer_->neurons;
    int64_t* const settled = settled_.data();
    int64_t* const wanted = wanted_.data();
    const double *const centre = centre_, *const reach = reach_.data(), *const off = off_.data();
    const double* const row_norm = layer_->row_norm;
    const int64_t passes_on = !last_;
    for (int64_t i = 0; i < n; ++i) {
      settled[i] = is_settled(centre[i], reach[i], off[i], row_norm[i]);
      wanted[i] = (1 - settled[i]) | (passes_on & static_cast<int64_t>(centre[i] > 0));
    }
    if (layer_->slope && !last_)
      for (int64_t i = 0; i < n; ++i) wanted[i] |= layer_->slope[i] != 0;
    int64_t n_rows = 0;
    for (int64_t i = 0; i < n; ++i) {
      rows_[static_cast<size_t>(n_rows)] = static_cast<int32_t>(i);
      n_rows += wanted[i];
    }
    return n_rows;
  }

  // A layer that is applied to the panel.
  void apply(double norm) {
    const PanelRows<T> bounds(*layer_, n_, norm, displacement_, error_);
    take_bounds(bounds);
    const int64_t n_rows = choose_rows();
    const int64_t vectors = n_dirty_ ? in_vectors(e_at_ + n_dirty_) : padded_ / kCount;
    work_ += n_rows * n_ * vectors * static_cast<int64_t>(sizeof(Vector));
    const Panel<T> panel{panel_.data(), 2 * padded_, column_.data(), n_};
    for (int64_t k = 0; k < n_rows; k += kTileRows) {
      const T* weights[kTileRows];
      for (int r = 0; r < kTileRows; ++r) weights[r] = row(rows_[static_cast<size_t>(std::min(k + r, n_rows - 1))]);
      multiply(weights, panel, vectors, out_.data(), 2 * padded_);
      for (int64_t r = k; r < std::min(k + kTileRows, n_rows); ++r)
        finish(rows_[static_cast<size_t>(r)], out_.data() + (r - k) * 2 * padded_);
    }
    error_ = bounds.error(*layer_, {row_squares(n_rows), column_squares()});
  }
  double row_squares(int64_t n_rows) const {
    return sum(n_rows, [&](int64_t k) {
      const double norm = layer_->row_norm[rows_[static_cast<size_t>(k)]];
      return norm * norm;
    });
  }
  double column_squares() const {
    return sum(n_,
               [&](int64_t k) { return weighted<T>(layer_->column_square[column_[static_cast<size_t>(k)]], k, n_); });
  }
  template <class Number> static double sum(int64_t n, Number number) {
    double parts[kSumParts] = {};
    for (int64_t begin = 0; begin < n; begin += kSumParts) {
      const int64_t some = std::min<int64_t>(n - begin, kSumParts);
      for (int64_t k = 0; k < some; ++k) parts[k] += number(begin + k);
    }
    for (int half = kSumParts / 2; half; half /= 2)
      for (int k = 0; k < half; ++k) parts[k] += parts[k + half];
    return parts[0];
  }

  // The kink of row i, whose displacements are at z: o, then e of the dirty pairs. What it makes of them goes to the
  // next panel: o, then e of all pairs.
  void finish(int64_t i, const T* z) {
    const bool on = centre_[i] > 0;
    const T a = static_cast<T>(slope(i));
    T* const to = next_.data() + n_left_ * 2 * padded_;
    const T* e_from = z + e_at_;
    if (settled_[static_cast<size_t>(i)]) {
      const Vector scale = L::set(on ? T(1) : a);
      for (int64_t v = 0; v < padded_; v += kCount) {
        const uint64_t dirty = dirty_bits(v);
        L::store(to + v, L::load(z + v) * scale);
        L::store(to + padded_ + v, dirty ? L::expand(dirty, e_from) * scale : L::set(0));
        e_from += __builtin_popcountll(dirty);
      }
      left_[static_cast<size_t>(n_left_++)] = static_cast<int32_t>(i);
      return;
    }
    const Bend<L, T> bend(centre_[i], off_[static_cast<size_t>(i)], a);
    uint64_t* const flips = flips_->of(first_neuron_ + i);
    uint64_t some = 0;
    for (int64_t v = 0; v < padded_; v += kCount) {
      const uint64_t dirty = dirty_bits(v);
      const Vector o = L::load(z + v), e = dirty ? L::expand(dirty, e_from) : L::set(0);
      e_from += __builtin_popcountll(dirty);
      const Vector plus = e + o, minus = e - o;
      const uint64_t valid = lanes(pairs_ - v);
      const uint64_t plus_sure = bend.sure(plus), minus_sure = bend.sure(minus);
      const uint64_t plus_flips = bend.flips(plus) & valid, minus_flips = bend.flips(minus) & valid;
      const int64_t word = v / 64, shift = v % 64;
      flips[word] |= plus_flips << shift, flips[flips_->words + word] |= minus_flips << shift;
      some |= plus_flips | minus_flips;
      if (const uint64_t unsure_lanes = (~plus_sure | ~minus_sure) & valid) {
        flagged_[static_cast<size_t>(word)] |= unsure_lanes << shift;
        flagged_signs_ += __builtin_popcountll(~plus_sure & valid) + __builtin_popcountll(~minus_sure & valid);
      }
      if (last_) continue;
      Vector odd, even;
      bend.apply(plus, minus, odd, even);
      L::store(to + v, odd), L::store(to + padded_ + v, even);
      now_dirty_[static_cast<size_t>(word)] |= (L::above(L::abs(even), L::set(0)) & valid) << shift;
    }
    if (some) flips_->touched.push_back(static_cast<int32_t>(first_neuron_ + i));
    if (!last_ && (some || needed(i))) left_[static_cast<size_t>(n_left_++)] = static_cast<int32_t>(i);
  }

  // What is left of the rows becomes the panel that the next layer is applied to: o, then e of the dirty pairs. These
  // are right behind the o of the last pair where that saves a vector, else in vectors of their own.
  void compact() {
    for (size_t w = 0; w < dirty_.size(); ++w) dirty_[w] |= now_dirty_[w], now_dirty_[w] = 0;
    n_dirty_ = 0;
    for (const uint64_t word : dirty_) n_dirty_ += __builtin_popcountll(word);
    T* const odd = squares_.data();
    T* const even = odd + padded_;
    for (int64_t v = 0; v < padded_; v += kCount) {
      L::store(odd + v, sum_of_squares(next_.data() + v));
      L::store(even + v, dirty_bits(v) ? sum_of_squares(next_.data() + padded_ + v) : L::set(0));
    }
    e_at_ = in_vectors(pairs_ + n_dirty_) < padded_ / kCount + in_vectors(n_dirty_) ? pairs_ : padded_;
    const int64_t end = in_vectors(e_at_ + n_dirty_) * kCount;
    const bool in_place = n_dirty_ == 0 || (n_dirty_ == pairs_ && e_at_ == padded_);
    for (int64_t k = 0; k < n_left_ && !in_place; ++k) {
      T* const row = next_.data() + k * 2 * padded_;
      const T* const from = row + padded_;
      T* to = row + e_at_;
      for (int64_t v = 0; v < padded_; v += kCount) {
        const uint64_t dirty = dirty_bits(v);
        L::compress(to, L::load(from + v), dirty);  // never past what was read
        to += __builtin_popcountll(dirty);
      }
      for (; to < row + end; ++to) *to = 0;
    }
    double most = 0, probe = 0;
    for (int64_t p = 0; p < pairs_; ++p) {
      const double size = size_of_pair(odd[p], even[p]);
      most = std::max(most, size), probe += size - size;
    }
    displacement_ = displacement_bound<T>(probe + most, n_left_);
    std::swap(panel_, next_), std::swap(column_, left_);
    n_ = n_left_;
  }

  // The displacements of given vertices.
  void take_vertices(int64_t point) {
    const int64_t inputs = chain_.layers[0].inputs, all = chain_.pairs;
    const double* base = points_.base + point * inputs;
    const size_t first = static_cast<size_t>(2 * all * inputs * point);
    n_left_ = 0;
    double size = 0;
    for (int64_t k = 0; k < inputs; ++k) {
      T* const to = next_.data() + n_left_ * 2 * padded_;
      std::fill(to, to + 2 * padded_, T(0));
      double most = 0;
      for (int64_t p = 0; p < pairs_; ++p) {
        const size_t plus = first + static_cast<size_t>(pair(p) * inputs + k);
        const size_t minus = plus + static_cast<size_t>(all * inputs);
        const double up = vertex(plus) - base[k], down = vertex(minus) - base[k];
        const double even = (up + down) / 2;
        to[p] = static_cast<T>((up - down) / 2), to[padded_ + p] = static_cast<T>(even);
        most = std::max(most, std::fabs(up) + std::fabs(down));
        if (to[padded_ + p] != 0) now_dirty_[static_cast<size_t>(p / 64)] |= uint64_t{1} << (p % 64);
      }
      size += most * most;
      if (!(most == 0)) left_[static_cast<size_t>(n_left_++)] = static_cast<int32_t>(k);
    }
    error_ = error_of_vertices<T>(size, inputs);
    compact();
  }
  double vertex(size_t at) const {
    return float_vertices_ ? static_cast<double>(static_cast<const float*>(points_.vertices)[at])
                           : static_cast<const double*>(points_.vertices)[at];
  }

  Vector sum_of_squares(const T* from) const {  // of a column of vectors
    Vector even = L::set(0), odd = L::set(0);   // rows: two sums do not wait for each other
    const int64_t stride = 2 * padded_;
    int64_t k = 0;
    for (; k + 2 <= n_left_; k += 2, from += 2 * stride) {
      const Vector first = L::load(from), second = L::load(from + stride);
      even = L::multiply_add(first, first, even), odd = L::multiply_add(second, second, odd);
    }
    if (k < n_left_) even = L::multiply_add(L::load(from), L::load(from), even);
    return even + odd;
  }
  static int64_t in_vectors(int64_t numbers) { return (numbers + kCount - 1) / kCount; }
  static uint64_t lanes(int64_t n) {
    return n >= kCount ? (kCount == 64 ? ~uint64_t{0} : (uint64_t{1} << kCount) - 1) : (uint64_t{1} << n) - 1;
  }
  uint64_t dirty_bits(int64_t v) const {
    return n_dirty_ ? dirty_[static_cast<size_t>(v / 64)] >> (v % 64) & lanes(kCount) : 0;
  }

  const Chain& chain_;
  const ChainPoints& points_;
  bool float_vertices_;
  int64_t widest_ = 0;
  const int32_t* chosen_ = nullptr;
  Flips* flips_ = nullptr;
  int64_t pairs_ = 0, padded_ = 0;  // padded_: whole vectors
  // The layer that is walked.
  const ChainLayer* layer_ = nullptr;
  const double* centre_ = nullptr;
  int64_t layer_number_ = 0, first_neuron_ = 0;
  bool last_ = false;
  // What is in front of it. |o_p| + |e_p| <= displacement_ for all pairs, in 2-norms; c + e_p +- o_p is off by error_
  // at most, in the 2-norm.
  std::vector<T> panel_;  // [n_][2 padded_]
  std::vector<int32_t> column_;
  int64_t n_ = 0, n_dirty_ = 0, e_at_ = 0;  // e_at_: where e of the dirty pairs is in a row of the panel
  double displacement_ = 0, error_ = 0;
  std::vector<uint64_t> dirty_, now_dirty_;  // bits: pairs whose e is not 0
  // What it leaves.
  std::vector<T> next_;
  std::vector<int32_t> left_;
  int64_t n_left_ = 0;
  std::vector<int32_t> rows_;  // that are looked at
  std::vector<double> reach_, off_;
  std::vector<int64_t> settled_, wanted_;  // as wide as the numbers that decide: loops become vectors
  std::vector<T> out_, squares_;
  std::vector<uint64_t> flagged_;
  int64_t flagged_signs_ = 0, work_ = 0;
};

// Which vertices of a point have the same pattern: they have the same number.
class Classes {
 public:
  void number(const Flips& flips, const std::vector<int32_t>& changed, int64_t* out, int64_t stride) {
    const int64_t pairs = flips.pairs;
    ids_.assign(static_cast<size_t>(2 * pairs), 0);
    for (size_t from = 0; from < changed.size(); from += 64) {
      signs_.assign(ids_.size(), 0);
      for (size_t q = from; q < std::min(from + 64, changed.size()); ++q)
        for (int64_t w = 0; w < 2 * flips.words; ++w) {
          const int64_t vertex = w < flips.words ? 64 * w : pairs + 64 * (w - flips.words);
          for (uint64_t rest = flips.bits[static_cast<size_t>(2 * flips.words * changed[q] + w)]; rest;
               rest &= rest - 1)
            signs_[static_cast<size_t>(vertex + __builtin_ctzll(rest))] |= uint64_t{1} << (q - from);
        }
      refine();
    }
    for (size_t v = 0; v < ids_.size(); ++v) out[static_cast<int64_t>(v) * stride] = ids_[v];
  }

 private:
  struct Entry {
    int64_t stamp = 0, before = 0, now = 0;
    uint64_t signs = 0;
  };
  // Vertices stay together whose numbers and signs are the same; new numbers in the order of the vertices.
  void refine() {
    size_t size = 64;
    while (size < 4 * ids_.size()) size *= 2;
    if (table_.size() < size) table_.assign(size, Entry());
    ++stamp_;
    int64_t next = 0;
    for (size_t v = 0; v < ids_.size(); ++v) {
      const uint64_t mixed = (signs_[v] ^ static_cast<uint64_t>(ids_[v]) * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
      size_t at = static_cast<size_t>(mixed >> 32) & (table_.size() - 1);
      while (table_[at].stamp == stamp_ && (table_[at].before != ids_[v] || table_[at].signs != signs_[v]))
        at = (at + 1) & (table_.size() - 1);
      if (table_[at].stamp != stamp_) table_[at] = {stamp_, ids_[v], next++, signs_[v]};
      ids_[v] = table_[at].now;
    }
  }
  std::vector<int64_t> ids_;
  std::vector<uint64_t> signs_;
  std::vector<Entry> table_;
  int64_t stamp_ = 0;
};

// Of one thread.
class Counter {
 public:
  Counter(DType dtype, const Chain& chain, const ChainPoints& points, const ChainCounts& out)
      : dtype_(dtype),
        chain_(chain),
        points_(points),
        out_(out),
        fast_(chain, points, dtype),
        exact_(chain, points, dtype) {
    first_.push_back(0);
    for (int64_t l = 0; l < chain.n_layers; ++l) first_.push_back(first_.back() + chain.layers[l].neurons);
    flips_.start(first_.back(), chain.pairs);
  }

  void count(int64_t point) {
    int64_t* const changes = out_.changes + point * out_.changes_stride;
    std::fill(changes, changes + chain_.n_layers, int64_t{0});
    out_.ambiguous[point] = 0;
    const int64_t before = fast_.work() + exact_.work();
    if (dtype_ == DType::float64) {
      if (!exact_.run(point, nullptr, chain_.pairs, flips_)) return refuse(point);
      out_.ambiguous[point] = exact_.flagged_signs();
    } else {
      const bool finite = fast_.run(point, nullptr, chain_.pairs, flips_);
      choose(finite);
      if (!chosen_.empty() && !again(point)) return refuse(point);
    }
    out_.work[point] = fast_.work() + exact_.work() - before;
    changed_.clear();
    for (const int32_t neuron : flips_.touched) {
      const uint64_t* bits = flips_.of(neuron);
      bool none = true, all = true;
      for (int64_t w = 0; w < 2 * flips_.words; ++w) none &= bits[w] == 0, all &= bits[w] == flips_.whole(w);
      if (none || all) continue;
      ++changes[std::upper_bound(first_.begin(), first_.end(), neuron) - first_.begin() - 1];
      changed_.push_back(neuron);
    }
    if (out_.classes)
      classes_.number(flips_, changed_, out_.classes + 2 * chain_.pairs * out_.classes_stride * point,
                      out_.classes_stride);
    flips_.clear();
  }

 private:
  void refuse(int64_t point) {
    out_.ambiguous[point] = 0;
    out_.nonfinite[exact_.failed() * points_.n + point] = 1;
    flips_.clear();
  }
  // The pairs with a sign that is not certain, or all of them; what is known of these is forgotten.
  void choose(bool finite) {
    chosen_.clear();
    for (int64_t p = 0; p < chain_.pairs; ++p)
      if (!finite || fast_.flagged()[static_cast<size_t>(p / 64)] >> (p % 64) & 1)
        chosen_.push_back(static_cast<int32_t>(p));
    if (chosen_.empty()) return;
    keep_.assign(static_cast<size_t>(flips_.words), ~uint64_t{0});
    for (const int32_t p : chosen_) keep_[static_cast<size_t>(p / 64)] &= ~(uint64_t{1} << (p % 64));
    for (const int32_t neuron : flips_.touched)
      for (int64_t w = 0; w < 2 * flips_.words; ++w)
        flips_.of(neuron)[w] &= keep_[static_cast<size_t>(w % flips_.words)];
  }
  // The chosen pairs in float64.
  bool again(int64_t point) {
    const int64_t pairs = static_cast<int64_t>(chosen_.size());
    if (few_.pairs != pairs) few_.start(first_.back(), pairs);
    const bool finite = exact_.run(point, chosen_.data(), pairs, few_);
    for (const int32_t neuron : few_.touched) {
      uint64_t* const to = flips_.of(neuron);
      bool known = false;
      for (int64_t w = 0; w < 2 * flips_.words; ++w) known |= to[w] != 0;
      if (!known && std::find(flips_.touched.begin(), flips_.touched.end(), neuron) == flips_.touched.end())
        flips_.touched.push_back(neuron);
      for (int64_t w = 0; w < 2 * few_.words; ++w)
        for (uint64_t rest = few_.of(neuron)[w]; rest; rest &= rest - 1) {
          const int64_t p = chosen_[static_cast<size_t>(w % few_.words * 64 + __builtin_ctzll(rest))];
          to[(w < few_.words ? 0 : flips_.words) + p / 64] |= uint64_t{1} << (p % 64);
        }
    }
    few_.clear();
    out_.ambiguous[point] = exact_.flagged_signs();
    return finite;
  }

  const DType dtype_;
  const Chain& chain_;
  const ChainPoints& points_;
  const ChainCounts& out_;
  Walk<float> fast_;
  Walk<double> exact_;
  Classes classes_;
  Flips flips_, few_;
  std::vector<int64_t> first_;  // neurons before each layer
  std::vector<int32_t> chosen_, changed_;
  std::vector<uint64_t> keep_;
};

}  // namespace

void PLR_CHAIN(DType dtype, const Chain& chain, const ChainPoints& points, const ChainCounts& out, int64_t begin,
               int64_t end) {
  Counter counter(dtype, chain, points, out);
  for (int64_t point = begin; point < end; ++point) counter.count(point);
}

}  // namespace pylinregion
