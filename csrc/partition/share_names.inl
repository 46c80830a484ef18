// csrc/partition/share_names.inl -- Engine: the names of the new vertices of shares, into which a cell is cut by
// a group.
//
// Shares are cut out one by one, so the same point comes as a vertex of several of them, and on an edge of the cell
// also as one of the cells beyond it. Shares meet face to face, and two of them along one edge at most, with the
// number of their pair on it: stepping from share to share over these edges goes around a point. No coordinates are
// looked at.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

class Engine::ShareNames {
 public:
  // Of the cell's first `size` candidates n have shares.
  PLR_ENGINE ShareNames(Engine& engine, const Cell& cell, int64_t size, Share* shares, int64_t n)
      : outside_(engine.outside_),
        cell_(cell),
        size_(size),
        line_(cell.unsettled.line),
        shares_(shares),
        n_(n),
        system_(engine.system_),
        groups_(system_.groups) {
    share_of_ = engine.arena_.take<int64_t>(size);
    fill(share_of_, size, int64_t{-1});
    each(n, [&](int64_t i) { share_of_[shares[i].candidate] = i; });
    first_line_ = number_of_candidate(0), last_line_ = number_of_candidate(size - 1);
    group_ = static_cast<uint64_t>(groups_.of_line[first_line_]);
    for (int64_t i = 0; i < n; ++i) corners_ += shares[i].polygon.n;
    places_ = engine.arena_.take<Place>(corners_);
  }

  PLR_ENGINE void give() {
    if (leads()) name_all();
    sync();
    if (!in_all_lanes(fits_)) outside_.fail("the shares that a maximum cuts a cell into do not fit");
  }

 private:
  struct Place {
    int64_t share, vertex;
  };

  PLR_ENGINE void name_all() {
    const Polygon& whole = cell_.polygon;
    for (int64_t e = 0; e < whole.n && fits_; ++e) name_on_edge(e);
    // Inside: of the cell and the group, one after another.
    VertexKey inside = hashed({3, 4}, group_);
    for (int64_t i = 0; i < whole.n; ++i) {
      inside = hashed(inside, whole.keys[i].high);
      inside = hashed(inside, whole.keys[i].low);
    }
    uint64_t count = 0;
    for (int64_t s = 0; s < n_; ++s)
      for (int64_t v = 0; v < shares_[s].polygon.n; ++v) {
        if (!is_unnamed(shares_[s].polygon.keys[v])) continue;
        const VertexKey name = hashed(inside, count++);
        Place at{s, v};
        do {
          key(at) = name;
          at = around(at);
        } while (at.share != s && fits_);
        if (at.vertex != v) fits_ = false;
        if (!fits_) return;
      }
  }

  PLR_ENGINE VertexKey& key(Place at) const { return shares_[at.share].polygon.keys[at.vertex]; }
  PLR_ENGINE int64_t number(Place at) const { return shares_[at.share].polygon.edges[at.vertex]->number; }
  PLR_ENGINE int64_t edge_of(int64_t share, int64_t number) const {
    const Polygon& polygon = shares_[share].polygon;
    for (int64_t e = 0; e < polygon.n; ++e)
      if (polygon.edges[e]->number == number) return e;
    return -1;
  }

  // The same point in the share beyond the edge that starts there.
  PLR_ENGINE Place around(Place at) {
    const int64_t pair = number(at);
    fits_ &= ++steps_ <= corners_ * (cell_.polygon.n + 2) && pair >= groups_.lines;
    if (!fits_) return at;
    const auto [p, q] = groups_.members(pair);
    fits_ &= p >= first_line_ && q <= last_line_;
    if (!fits_) return at;
    const int64_t mine = number_of_candidate(shares_[at.share].candidate);
    const int64_t other = candidate_of(p == mine ? q : p), share = other < size_ ? share_of_[other] : -1;
    const int64_t edge = share < 0 ? -1 : edge_of(share, pair);
    fits_ &= edge >= 0;
    if (!fits_) return at;
    return {share, edge + 1 == shares_[share].polygon.n ? 0 : edge + 1};
  }
  PLR_ENGINE int64_t number_of_candidate(int64_t k) const { return system_.number_of(line_[k]); }
  PLR_ENGINE int64_t candidate_of(int64_t number) const {
    int64_t k = 0;
    while (k < size_ && number_of_candidate(k) != number) ++k;
    return k;
  }

  // The points of an edge of the cell where the largest candidate changes. They are the same from both sides of the
  // edge, for candidates are: so they are counted, from the end with the smaller key.
  PLR_ENGINE void name_on_edge(int64_t e) {
    const Polygon& whole = cell_.polygon;
    const int64_t edge_number = whole.edges[e]->number;
    const VertexKey from = whole.keys[e], to = whole.keys[e + 1 == whole.n ? 0 : e + 1];
    Place at{-1, -1};
    for (int64_t s = 0; s < n_ && at.share < 0; ++s) {
      const int64_t edge = edge_of(s, edge_number);
      if (edge >= 0 && shares_[s].polygon.keys[edge] == from) at = {s, edge};
    }
    fits_ &= at.share >= 0;
    if (!fits_) return;
    int64_t found = 0;  // places, of all changes on the edge
    uint64_t changes = 0;
    VertexKey base = hashed(between(from, to), (uint64_t{1} << 40) + group_);
    for (;;) {  // `at` is where a share's piece of the edge starts
      const int64_t n = shares_[at.share].polygon.n;
      at.vertex = at.vertex + 1 == n ? 0 : at.vertex + 1;
      if (key(at) == to) break;
      ++changes;
      for (;; at = around(at)) {
        fits_ &= found < corners_ && is_unnamed(key(at));
        if (!fits_) return;
        places_[found++] = at;
        key(at) = {0, changes};
        if (number(at) == edge_number) break;
      }
    }
    const bool forward = from.high != to.high ? from.high < to.high : from.low < to.low;
    for (int64_t i = 0; i < found; ++i) {
      const uint64_t place = key(places_[i]).low;
      key(places_[i]) = hashed(base, forward ? place : changes + 1 - place);
    }
  }

  const Outside& outside_;
  bool fits_ = true;
  const Cell& cell_;
  const int64_t size_;   // candidates
  const int32_t* line_;  // [size]
  Share* shares_;
  const int64_t n_;
  const System& system_;
  const GroupTable& groups_;
  int64_t* share_of_;  // of a candidate, -1: none
  int64_t first_line_, last_line_;
  uint64_t group_;
  int64_t corners_ = 0, steps_ = 0;
  Place* places_;
};

}  // namespace
}  // namespace pylinregion
