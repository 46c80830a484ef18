// csrc/sign_changes_avx2.cpp -- the row pass with the vectors of avx2.
#include "lanes_avx2.h"
#define PLR_HAS_LANES
#define PLR_ROW row_avx2
#include "sign_changes_row.inl"
