// csrc/convolution/convolution_portable.cpp
#define PLR_CONVOLVE convolve_portable
#include "convolution.inl"
