/* What every call needs first; initialisation, the device, the primary context. */
#include "standin.h"

#include <stdio.h>

#define STACK 32

struct CUctx_st primary;
long live[N_KINDS];
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
bool stalled, integrated;

static bool initialised;
static __thread struct {
    CUcontext items[STACK];
    int n;
} stack;

static CUcontext current(void) { return stack.n ? stack.items[stack.n - 1] : NULL; }

CUresult enter(const char *function, enum needs needs) {
    pthread_mutex_lock(&lock);
    CUresult code = count_call(function);
    if (code) return code;
    if (needs == NOTHING) return CUDA_SUCCESS;
    if (in_host_function()) return CUDA_ERROR_NOT_PERMITTED;
    if (!initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (needs == INITIALISED) return CUDA_SUCCESS;
    if (!current()) return CUDA_ERROR_INVALID_CONTEXT;
    if (!primary.retains) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (primary.sticky) return primary.sticky;
    return needs == CONTEXT_AND_NO_CAPTURE ? refuse_if_capturing() : CUDA_SUCCESS;
}

void leave(int *entered) {
    (void)entered;
    pthread_mutex_unlock(&lock);
}

#define CHECK_DEVICE(device)                                              \
    do {                                                                  \
        if ((device) != 0) return CUDA_ERROR_INVALID_DEVICE;              \
    } while (0)

/* The generated stubs end here. */
CUresult not_supported(const char *function) {
    pthread_mutex_lock(&lock);
    CUresult code = count_call(function);
    pthread_mutex_unlock(&lock);
    return code ? code : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult CUDAAPI cuInit(unsigned int flags) {
    ENTER(NOTHING);
    if (flags) return CUDA_ERROR_INVALID_VALUE;
    const char *value = getenv("STANDIN_INTEGRATED");
    integrated = value && !strcmp(value, "1");
    initialised = true;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDriverGetVersion(int *version) {
    ENTER(NOTHING);
    if (!version) return CUDA_ERROR_INVALID_VALUE;
    *version = VERSION;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetCount(int *count) {
    ENTER(INITIALISED);
    *count = 1;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGet(CUdevice *device, int ordinal) {
    ENTER(INITIALISED);
    CHECK_DEVICE(ordinal);
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetName(char *name, int size, CUdevice device) {
    ENTER(INITIALISED);
    CHECK_DEVICE(device);
    snprintf(name, size, "stand-in");
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
    ENTER(INITIALISED);
    CHECK_DEVICE(device);
    memcpy(uuid->bytes, "stand-in device.", sizeof uuid->bytes);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetPCIBusId(char *id, int size, CUdevice device) {
    ENTER(INITIALISED);
    CHECK_DEVICE(device);
    snprintf(id, size, "0000:00:00.0");
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceTotalMem(size_t *bytes, CUdevice device) {
    ENTER(INITIALISED);
    CHECK_DEVICE(device);
    *bytes = TOTAL_BYTES;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    ENTER(INITIALISED);
    CHECK_DEVICE(device);
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 8; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 7; break;
    case CU_DEVICE_ATTRIBUTE_INTEGRATED: *value = integrated; break;
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_GPU_OVERLAP:
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS: *value = 1; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 8; break;
    default:
        if (attribute < 1 || attribute >= CU_DEVICE_ATTRIBUTE_MAX) return CUDA_ERROR_INVALID_VALUE;
        *value = 0;
    }
    return CUDA_SUCCESS;
}


CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    ENTER(INITIALISED);
    CHECK_DEVICE(device);
    primary.retains++;
    *context = &primary;
    return CUDA_SUCCESS;
}

/* What the program never freed goes with the context, and stays counted as live: a leak. */
static void destroy_primary(void) {
    if (!primary.sticky && !stalled) wait_for_all();
    drop_all_work();
    destroy_all_streams_and_events();
    free_all_memory();
    primary.retains = 0;
    primary.sticky = CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice device) {
    ENTER(INITIALISED);
    CHECK_DEVICE(device);
    if (!primary.retains) return CUDA_ERROR_INVALID_CONTEXT;
    if (primary.retains == 1)
        destroy_primary();
    else
        primary.retains--;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxReset(CUdevice device) {
    ENTER(INITIALISED);
    CHECK_DEVICE(device);
    destroy_primary();
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned int flags) {
    ENTER(INITIALISED);
    CHECK_DEVICE(device);
    primary.flags = flags;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active) {
    ENTER(INITIALISED);
    CHECK_DEVICE(device);
    *flags = primary.flags;
    *active = primary.retains > 0;
    return CUDA_SUCCESS;
}

static CUresult push(CUcontext context) {
    if (context != &primary) return CUDA_ERROR_INVALID_CONTEXT;
    if (!primary.retains) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (stack.n == STACK) return CUDA_ERROR_OUT_OF_MEMORY;
    stack.items[stack.n++] = context;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxPushCurrent(CUcontext context) {
    ENTER(INITIALISED);
    return push(context);
}

CUresult CUDAAPI cuCtxPopCurrent(CUcontext *context) {
    ENTER(INITIALISED);
    if (!stack.n) return CUDA_ERROR_INVALID_CONTEXT;
    stack.n--;
    if (context) *context = stack.items[stack.n];
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSetCurrent(CUcontext context) {
    ENTER(INITIALISED);
    if (context && context != &primary) return CUDA_ERROR_INVALID_CONTEXT;
    if (context && !primary.retains) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (stack.n) stack.n--;
    return context ? push(context) : CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetCurrent(CUcontext *context) {
    ENTER(INITIALISED);
    *context = current();
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetDevice(CUdevice *device) {
    ENTER(CONTEXT);
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetFlags(unsigned int *flags) {
    ENTER(CONTEXT);
    *flags = primary.flags;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetId(CUcontext context, unsigned long long *id) {
    ENTER(CONTEXT);
    if (context && context != &primary) return CUDA_ERROR_INVALID_CONTEXT;
    *id = 1;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetApiVersion(CUcontext context, unsigned int *version) {
    ENTER(CONTEXT);
    if (context && context != &primary) return CUDA_ERROR_INVALID_CONTEXT;
    *version = VERSION;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSynchronize(void) {
    ENTER(CONTEXT_AND_NO_CAPTURE);
    return wait_for_all();
}
