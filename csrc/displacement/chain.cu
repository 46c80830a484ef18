// csrc/displacement/chain.cu -- a block walks a chain around one point, all layers in one launch: a warp takes a few
// rows of a layer, and a thread the displacements of one pair. Sums run in the order of the CPU's, with fused
// multiply-adds, so that from the same centres all results are to the bit those of its AVX2 and AVX-512 walks.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "../cuda_check.cuh"
#include "../one_lane.h"
#include "bounds.h"
#include "chain.h"

namespace pylinregion {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr unsigned kWarp = 0xffffffffu;
constexpr int kTileRows = 4, kTileWide = 2;  // of a warp: rows, and columns of each thread

__device__ int lane() { return static_cast<int>(threadIdx.x % 32); }
__device__ int warp() { return static_cast<int>(threadIdx.x / 32); }
PLR_HD inline int64_t half_words(int64_t bits) { return (bits + 31) / 32; }  // of 32 bits
__device__ bool bit(const unsigned* words, int64_t i) { return words[i / 32] >> (i % 32) & 1; }

// A layer in the device's memory.
struct Link {
  ChainLayer layer;
  const double *centre, *norm;
  int64_t first_neuron;  // neurons of the chain before it
};

struct Job {
  DType dtype;
  Chain chain;
  ChainPoints points;
  ChainCounts out;
  const Link* links;        // [layers]: those of chain and points are in the host's memory
  int64_t neurons, widest;  // of all layers; of what is in a panel
  int64_t shared_bytes, scratch_bytes;
  char* scratch;  // [blocks][scratch_bytes]
};

// Memory of a block, given away in turn: shared memory as far as it goes, else scratch.
struct Room {
  char *shared, *scratch;
  int64_t shared_bytes;
  int64_t shared_used = 0, scratch_used = 0;

  template <class T> PLR_HD T* take(int64_t count) {
    const int64_t bytes = (count * static_cast<int64_t>(sizeof(T)) + 15) / 16 * 16;
    const bool fits = shared_used + bytes <= shared_bytes;
    int64_t& used = fits ? shared_used : scratch_used;
    char* const taken = (fits ? shared : scratch) + used;
    used += bytes;
    return reinterpret_cast<T*>(taken);
  }
};

struct Memory {
  int* sums;        // [warps]
  double* squares;  // [threads]
  unsigned long long *most, *signs;
  int32_t *rows, *kept,
      *column;               // [widest]: rows that are looked at; rows of the panel that are left, and their neurons
  uint8_t* keep;             // [widest]: whether a row that was looked at is left
  int32_t *uneven, *chosen;  // [pairs]: those with an e; those walked again
  int32_t* first;            // [2 pairs]: the first vertex with the same pattern
  unsigned *dirty, *now_dirty, *flagged;  // bits: pairs
  char* panels;                           // two: [widest][2 pairs]: o, then e
  int64_t panel_bytes;
  // At which vertices each neuron is on the other side than at the point: bits of the plus, then of the minus vertices.
  unsigned* flips;   // [neurons][2][half_words(pairs)]
  int32_t* changed;  // [neurons]
  char* again;       // the panels in float64, for walks that do not fit those in float32

  PLR_HD Memory(const Job& job, Room& room) {
    const int64_t pairs = job.chain.pairs, words = half_words(pairs), numbers = 2 * job.widest * 2 * pairs;
    sums = room.take<int>(kWarps), squares = room.take<double>(kThreads);
    most = room.take<unsigned long long>(1), signs = room.take<unsigned long long>(1);
    dirty = room.take<unsigned>(words), now_dirty = room.take<unsigned>(words), flagged = room.take<unsigned>(words);
    uneven = room.take<int32_t>(pairs), chosen = room.take<int32_t>(pairs), first = room.take<int32_t>(2 * pairs);
    rows = room.take<int32_t>(job.widest), kept = room.take<int32_t>(job.widest);
    column = room.take<int32_t>(job.widest), keep = room.take<uint8_t>(job.widest);
    panel_bytes = numbers * (job.dtype == DType::float64 ? 8 : 4);
    panels = room.take<char>(panel_bytes);
    room.shared_bytes = 0;  // what follows is little used
    flips = room.take<unsigned>(job.neurons * 2 * words), changed = room.take<int32_t>(job.neurons);
    again = room.take<char>(job.dtype == DType::float64 ? 0 : numbers * 8);
  }
};

// The numbers below n that are to be kept, in order, to `out`; how many there are. All threads take part.
template <class Keep> __device__ int64_t select(int* sums, int64_t n, int32_t* out, Keep keep) {
  int64_t total = 0;
  for (int64_t begin = 0; begin < n; begin += kThreads) {
    const int64_t i = begin + threadIdx.x;
    const bool kept = i < n && keep(i);
    const unsigned votes = __ballot_sync(kWarp, kept);
    if (lane() == 0) sums[warp()] = __popc(votes);
    __syncthreads();
    int64_t before = total + __popc(votes & ((1u << lane()) - 1));
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp()) before += sums[w];
      total += sums[w];
    }
    if (kept) out[before] = static_cast<int32_t>(i);
    __syncthreads();  // `out` is there, and sums may be overwritten
  }
  return total;
}

// The sum of number(0) to number(n - 1), the same in all threads; each warp takes it for itself.
template <class Number> __device__ double sum(int64_t n, Number number) {
  double part = 0;
  for (int64_t k = lane(); k < n; k += kSumParts) part += number(k);
  for (int half = kSumParts / 2; half; half /= 2) part += __shfl_xor_sync(kWarp, part, half);
  return part;
}

// The walk of chain.inl around one point, for some pairs or, where `chosen` is null, for all. Panels stay as they are
// written: of those rows that are left, and of the pairs that have an e, there are lists.
template <class T> class Walk {
 public:
  __device__ Walk(const Job& job, const Memory& memory, int64_t point, const int32_t* chosen, int64_t pairs,
                  char* panels)
      : job_(job),
        memory_(memory),
        point_(point),
        chosen_(chosen),
        pairs_(pairs),
        panel_(reinterpret_cast<T*>(panels)),
        next_(panel_ + job.widest * 2 * pairs) {}

  // false if a number is NaN or infinite, in layer failed().
  __device__ bool run() {
    for (int64_t w = threadIdx.x; w < half_words(pairs_); w += kThreads)
      memory_.dirty[w] = memory_.now_dirty[w] = memory_.flagged[w] = 0;
    if (threadIdx.x == 0) *memory_.signs = 0;
    __syncthreads();
    if (job_.points.vertices) take_vertices();
    for (number_ = 0; number_ < job_.chain.n_layers; ++number_) {
      link_ = job_.links + number_;
      last_ = number_ + 1 == job_.chain.n_layers;
      const ChainLayer& layer = link_->layer;
      centre_ = link_->centre + point_ * layer.neurons;
      bool finite = displacement_ <= kLargest;
      for (int64_t i = threadIdx.x; i < layer.neurons; i += kThreads) finite &= std::fabs(centre_[i]) <= kLargest;
      if (!__syncthreads_and(finite)) return false;
      const double norm = link_->norm[point_];
      if (number_ == 0 && !job_.points.vertices)
        begin(SplitRows<T>(layer, job_.chain.direction_size, norm, job_.points.radius[point_]));
      else
        apply(PanelRows<T>(layer, n_, norm, displacement_, error_));
      __syncthreads();
      if (!last_) compact();
    }
    return true;
  }
  __device__ int64_t failed() const { return number_; }
  __device__ int64_t work() const { return work_; }

 private:
  __device__ int64_t pair(int64_t p) const { return chosen_ ? chosen_[p] : p; }
  __device__ double slope(int64_t i) const { return link_->layer.slope ? link_->layer.slope[i] : 0; }
  __device__ const T* row(int64_t i) const {
    const ChainLayer& layer = link_->layer;
    if constexpr (std::is_same<T, double>::value) return layer.exact + i * layer.inputs;
    return static_cast<const T*>(layer.weight) + i * layer.inputs;
  }
  template <class Rows> __device__ bool settled(int64_t i, const Rows& bounds) const {
    return is_settled(centre_[i], bounds.reach(i), bounds.off(i), link_->layer.row_norm[i]);
  }
  template <class Rows> __device__ void choose_rows(const Rows& bounds) {
    n_rows_ = select(memory_.sums, link_->layer.neurons, memory_.rows,
                     [&](int64_t i) { return !settled(i, bounds) || (!last_ && is_passed_on(centre_[i], slope(i))); });
  }

  __device__ void begin(const SplitRows<T>& bounds) {
    choose_rows(bounds);
    const int64_t stride = (job_.chain.pairs + 15) / 16 * 16;
    for (int64_t k = warp(); k < n_rows_; k += kWarps) {
      const double* const d = job_.chain.directions + memory_.rows[k] * stride;
      T* const to = next_ + k * 2 * pairs_;
      for (int64_t p = lane(); p < pairs_; p += 32) to[p] = static_cast<T>(bounds.radius * d[pair(p)]);
      kink(k, bounds);  // a thread takes the pairs that it has written
    }
    error_ = bounds.error(link_->layer, job_.chain.direction_norm);
  }

  __device__ void apply(const PanelRows<T>& bounds) {
    choose_rows(bounds);
    const ChainLayer& layer = link_->layer;
    const Part part{
        sum(n_rows_, [&](int64_t k) { return layer.row_norm[memory_.rows[k]] * layer.row_norm[memory_.rows[k]]; }),
        sum(n_, [&](int64_t k) { return weighted<T>(layer.column_square[memory_.column[k]], k, n_); })};
    const int64_t columns = pairs_ + n_uneven_;
    work_ += n_rows_ * n_ * columns * static_cast<int64_t>(sizeof(T));
    for (int64_t k = warp() * kTileRows; k < n_rows_; k += kWarps * kTileRows) {
      for (int64_t c = 0; c < columns; c += 32 * kTileWide) {
        if (columns - c > 32)
          tile<kTileWide>(k, c, columns);
        else
          tile<1>(k, c, columns);
      }
      __syncwarp();
      for (int64_t r = k; r < k + kTileRows && r < n_rows_; ++r) kink(r, bounds);
    }
    error_ = bounds.error(layer, part);
  }

  // Rows k to k + kTileRows of those looked at, and columns from `first` on: o of all pairs, then e of the uneven ones.
  template <int kWide> __device__ void tile(int64_t k, int64_t first, int64_t columns) {
    const T* weights[kTileRows];
    for (int r = 0; r < kTileRows; ++r) weights[r] = row(memory_.rows[k + r < n_rows_ ? k + r : n_rows_ - 1]);
    int64_t place[kWide];  // in a row of a panel; some other number where there is no column
    for (int w = 0; w < kWide; ++w) {
      const int64_t c = first + 32 * w + lane();
      place[w] = c < pairs_ ? c : c < columns ? pairs_ + memory_.uneven[c - pairs_] : 0;
    }
    T total[kTileRows][kWide] = {};
    for (int64_t begin = 0; begin < n_; begin += kBlock) {
      const int64_t end = n_ - begin < kBlock ? n_ : begin + kBlock;
      T sum[kTileRows][kWide] = {};
#pragma unroll 4
      for (int64_t j = begin; j < end; ++j) {
        const T* const numbers = panel_ + memory_.kept[j] * 2 * pairs_;
        const int32_t column = memory_.column[j];
        T h[kWide];
#pragma unroll
        for (int w = 0; w < kWide; ++w) h[w] = numbers[place[w]];
#pragma unroll
        for (int r = 0; r < kTileRows; ++r)
#pragma unroll
          for (int w = 0; w < kWide; ++w) sum[r][w] = std::fma(weights[r][column], h[w], sum[r][w]);
      }
#pragma unroll
      for (int r = 0; r < kTileRows; ++r)
#pragma unroll
        for (int w = 0; w < kWide; ++w) total[r][w] = begin ? total[r][w] + sum[r][w] : sum[r][w];
    }
#pragma unroll
    for (int r = 0; r < kTileRows; ++r)
#pragma unroll
      for (int w = 0; w < kWide; ++w)
        if (k + r < n_rows_ && first + 32 * w + lane() < columns) next_[(k + r) * 2 * pairs_ + place[w]] = total[r][w];
  }

  // The kink of row k of those looked at, in place, by one warp. A pair that is not uneven has no e in front of it.
  template <class Rows> __device__ void kink(int64_t k, const Rows& bounds) {
    const int64_t i = memory_.rows[k];
    const double z = centre_[i];
    const T a = static_cast<T>(slope(i));
    T* const odd = next_ + k * 2 * pairs_;
    T* const even = odd + pairs_;
    if (settled(i, bounds)) {
      const T scale = z > 0 ? T(1) : a;
      for (int64_t p = lane(); p < pairs_; p += 32) {
        odd[p] = odd[p] * scale;
        even[p] = bit(memory_.dirty, p) ? even[p] * scale : T(0);
      }
      if (lane() == 0) memory_.keep[k] = 1;
      return;
    }
    const Bend<OneLane<T>, T> bend(z, bounds.off(i), a);
    unsigned* const flips = memory_.flips + (link_->first_neuron + i) * 2 * half_words(job_.chain.pairs);
    unsigned some = 0;
    for (int64_t begin = 0; begin < pairs_; begin += 32) {
      const int64_t p = begin + lane();
      const bool valid = p < pairs_;
      const T o = valid ? odd[p] : T(0), e = valid && bit(memory_.dirty, p) ? even[p] : T(0);
      const T plus = e + o, minus = e - o;
      const unsigned plus_flips = __ballot_sync(kWarp, valid && (bend.flips(plus) & 1));
      const unsigned minus_flips = __ballot_sync(kWarp, valid && (bend.flips(minus) & 1));
      some |= plus_flips | minus_flips;
      record(flips, begin, plus_flips);
      record(flips + half_words(job_.chain.pairs), begin, minus_flips);
      const int unsure = valid ? 2 - static_cast<int>((bend.sure(plus) & 1) + (bend.sure(minus) & 1)) : 0;
      if (unsure) {
        atomicOr(memory_.flagged + p / 32, 1u << (p % 32));
        atomicAdd(memory_.signs, static_cast<unsigned long long>(unsure));
      }
      if (last_) continue;
      T o_after = 0, e_after = 0;
      if (valid) {
        bend.apply(plus, minus, o_after, e_after);
        odd[p] = o_after, even[p] = e_after;
      }
      const unsigned turned = __ballot_sync(kWarp, OneLane<T>::above(OneLane<T>::abs(e_after), 0) & 1);
      if (lane() == 0 && turned) atomicOr(memory_.now_dirty + begin / 32, turned);
    }
    if (lane() == 0) memory_.keep[k] = !last_ && (some || is_passed_on(z, slope(i)));
  }
  // The flips of 32 pairs, to where the bits of these pairs are.
  __device__ void record(unsigned* flips, int64_t begin, unsigned votes) const {
    if (!chosen_) {
      if (lane() == 0) flips[begin / 32] = votes;
    } else if (votes >> lane() & 1) {
      const int64_t p = chosen_[begin + lane()];
      atomicOr(flips + p / 32, 1u << (p % 32));
    }
  }

  // What is left of the rows becomes the panel that the next layer is applied to.
  __device__ void compact() {
    for (int64_t w = threadIdx.x; w < half_words(pairs_); w += kThreads) memory_.dirty[w] |= memory_.now_dirty[w];
    if (threadIdx.x == 0) *memory_.most = 0;
    __syncthreads();
    n_uneven_ = select(memory_.sums, pairs_, memory_.uneven, [&](int64_t p) { return bit(memory_.dirty, p); });
    n_ = select(memory_.sums, n_rows_, memory_.kept, [&](int64_t k) { return memory_.keep[k] != 0; });
    for (int64_t j = threadIdx.x; j < n_; j += kThreads) memory_.column[j] = memory_.rows[memory_.kept[j]];
    for (int64_t p = threadIdx.x; p < pairs_; p += kThreads) {
      const T even = bit(memory_.dirty, p) ? sum_of_squares(pairs_ + p) : T(0);
      const double size = size_of_pair(sum_of_squares(p), even);
      unsigned long long bits;  // in the order of the numbers, with NaN and infinity above all
      memcpy(&bits, &size, sizeof bits);
      atomicMax(memory_.most, bits);
    }
    __syncthreads();
    double most;
    memcpy(&most, memory_.most, sizeof most);
    displacement_ = displacement_bound<T>(most, n_);
    T* const before = panel_;
    panel_ = next_, next_ = before;
  }
  __device__ T sum_of_squares(int64_t place) const {  // of a column of what is left
    T sum[2] = {};
    for (int64_t j = 0; j < n_; j += 2)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (j + half >= n_) continue;
        const T number = next_[memory_.kept[j + half] * 2 * pairs_ + place];
        sum[half] = std::fma(number, number, sum[half]);
      }
    return sum[0] + sum[1];
  }

  // The displacements of given vertices.
  __device__ void take_vertices() {
    const int64_t inputs = job_.links[0].layer.inputs, all = job_.chain.pairs;
    const double* const base = job_.points.base + point_ * inputs;
    const int64_t first = 2 * all * inputs * point_;
    double squares = 0;
    for (int64_t k = threadIdx.x; k < inputs; k += kThreads) {
      T* const to = next_ + k * 2 * pairs_;
      double most = 0;
      for (int64_t p = 0; p < pairs_; ++p) {
        const int64_t plus = first + pair(p) * inputs + k;
        const double up = vertex(plus) - base[k], down = vertex(plus + all * inputs) - base[k];
        const double size = std::fabs(up) + std::fabs(down);
        to[p] = static_cast<T>((up - down) / 2), to[pairs_ + p] = static_cast<T>((up + down) / 2);
        most = most < size ? size : most;
        if (to[pairs_ + p] != 0) atomicOr(memory_.now_dirty + p / 32, 1u << (p % 32));
      }
      squares += most * most;
      memory_.rows[k] = static_cast<int32_t>(k), memory_.keep[k] = !(most == 0);
    }
    memory_.squares[threadIdx.x] = squares;
    __syncthreads();
    double sum = 0;
    for (int t = 0; t < kThreads; ++t) sum += memory_.squares[t];
    error_ = error_of_vertices<T>(sum, inputs);
    n_rows_ = inputs;
    compact();
  }
  __device__ double vertex(int64_t at) const {
    return job_.dtype == DType::float32 ? static_cast<double>(static_cast<const float*>(job_.points.vertices)[at])
                                        : static_cast<const double*>(job_.points.vertices)[at];
  }

  const Job& job_;
  const Memory& memory_;
  const int64_t point_;
  const int32_t* const chosen_;
  const int64_t pairs_;
  const Link* link_ = nullptr;  // the layer that is walked
  const double* centre_ = nullptr;
  int64_t number_ = 0, n_rows_ = 0;
  bool last_ = false;
  T *panel_, *next_;                     // in front of it and behind it
  int64_t n_ = 0, n_uneven_ = 0;         // rows of the panel, and pairs with an e
  double displacement_ = 0, error_ = 0;  // see PanelRows
  int64_t work_ = 0;
};

// Whether not all vertices of a point, or none, are on the other side.
__device__ bool differs(const unsigned* flips, int64_t pairs) {
  bool none = true, all = true;
  for (int64_t w = 0; w < 2 * half_words(pairs); ++w) {
    const int64_t rest = pairs - w % half_words(pairs) * 32;
    none &= flips[w] == 0, all &= flips[w] == (rest >= 32 ? ~0u : (1u << rest) - 1);
  }
  return !none && !all;
}

// Numbers for the vertices of a point, the same for those with the same pattern, in the order of the vertices.
__device__ void number_patterns(const Memory& memory, int64_t pairs, int64_t n_changed, int64_t* out, int64_t stride) {
  const int64_t words = half_words(pairs);
  for (int64_t v = threadIdx.x; v < 2 * pairs; v += kThreads) {
    const int64_t p = v % pairs, own = (v < pairs ? 0 : words) + p / 32;
    for (int64_t w = 0; w < 2 * words; ++w) {
      const int64_t rest = pairs - w % words * 32;
      unsigned same = rest >= 32 ? ~0u : (1u << rest) - 1;  // of the 32 vertices of the word
      for (int64_t q = 0; q < n_changed && same; ++q) {
        const unsigned* const flips = memory.flips + memory.changed[q] * 2 * words;
        same &= flips[own] >> (p % 32) & 1 ? flips[w] : ~flips[w];
      }
      if (!same) continue;
      memory.first[v] =
          static_cast<int32_t>((w < words ? 0 : pairs) + w % words * 32 + __ffs(static_cast<int>(same)) - 1);
      break;
    }
  }
  __syncthreads();
  for (int64_t v = threadIdx.x; v < 2 * pairs; v += kThreads) {
    int64_t number = 0;
    for (int64_t u = 0; u < memory.first[v]; ++u) number += memory.first[u] == u;
    out[v * stride] = number;
  }
}

template <class T> __device__ void count(const Job& job, const Memory& memory, int64_t point) {
  const int64_t pairs = job.chain.pairs, words = half_words(pairs);
  int64_t* const changes = job.out.changes + point * job.out.changes_stride;
  for (int64_t l = threadIdx.x; l < job.chain.n_layers; l += kThreads) changes[l] = 0;
  for (int64_t w = threadIdx.x; w < job.neurons * 2 * words; w += kThreads) memory.flips[w] = 0;
  Walk<T> walk(job, memory, point, nullptr, pairs, memory.panels);
  bool finite = walk.run();
  int64_t failed = walk.failed(), work = walk.work(), n_chosen = 0;
  if constexpr (std::is_same<T, float>::value) {
    n_chosen = select(memory.sums, pairs, memory.chosen, [&](int64_t p) { return !finite || bit(memory.flagged, p); });
    if (n_chosen) {  // these pairs again in float64
      for (int64_t w = threadIdx.x; w < job.neurons * 2 * words; w += kThreads)
        memory.flips[w] &= finite ? ~memory.flagged[w % words] : 0;
      __syncthreads();
      const bool fits = job.widest * 2 * n_chosen * 2 * 8 <= memory.panel_bytes;
      Walk<double> exact(job, memory, point, memory.chosen, n_chosen, fits ? memory.panels : memory.again);
      finite = exact.run();
      failed = exact.failed(), work += exact.work();
    }
  }
  const bool proven = std::is_same<T, float>::value && n_chosen == 0;
  if (threadIdx.x == 0) job.out.ambiguous[point] = proven || !finite ? 0 : static_cast<int64_t>(*memory.signs);
  if (!finite) {
    if (threadIdx.x == 0) job.out.nonfinite[failed * job.points.n + point] = 1;
    __syncthreads();
    return;
  }
  if (threadIdx.x == 0) job.out.work[point] = work;
  int64_t n_changed = 0;
  for (int64_t l = 0; l < job.chain.n_layers; ++l) {
    const int64_t first = job.links[l].first_neuron;
    const int64_t found = select(memory.sums, job.links[l].layer.neurons, memory.changed + n_changed,
                                 [&](int64_t i) { return differs(memory.flips + (first + i) * 2 * words, pairs); });
    for (int64_t q = n_changed + threadIdx.x; q < n_changed + found; q += kThreads)
      memory.changed[q] += static_cast<int32_t>(first);
    if (threadIdx.x == 0) changes[l] = found;
    n_changed += found;
  }
  __syncthreads();
  if (job.out.classes)
    number_patterns(memory, pairs, n_changed, job.out.classes + 2 * pairs * job.out.classes_stride * point,
                    job.out.classes_stride);
  __syncthreads();
}

template <class T> __global__ void __launch_bounds__(kThreads, 2) chain_kernel(Job job) {
  extern __shared__ double shared_memory[];
  Room room{reinterpret_cast<char*>(shared_memory), job.scratch + blockIdx.x * job.scratch_bytes, job.shared_bytes};
  const Memory memory(job, room);
  for (int64_t point = blockIdx.x; point < job.points.n; point += gridDim.x) count<T>(job, memory, point);
}

// A job but for its points, and what it needs.
template <class T> struct Plan {
  Job job{};
  std::vector<Link> links;
  int64_t blocks, links_bytes;

  Plan(DType dtype, const Chain& chain, int64_t points) {
    job.dtype = dtype, job.chain = chain;
    for (int64_t l = 0; l < chain.n_layers; ++l) {
      const ChainLayer& layer = chain.layers[l];
      links.push_back({layer, nullptr, nullptr, job.neurons});
      job.neurons += layer.neurons;
      job.widest = std::max({job.widest, layer.neurons, layer.weight ? layer.inputs : 0});
    }
    links_bytes = (chain.n_layers * static_cast<int64_t>(sizeof(Link)) + 15) / 16 * 16;
    int device = 0, processors = 0, shared = 0, resident = 0;
    PLR_CUDA_CHECK(cudaGetDevice(&device));
    PLR_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
    PLR_CUDA_CHECK(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    Room room{nullptr, nullptr, shared};
    static_cast<void>(Memory(job, room));
    job.shared_bytes = room.shared_used, job.scratch_bytes = room.scratch_used;
    PLR_CUDA_CHECK(cudaFuncSetAttribute(chain_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(job.shared_bytes)));
    PLR_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, chain_kernel<T>, kThreads,
                                                                 static_cast<size_t>(job.shared_bytes)));
    blocks = std::min<int64_t>(points, int64_t{std::max(resident, 1)} * processors);
  }
  int64_t scratch() const { return links_bytes + blocks * job.scratch_bytes; }
};

template <class T>
void launch(Plan<T> plan, const ChainPoints& points, const ChainCounts& out, void* scratch, cudaStream_t stream) {
  if (points.n == 0) return;  // a grid of 0 blocks is a launch error
  for (size_t l = 0; l < plan.links.size(); ++l)
    plan.links[l].centre = points.centre[l], plan.links[l].norm = points.norm[l];
  // From memory that is not pinned: it is read before the call returns.
  PLR_CUDA_CHECK(
      cudaMemcpyAsync(scratch, plan.links.data(), plan.links.size() * sizeof(Link), cudaMemcpyHostToDevice, stream));
  Job job = plan.job;
  job.points = points, job.out = out;
  job.links = static_cast<const Link*>(scratch);
  job.scratch = static_cast<char*>(scratch) + plan.links_bytes;
  const auto blocks = static_cast<unsigned>(plan.blocks);
  const auto bytes = static_cast<size_t>(job.shared_bytes);
  chain_kernel<T><<<blocks, kThreads, bytes, stream>>>(job);
  PLR_CUDA_CHECK_KERNEL(chain_kernel, cudaGetLastError());
}
}  // namespace

int64_t chain_scratch_cuda(DType dtype, const Chain& chain, int64_t points) {
  if (dtype == DType::float64) return Plan<double>(dtype, chain, points).scratch();
  return Plan<float>(dtype, chain, points).scratch();
}

void chain_counts_cuda(DType dtype, const Chain& chain, const ChainPoints& points, const ChainCounts& out,
                       void* scratch, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (dtype == DType::float64)
    launch(Plan<double>(dtype, chain, points.n), points, out, scratch, on);
  else
    launch(Plan<float>(dtype, chain, points.n), points, out, scratch, on);
}

}  // namespace pylinregion
