// csrc/linear_avx2.cpp -- the linear layer with the vectors of avx2.
#include "lanes_avx2.h"
#define PLR_LINEAR linear_rows_avx2
#include "linear_rows.inl"
