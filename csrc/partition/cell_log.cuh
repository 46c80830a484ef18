// csrc/partition/cell_log.cuh -- cells that warps find, written down one behind the other (walked_slices.h), in pieces
// of memory that all share.
#pragma once
#include "engine.h"
#include "walked_slices.h"

namespace pylinregion {
namespace {

// A number of all lanes, by one.
__device__ unsigned long long take_number(unsigned long long* from, unsigned long long n) {
  unsigned long long number = 0;
  if (leads()) number = atomicAdd(from, n);
  return __shfl_sync(kAllLanes, number, 0);
}

// What one walk has written in one place; its pieces have ascending places.
struct LogPiece {
  int64_t walk;
  int64_t at, bytes;
};
// Where they are written.
struct LogMemory {
  char* memory;  // null: cells are only counted
  int64_t bytes;
  unsigned long long* used;
  LogPiece* pieces;  // [most_pieces]
  int64_t most_pieces;
  unsigned long long* n_pieces;
};

// Of one walk. Where there is no room it ends.
class CellLog {
 public:
  PLR_ENGINE CellLog(const LogMemory& where, int64_t walk, WalkOutcome* outcome)
      : where_(where), walk_(walk), outcome_(outcome) {}

  PLR_STEP void write(const Polygon& polygon, const uint8_t* on, int64_t rows) {
    const int64_t n = polygon.n;
    char* next = begin(static_cast<int32_t>(n), bytes_of_record(n, rows));
    double* const xy = reinterpret_cast<double*>(next);
    VertexKey* const keys = reinterpret_cast<VertexKey*>(xy + 2 * n);
    int32_t* const numbers = reinterpret_cast<int32_t*>(keys + n);
    uint8_t* const pattern = reinterpret_cast<uint8_t*>(numbers + n);
    each(n, [&](int64_t i) {
      xy[2 * i] = polygon.x[i], xy[2 * i + 1] = polygon.y[i];
      keys[i] = polygon.keys[i];
      numbers[i] = static_cast<int32_t>(polygon.edges[i]->number);
    });
    each((rows + 7) / 8, [&](int64_t byte) {
      uint32_t bits = 0;
      for (int64_t i = 0; i < 8 && 8 * byte + i < rows; ++i) bits |= uint32_t{on[8 * byte + i] != 0} << i;
      pattern[byte] = static_cast<uint8_t>(bits);
    });
  }
  PLR_STEP void put_off(int64_t task) {
    put(*reinterpret_cast<int64_t*>(begin(kPutOff, sizeof(Record) + sizeof(int64_t))), task);
  }
  PLR_ENGINE void end() {
    if (piece_ >= 0) put(where_.pieces[piece_], LogPiece{walk_, first_, next_ - first_});
    piece_ = -1;
  }
  PLR_ENGINE bool is_kept() const { return where_.memory != nullptr; }

 private:
  static constexpr int64_t kPiece = 4096;  // bytes, or what a record needs

  PLR_ENGINE char* begin(int32_t corners, int64_t bytes) {
    if (piece_ < 0 || next_ + bytes > end_) take_piece(bytes > kPiece ? bytes : kPiece);
    char* const at = where_.memory + next_;
    put(*reinterpret_cast<Record*>(at), Record{corners, static_cast<int32_t>(bytes)});
    next_ += bytes;
    return at + sizeof(Record);
  }
  PLR_ENGINE void take_piece(int64_t bytes) {
    end();
    piece_ = static_cast<int64_t>(take_number(where_.n_pieces, 1));
    first_ = next_ = static_cast<int64_t>(take_number(where_.used, static_cast<unsigned long long>(bytes)));
    end_ = first_ + bytes;
    if (piece_ >= where_.most_pieces || end_ > where_.bytes) end_walk(outcome_, WalkOutcome::no_room);
  }

  const LogMemory& where_;
  const int64_t walk_;
  WalkOutcome* const outcome_;
  int64_t piece_ = -1, first_ = 0, next_ = 0, end_ = 0;
};

}  // namespace
}  // namespace pylinregion
