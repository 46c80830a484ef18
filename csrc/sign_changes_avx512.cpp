// csrc/sign_changes_avx512.cpp -- the row pass with the vectors of avx512.
#include "lanes_avx512.h"
#define PLR_HAS_LANES
#define PLR_ROW row_avx512
#include "sign_changes_row.inl"
