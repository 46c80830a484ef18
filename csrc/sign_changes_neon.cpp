// csrc/sign_changes_neon.cpp -- the row pass with the vectors of neon.
#include "lanes_neon.h"
#define PLR_HAS_LANES
#define PLR_ROW row_neon
#include "sign_changes_row.inl"
