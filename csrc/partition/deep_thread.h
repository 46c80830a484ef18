// csrc/partition/deep_thread.h -- a thread whose stack is as large as a recursion needs; std::thread cannot ask for
// one.
#pragma once
#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <system_error>
#include <utility>

namespace pylinregion {

class DeepThread {
 public:
  // Runs body(), which must not throw. Throws std::system_error if the system gives no thread of this size.
  DeepThread(size_t stack_bytes, std::function<void()> body) : body_(std::move(body)) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    int error = pthread_attr_setstacksize(&attributes, (stack_bytes + 65535) / 65536 * 65536);
    if (!error) error = pthread_create(&thread_, &attributes, &DeepThread::start, this);
    pthread_attr_destroy(&attributes);
    if (error) throw std::system_error(error, std::generic_category(), "cannot start a thread of the slice engine");
  }
  DeepThread(const DeepThread&) = delete;
  DeepThread& operator=(const DeepThread&) = delete;
  ~DeepThread() { pthread_join(thread_, nullptr); }

 private:
  static void* start(void* self) {
    static_cast<DeepThread*>(self)->body_();
    return nullptr;
  }
  std::function<void()> body_;
  pthread_t thread_;
};

// The walk goes as deep as there are lines, one cut each; memory that is not reached is never touched.
inline size_t stack_for(int64_t lines) { return (size_t{8} << 20) + static_cast<size_t>(lines) * 4096; }

}  // namespace pylinregion
