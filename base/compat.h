/* Compiler attributes in one place.
 *
 * Everything else in the tree is plain C11 (and, for headers that nvcc reads, C++17). The names
 * below are the only spellings of compiler extensions that Meed's code may use.
 */
#ifndef MEED_BASE_COMPAT_H
#define MEED_BASE_COMPAT_H

#define MEED_MUST_CHECK __attribute__((warn_unused_result))
#define MEED_PRINTF(format_idx, first_idx) __attribute__((format(printf, format_idx, first_idx)))
#define MEED_RESTRICT __restrict__
#define MEED_COLD __attribute__((cold, noinline))
#define MEED_THREAD_LOCAL __thread

/* Tells the core that this is a spin loop. */
#if defined(__x86_64__)
#define MEED_SPIN_HINT() __builtin_ia32_pause()
#else
#define MEED_SPIN_HINT() __asm__ volatile("" ::: "memory")
#endif

#ifdef __cplusplus
#define MEED_BEGIN_C extern "C" {
#define MEED_END_C }
#else
#define MEED_BEGIN_C
#define MEED_END_C
#endif

#define MEED_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MEED_MIN(a, b) ((a) < (b) ? (a) : (b))
#define MEED_MAX(a, b) ((a) > (b) ? (a) : (b))

#endif
