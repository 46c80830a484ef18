// csrc/simd.cpp
#include "simd.h"

#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>

namespace pylinregion {
namespace {

constexpr const char* kNames[] = {"portable", "avx2", "avx512", "neon"};

bool available(Simd set) {
#if defined(__x86_64__)
  if (set == Simd::avx512) return __builtin_cpu_supports("avx512f");
  if (set == Simd::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#elif defined(__aarch64__)
  if (set == Simd::neon) return true;
#endif
  return set == Simd::portable;
}

// The set of that name, if this machine has it.
bool named(const char* name, Simd& found) {
  for (const Simd set : {Simd::portable, Simd::avx2, Simd::avx512, Simd::neon})
    if (std::strcmp(kNames[static_cast<int>(set)], name) == 0 && available(set)) {
      found = set;
      return true;
    }
  return false;
}

Simd best() {
  for (const Simd set : {Simd::avx512, Simd::avx2, Simd::neon})
    if (available(set)) return set;
  return Simd::portable;
}

std::atomic<Simd>& chosen() {
  static std::atomic<Simd> set{best()};
  return set;
}
}  // namespace

Simd simd() { return chosen().load(); }

bool has_simd(const char* name) {
  Simd set;
  return named(name, set);
}

const char* simd_name() { return kNames[static_cast<int>(simd())]; }

void set_simd(const char* name) {
  Simd set;
  if (!named(name, set))
    throw std::invalid_argument("this machine has no instruction set named '" + std::string(name) + "'");
  chosen().store(set);
}

}  // namespace pylinregion
