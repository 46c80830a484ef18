// csrc/simd.cpp
#include "simd.h"

#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>

namespace pylinregion {
namespace {

constexpr const char* kNames[] = {"portable", "avx2", "avx512"};

bool available(Simd set) {
#if defined(__x86_64__)
  if (set == Simd::avx512) return __builtin_cpu_supports("avx512f");
  if (set == Simd::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return set == Simd::portable;
}

Simd best() {
  if (available(Simd::avx512)) return Simd::avx512;
  return available(Simd::avx2) ? Simd::avx2 : Simd::portable;
}

std::atomic<Simd>& chosen() {
  static std::atomic<Simd> set{best()};
  return set;
}
}  // namespace

Simd simd() { return chosen().load(); }

const char* simd_name() { return kNames[static_cast<int>(simd())]; }

void set_simd(const char* name) {
  for (const Simd set : {Simd::portable, Simd::avx2, Simd::avx512})
    if (std::strcmp(kNames[static_cast<int>(set)], name) == 0 && available(set)) return chosen().store(set);
  throw std::invalid_argument("this machine has no instruction set named '" + std::string(name) + "'");
}

}  // namespace pylinregion
