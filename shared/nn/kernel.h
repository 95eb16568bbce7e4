#pragma once
/*
 * Loops of our own, compiled for several instruction sets.
 *
 *     static inline void twice_body(float *x, int64_t n) { ... }
 *     KERNEL(twice, (float *x, int64_t n), (x, n))
 *     ...
 *     KERNEL_PICK(twice)(x, n);
 *
 * The body is plain C that the compiler turns into vectors; which copy runs is decided by the ISA
 * in force (nn_limit_isa), so that a limited process behaves like the smaller machine.
 */
enum kernel_level { KERNEL_PLAIN, KERNEL_AVX2, KERNEL_AVX512 };
enum kernel_level kernel_level(void);

#define KERNEL_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
#define KERNEL(name, params, args)                                                                 \
    __attribute__((                                                                                \
        target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))) static void name##_avx512 params   \
    {                                                                                              \
        name##_body args;                                                                          \
    }                                                                                              \
    __attribute__((target("avx2,fma"))) static void name##_avx2 params                             \
    {                                                                                              \
        name##_body args;                                                                          \
    }                                                                                              \
    static void name##_plain params                                                                \
    {                                                                                              \
        name##_body args;                                                                          \
    }
#define KERNEL_PICK(name)                                                                          \
    (kernel_level() == KERNEL_AVX512 ? name##_avx512                                               \
     : kernel_level() == KERNEL_AVX2 ? name##_avx2                                                 \
                                     : name##_plain)
#else
#define KERNEL(name, params, args)                                                                 \
    static void name##_plain params                                                                \
    {                                                                                              \
        name##_body args;                                                                          \
    }
#define KERNEL_PICK(name) name##_plain
#endif

/* gcc turns loops into vectors from -O3 on; clang from -O2. */
#ifdef __clang__
#define KERNEL_FILE
#else
#define KERNEL_FILE _Pragma("GCC optimize(\"O3\")")
#endif
