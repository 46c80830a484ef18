// csrc/linear_neon.cpp -- the linear layer with the vectors of neon.
#include "lanes_neon.h"
#define PLR_LINEAR linear_rows_neon
#include "linear_rows.inl"
