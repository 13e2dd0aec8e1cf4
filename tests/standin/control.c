/* Entry points by name, names of errors, and the controls that tests call through ctypes. */
#include "standin.h"

#include <stdio.h>

struct planted {
    struct planted *next;
    int base;
    int nth;
    CUresult code;
};
static struct planted *planted;
static long *counts;

static int compare(const void *key, const void *item) {
    return strcmp(key, *(const char *const *)item);
}

/* The index in bases of a name or symbol: both cuMemAlloc and cuMemAlloc_v2 find cuMemAlloc. */
static int base_index(const char *name) {
    char base[128];
    snprintf(base, sizeof base, "%s", name);
    char *suffix = strstr(base, "_v");
    if (suffix) *suffix = 0;
    const char *const *found = bsearch(base, bases, n_bases, sizeof *bases, compare);
    return found ? (int)(found - bases) : -1;
}

static bool is_sticky(CUresult code) {
    return code == CUDA_ERROR_ILLEGAL_ADDRESS || code == CUDA_ERROR_LAUNCH_TIMEOUT ||
           code == CUDA_ERROR_ASSERT ||
           (code >= CUDA_ERROR_HARDWARE_STACK_ERROR && code <= CUDA_ERROR_LAUNCH_FAILED);
}

CUresult count_call(const char *function) {
    if (!counts) counts = calloc(n_bases, sizeof *counts);
    int base = base_index(function);
    if (base < 0) abort(); /* a function of ours that the headers do not declare */
    counts[base]++;
    CUresult code = CUDA_SUCCESS;
    for (struct planted **link = &planted; *link;) {
        struct planted *plan = *link;
        if (plan->base == base && --plan->nth == 0) {
            code = plan->code;
            *link = plan->next;
            free(plan);
        } else {
            link = &plan->next;
        }
    }
    if (is_sticky(code)) primary.sticky = code;
    return code;
}

/* Make the nth next call of a function fail; 0, or -1 for no such function. */
EXPORTED int standin_fail(const char *name, int nth, int code) {
    int base = base_index(name);
    if (base < 0 || nth < 1) return -1;
    struct planted *plan = calloc(1, sizeof *plan);
    pthread_mutex_lock(&lock);
    *plan = (struct planted){planted, base, nth, code};
    planted = plan;
    pthread_mutex_unlock(&lock);
    return 0;
}

/* Calls of a function since the last reset, of all for NULL; -1 for no such function. */
EXPORTED long standin_calls(const char *name) {
    int base = name ? base_index(name) : 0;
    if (base < 0) return -1;
    long sum = 0;
    pthread_mutex_lock(&lock);
    if (counts && name) sum = counts[base];
    for (int i = 0; counts && !name && i < n_bases; i++) sum += counts[i];
    pthread_mutex_unlock(&lock);
    return sum;
}

EXPORTED void standin_reset_counts(void) {
    pthread_mutex_lock(&lock);
    if (counts) memset(counts, 0, n_bases * sizeof *counts);
    pthread_mutex_unlock(&lock);
}

/* Objects made and not destroyed by the program, of one kind; -1 for no such kind. */
EXPORTED long standin_live(const char *kind) {
    static const char *const kinds[] = {"device", "host", "stream", "event", "graph", "exec"};
    if (!strcmp(kind, "context")) return primary.retains > 0;
    for (int i = 0; i < N_KINDS; i++)
        if (!strcmp(kind, kinds[i])) return live[i];
    return -1;
}

/* While on, no queue makes progress and calls that wait do wait. */
EXPORTED void standin_stall(int on) {
    pthread_mutex_lock(&lock);
    stalled = on;
    if (!on) run_eagerly();
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static CUresult find(const char *name, void **function, int version,
                     CUdriverProcAddressQueryResult *status) {
    const struct entry *best = NULL;
    bool known = false;
    for (int i = 0; i < n_entries; i++) {
        if (strcmp(entries[i].name, name)) continue;
        known = true;
        if (entries[i].version <= version) best = &entries[i];
    }
    *function = best ? (void *)best->symbol : NULL;
    if (status)
        *status = best    ? CU_GET_PROC_ADDRESS_SUCCESS
                  : known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                          : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return best ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

/* The per-thread default stream is not modelled as a mode: the flags are not looked at. */
CUresult CUDAAPI cuGetProcAddress(const char *symbol, void **function, int version,
                                  cuuint64_t flags, CUdriverProcAddressQueryResult *status) {
    ENTER(NOTHING);
    (void)flags;
    if (!symbol || !function || version > VERSION) return CUDA_ERROR_INVALID_VALUE;
    return find(symbol, function, version, status);
}

#undef cuGetProcAddress
EXPORTED CUresult CUDAAPI cuGetProcAddress(const char *symbol, void **function, int version,
                                           cuuint64_t flags) {
    ENTER(NOTHING);
    (void)flags;
    if (!symbol || !function || version > VERSION) return CUDA_ERROR_INVALID_VALUE;
    return find(symbol, function, version, NULL);
}

static CUresult describe(CUresult code, const char **text, bool name) {
    for (int i = 0; i < n_codes; i++)
        if (codes[i].code == (int)code) {
            *text = name ? codes[i].name : codes[i].text;
            return CUDA_SUCCESS;
        }
    *text = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult CUDAAPI cuGetErrorName(CUresult code, const char **text) {
    ENTER(NOTHING);
    return describe(code, text, true);
}

CUresult CUDAAPI cuGetErrorString(CUresult code, const char **text) {
    ENTER(NOTHING);
    return describe(code, text, false);
}
