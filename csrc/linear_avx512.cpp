// csrc/linear_avx512.cpp -- the linear layer with the vectors of avx512.
#include "lanes_avx512.h"
#define PLR_LINEAR linear_rows_avx512
#include "linear_rows.inl"
