// csrc/rounding.h -- the constants of rounding, each with where it comes from. None is a tolerance: each is larger than
// an error that can occur, makes a bound wider, and so leaves more to the integers; those of the last part tell only
// which numbers that are measured, not decided, are computed once more. Sections are those of docs/exactness.md. Plain
// numbers before kUnit in a formula count its roundings, and are derived where the formula is.
#pragma once
#include <cstdint>
#include <limits>

#include "kink.h"

namespace pylinregion {
namespace {  // see sign_changes_row.inl for why

// --- roundings ---

// u, the rounding of one operation: |fl(x) - x| <= u |x|.
constexpr double kUnit = 0x1p-53;
template <class T> constexpr double kUnitOf = std::numeric_limits<T>::epsilon() / 2;  // the same of float and double

// Rounds up a sum of non-negative numbers, such as a bound. One of 2 * 2^21 terms is low by at most 2 * 2^21 u
// < 4.7e-10 of itself, each use adds a few u: less than 1e-9 (4.1; systems of more than 2^21 lines are refused).
constexpr double kInflate = 1 + 1e-9;
// >= n u / (1 - n u), what a sum of n products rounds by in units of its terms' sizes: n u <= 2^22 u < 1e-9 (2, 4.1).
PLR_HD inline double gamma(int64_t n) { return static_cast<double>(n) * kUnit * kInflate; }
// As kInflate, for the prepaid budget: at most 8 * 2^21 + 64 roundings, so that n u < 4e-9 (4.1).
constexpr double kInflateBudget = 1 + 4e-9;
// Roundings of evaluating a row at a point, for which the budget keeps so many: a sum of two products and a number
// rounds 4 times; the rest is generous (3, 6).
constexpr int64_t kEvaluation = 16;
// Rounds up |s| and |t| of the polygon's corners, so that computed vertices are within, too: a cut rounds three times,
// and at most 2^21 of them follow each other, 3 * 2^21 u < 1e-9 (4.1).
constexpr double kInflateExtent = 1 + 1e-6;
// What a quotient of integers is off by, in units of itself: at most 6 u, see BigInt::ratio (4.1).
constexpr double kRatio = 8 * kUnit;
// Rounds up a 2-norm, and sums over stages of these: sums of fewer than 10^9 squares, their root, a recursion (4.1).
constexpr double kInflateNorm = 1 + 1e-6;
// As kInflate, for displacements: a dozen roundings, and those of sums of squares over fewer than 10^9 numbers (12).
constexpr double kSlack = 1 + 1e-6;

// --- underflow ---
// What underflows is off by at most 2^-1074, and the scales of networks are such that no stage makes more of it than
// the rows' own 2^-500 contain (9). What is lost here besides:

// A determinant of Lemma 2: each of its products loses at most 2^-1075 (4.1).
constexpr double kDeterminantUnderflow = 1e-290;
// A coordinate or a distance from a quotient, which loses at most 2^-1075 itself, and the numerator of Lemma 2 (4.1,
// 11).
constexpr double kQuotientUnderflow = 0x1p-1070;
// A row of the slice's border, whose numbers are products of two coordinates, also at a point (9).
constexpr double kBorderUnderflow = 0x1p-1000;
// A row on a slice: more than all that underflows on the way through a network of a scale that is not refused (9).
constexpr double kRowOnSlice = 0x1p-500;
// A 2-norm: a square loses at most 2^-1075, n of them at most sqrt(n) 2^-537 of the norm (4.1, 11).
constexpr double kNormUnderflow = 1e-150;
// A row along a segment: fewer than 2^22 coefficients of 2^22 products each (11).
constexpr double kRowUnderflow = 0x1p-960;
// A row of displacements in float or double: its smallest normal number (12).
template <class T> constexpr double kUnderflowOf = std::numeric_limits<T>::min();

// --- what decides nothing ---

// In place of kInflate in the filter, so that it tells no sign: the switch force_exact, a test (4.1).
constexpr double kForceExact = 1e30;
// Of the smaller extent of a slice: coordinates that are known less well are computed from the integers (6) ...
constexpr double kBlur = 1e-7;
constexpr double kBlurOfFold = 1e-6;  // of a slice that was folded before: there a row takes the integers much longer
// ... unless that is less than so many units of rounding of coordinates this size.
constexpr double kFinestBlur = 64 * kUnit;
// Places on a segment are computed from the integers where their bound is above the one, or an estimate of what
// rounding has done to them above the other (11).
constexpr double kFar = 1e-6, kOff = 1e-10;
// What sums of jumps may be off by, as is estimated, in units of a region's map; else it is computed on its own (11).
constexpr double kMapError = 1e-9;

}  // namespace
}  // namespace pylinregion
