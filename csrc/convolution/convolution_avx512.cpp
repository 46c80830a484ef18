// csrc/convolution/convolution_avx512.cpp
#define PLR_CONVOLVE convolve_avx512
#include "convolution.inl"
