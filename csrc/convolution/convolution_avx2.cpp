// csrc/convolution/convolution_avx2.cpp
#define PLR_CONVOLVE convolve_avx2
#include "convolution.inl"
