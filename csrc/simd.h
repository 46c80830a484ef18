// csrc/simd.h -- which instruction set the CPU kernels use.
#pragma once

namespace pylinregion {

enum class Simd : int { portable = 0, avx2 = 1, avx512 = 2, neon = 3 };

// The best this machine has, unless set_simd chose a lesser one.
Simd simd();
bool has_simd(const char* name);  // whether this machine has it
const char* simd_name();          // "avx512", "avx2", "neon" or "portable"
void set_simd(const char* name);  // throws std::invalid_argument for what is unknown or not there

}  // namespace pylinregion
