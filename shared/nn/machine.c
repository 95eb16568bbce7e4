/* What this CPU is and has, by oneDNN's account of it. */
#include <ctype.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>

#include "shared/nn/kernel.h"
#include "shared/nn/plan.h"

/* Best first where one contains another: nn_isa() takes the first that is contained in the CPU's.
 */
static const struct {
    const char *name;
    dnnl_cpu_isa_t isa;
} isas[] = {
    {"avx10_1_512_amx_fp16", dnnl_cpu_isa_avx10_1_512_amx_fp16},
    {"avx10_1_512_amx", dnnl_cpu_isa_avx10_1_512_amx},
    {"avx512_core_fp16", dnnl_cpu_isa_avx512_core_fp16},
    {"avx512_core_bf16", dnnl_cpu_isa_avx512_core_bf16},
    {"avx512_core_vnni", dnnl_cpu_isa_avx512_core_vnni},
    {"avx512_core", dnnl_cpu_isa_avx512_core},
    {"avx2_vnni_2", dnnl_cpu_isa_avx2_vnni_2},
    {"avx2_vnni", dnnl_cpu_isa_avx2_vnni},
    {"avx2", dnnl_cpu_isa_avx2},
    {"avx", dnnl_cpu_isa_avx},
    {"sse41", dnnl_cpu_isa_sse41},
};
enum { N_ISAS = sizeof(isas) / sizeof(isas[0]) };

/* Kept, for asking oneDNN costs a tenth of a microsecond: it is fixed once it has been asked for.
 */
static bool isa_has(dnnl_cpu_isa_t isa)
{
    static _Atomic unsigned kept;
    unsigned have = atomic_load_explicit(&kept, memory_order_relaxed);
    if (have == 0) {
        have = (unsigned)dnnl_get_effective_cpu_isa();
        atomic_store_explicit(&kept, have, memory_order_relaxed);
    }
    return (have & (unsigned)isa) == (unsigned)isa;
}

int nn_limit_isa(const char *isa, struct err *err)
{
    if (!isa || !*isa)
        return 0;
    for (int i = 0; i < N_ISAS; i++) {
        if (strcmp(isas[i].name, isa) != 0)
            continue;
        /* oneDNN fixes the ISA when it is asked for it the first time: set first, ask then. A
         * second call with the limit already in force is harmless. */
        if (dnnl_set_max_cpu_isa(isas[i].isa) != dnnl_success && strcmp(nn_isa(), isa) != 0)
            return err_set(err, ERR_FAILED_PRECONDITION,
                           "the ISA cannot be limited to %s any more: this process has begun to "
                           "compute with %s",
                           isa, nn_isa());
        if (!isa_has(isas[i].isa))
            return err_set(err, ERR_FAILED_PRECONDITION, "this CPU does not have %s; it has %s",
                           isa, nn_isa());
        return 0;
    }
    return err_set(err, ERR_INVALID_ARGUMENT,
                   "unknown ISA '%s' (known: avx2, avx512_core, "
                   "avx512_core_vnni, avx512_core_bf16, ...)",
                   isa);
}

const char *nn_isa(void)
{
    for (int i = 0; i < N_ISAS; i++)
        if (isa_has(isas[i].isa))
            return isas[i].name;
    return "none";
}

enum kernel_level kernel_level(void)
{
    return isa_has(dnnl_cpu_isa_avx512_core) ? KERNEL_AVX512
           : isa_has(dnnl_cpu_isa_avx2)      ? KERNEL_AVX2
                                             : KERNEL_PLAIN;
}

bool nn_has_bf16(void)
{
    return isa_has(dnnl_cpu_isa_avx512_core_bf16);
}

bool nn_has_int8(void)
{
    return isa_has(dnnl_cpu_isa_avx512_core_vnni) || isa_has(dnnl_cpu_isa_avx2_vnni);
}

static char cpu_text[128] = "unknown CPU";
static char version_text[48];

static void read_cpu(void)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (!file)
        return;
    char line[512];
    while (fgets(line, sizeof(line), file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        const char *from = colon + 1;
        size_t n = 0;
        for (; *from && n + 1 < sizeof(cpu_text); from++) /* runs of spaces become one */
            if (!isspace((unsigned char)*from))
                cpu_text[n++] = *from;
            else if (n > 0 && cpu_text[n - 1] != ' ')
                cpu_text[n++] = ' ';
        while (n > 0 && cpu_text[n - 1] == ' ')
            n--;
        cpu_text[n] = '\0';
        break;
    }
    fclose(file);
}

const char *nn_cpu(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_cpu);
    return cpu_text;
}

static void read_version(void)
{
    const dnnl_version_t *v = dnnl_version();
    snprintf(version_text, sizeof(version_text), "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
}

const char *nn_version(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_version);
    return version_text;
}
