/* Device and pinned memory, pointer attributes, copies and fills.

   A device address is a number in a reservation that nothing may touch, so a host that reads one
   dies; the bytes lie elsewhere. No address is ever handed out twice, so that an address used
   after its release is always found out. */
#define _GNU_SOURCE
#include "standin.h"

#include <sys/mman.h>

#define RESERVED ((uint64_t)1 << 40)
#define ALIGNMENT 512
#define FRESH 0xcd /* nobody may count on zeroes */

struct allocation {
    struct allocation *next;
    enum kind kind;
    uint64_t address;
    char *bytes;
    size_t size;
    unsigned int flags;
};

static struct allocation *allocations;
static uint64_t first_address, next_address;

static bool reserve(void) {
    if (first_address) return true;
    int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *place = mmap(NULL, RESERVED, PROT_NONE, how, -1, 0);
    if (place == MAP_FAILED) return false;
    first_address = (uint64_t)place;
    next_address = first_address + ALIGNMENT; /* aligned as the driver's, not to pages */
    return true;
}

static size_t in_use(void) {
    size_t sum = 0;
    for (struct allocation *at = allocations; at; at = at->next)
        if (at->kind == LIVE_DEVICE || integrated) sum += at->size;
    return sum;
}

static CUresult allocate(enum kind kind, size_t size, unsigned int flags,
                         struct allocation **made) {
    if (!size) return CUDA_ERROR_INVALID_VALUE;
    size_t room = (size + 2 * ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; /* a gap after each */
    if (size > TOTAL_BYTES || ((kind == LIVE_DEVICE || integrated) && in_use() + size > TOTAL_BYTES))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!reserve() || next_address + room > first_address + RESERVED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    int how = MAP_PRIVATE | MAP_ANONYMOUS;
    void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, how, -1, 0);
    if (bytes == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    memset(bytes, FRESH, size);
    struct allocation *new = calloc(1, sizeof *new);
    *new = (struct allocation){allocations, kind, next_address, bytes, size, flags};
    next_address += room;
    allocations = new;
    live[kind]++;
    *made = new;
    return CUDA_SUCCESS;
}

/* Releasing waits for all work, as the driver does. */
static CUresult deallocate(enum kind kind, uint64_t at) {
    struct allocation **link = &allocations;
    while (*link && ((*link)->kind != kind ||
                     at != (kind == LIVE_DEVICE ? (*link)->address : (uint64_t)(*link)->bytes)))
        link = &(*link)->next;
    if (!*link) return CUDA_ERROR_INVALID_VALUE;
    struct allocation *gone = *link;
    TRY(wait_for_all());
    for (link = &allocations; *link != gone;) { /* host functions may have changed the list */
        if (!*link) return CUDA_ERROR_INVALID_VALUE;
        link = &(*link)->next;
    }
    *link = gone->next;
    munmap(gone->bytes, gone->size);
    free(gone);
    live[kind]--;
    return CUDA_SUCCESS;
}

void free_all_memory(void) {
    while (allocations) {
        struct allocation *gone = allocations;
        allocations = gone->next;
        munmap(gone->bytes, gone->size);
        free(gone);
    }
}

static bool is_device_address(uint64_t address) {
    return first_address && address >= first_address && address < first_address + RESERVED;
}

static struct allocation *holding(uint64_t address) {
    for (struct allocation *at = allocations; at; at = at->next) {
        uint64_t bytes = (uint64_t)at->bytes;
        if (address >= at->address && address < at->address + at->size) return at;
        if (at->kind == LIVE_HOST && address >= bytes && address < bytes + at->size) return at;
    }
    return NULL;
}

CUresult resolve(uint64_t address, size_t size, struct place_of *found) {
    bool device = is_device_address(address);
    struct allocation *at = holding(address);
    if (!at) {
        if (device || !address) return CUDA_ERROR_INVALID_VALUE;
        *found = (struct place_of){PAGEABLE, (char *)address, false};
        return CUDA_SUCCESS;
    }
    size_t offset = address - (device ? at->address : (uint64_t)at->bytes);
    if (size > at->size - offset) return CUDA_ERROR_INVALID_VALUE;
    enum place place = at->kind == LIVE_DEVICE ? DEVICE_MEMORY : PINNED;
    *found = (struct place_of){place, at->bytes + offset, device};
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetInfo(size_t *unused, size_t *total) {
    ENTER(CONTEXT);
    *total = TOTAL_BYTES;
    *unused = TOTAL_BYTES - in_use();
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemAlloc(CUdeviceptr *address, size_t size) {
    ENTER(CONTEXT_AND_NO_CAPTURE);
    struct allocation *made;
    TRY(allocate(LIVE_DEVICE, size, 0, &made));
    *address = made->address;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFree(CUdeviceptr address) {
    ENTER(CONTEXT_AND_NO_CAPTURE);
    return address ? deallocate(LIVE_DEVICE, address) : CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostAlloc(void **bytes, size_t size, unsigned int flags) {
    ENTER(CONTEXT_AND_NO_CAPTURE);
    const unsigned int known =
        CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
    if (flags & ~known) return CUDA_ERROR_INVALID_VALUE;
    struct allocation *made;
    TRY(allocate(LIVE_HOST, size, flags, &made));
    *bytes = made->bytes;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemAllocHost(void **bytes, size_t size) {
    ENTER(CONTEXT_AND_NO_CAPTURE);
    struct allocation *made;
    TRY(allocate(LIVE_HOST, size, 0, &made));
    *bytes = made->bytes;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFreeHost(void *bytes) {
    ENTER(CONTEXT_AND_NO_CAPTURE);
    return deallocate(LIVE_HOST, (uint64_t)bytes);
}

/* A device address of its own, as the header allows: code that mixes the two up is found out. */
CUresult CUDAAPI cuMemHostGetDevicePointer(CUdeviceptr *address, void *bytes, unsigned int flags) {
    ENTER(CONTEXT);
    struct allocation *at = holding((uint64_t)bytes);
    if (flags || !at || at->kind != LIVE_HOST || is_device_address((uint64_t)bytes))
        return CUDA_ERROR_INVALID_VALUE;
    if (!(at->flags & CU_MEMHOSTALLOC_DEVICEMAP)) return CUDA_ERROR_INVALID_VALUE;
    *address = at->address + ((uint64_t)bytes - (uint64_t)at->bytes);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostGetFlags(unsigned int *flags, void *bytes) {
    ENTER(CONTEXT);
    struct allocation *at = holding((uint64_t)bytes);
    if (!at || at->kind != LIVE_HOST) return CUDA_ERROR_INVALID_VALUE;
    *flags = at->flags;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetAddressRange(CUdeviceptr *base, size_t *size, CUdeviceptr address) {
    ENTER(CONTEXT);
    struct allocation *at = is_device_address(address) ? holding(address) : NULL;
    if (!at) return CUDA_ERROR_NOT_FOUND;
    if (base) *base = at->address;
    if (size) *size = at->size;
    return CUDA_SUCCESS;
}

static CUresult attribute_of(void *data, CUpointer_attribute attribute, CUdeviceptr address) {
    struct allocation *at = holding(address);
    if (!at) return CUDA_ERROR_INVALID_VALUE;
    bool device = is_device_address(address);
    size_t offset = address - (device ? at->address : (uint64_t)at->bytes);
    bool host = at->kind == LIVE_HOST;
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT: *(CUcontext *)data = &primary; break;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned int *)data = host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        break;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        if (host && !(at->flags & CU_MEMHOSTALLOC_DEVICEMAP)) return CUDA_ERROR_INVALID_VALUE;
        *(CUdeviceptr *)data = at->address + offset;
        break;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (!host) return CUDA_ERROR_INVALID_VALUE;
        *(void **)data = at->bytes + offset;
        break;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED: *(unsigned int *)data = 0; break;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)data = 0; break;
    case CU_POINTER_ATTRIBUTE_MAPPED: *(unsigned int *)data = 1; break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(uint64_t *)data = address - offset;
        break;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE: *(size_t *)data = at->size; break;
    default: return CUDA_ERROR_NOT_SUPPORTED;
    }
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuPointerGetAttribute(void *data, CUpointer_attribute attribute,
                                       CUdeviceptr address) {
    ENTER(CONTEXT);
    return attribute_of(data, attribute, address);
}

/* One entry is answered as the other; what does not apply reads as zero instead of failing. */
CUresult CUDAAPI cuPointerGetAttributes(unsigned int n, CUpointer_attribute *attributes,
                                        void **data, CUdeviceptr address) {
    ENTER(CONTEXT);
    for (unsigned int i = 0; i < n; i++) {
        switch (attributes[i]) {
        case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        case CU_POINTER_ATTRIBUTE_MAPPED: *(unsigned int *)data[i] = 0; break;
        case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)data[i] = -2; break;
        default: *(void **)data[i] = NULL;
        }
        if (attribute_of(data[i], attributes[i], address) == CUDA_ERROR_NOT_SUPPORTED)
            return CUDA_ERROR_NOT_SUPPORTED;
    }
    return CUDA_SUCCESS;
}

enum direction { ANY, TO_DEVICE, TO_HOST, WITHIN_DEVICE };

static CUresult check_direction(enum direction direction, struct place_of to,
                                struct place_of from) {
    bool to_device = direction == TO_DEVICE || direction == WITHIN_DEVICE;
    bool from_device = direction == TO_HOST || direction == WITHIN_DEVICE;
    if (direction != ANY && (to.device_address != to_device || from.device_address != from_device))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* Only pinned and device memory may be touched after the call has returned. */
static CUresult copy_async(uint64_t to, uint64_t from, size_t size, enum direction direction,
                           CUstream handle) {
    struct CUstream_st *stream;
    TRY(find_stream(handle, &stream));
    if (!size) return CUDA_SUCCESS;
    struct place_of target, source;
    TRY(resolve(to, size, &target));
    TRY(resolve(from, size, &source));
    TRY(check_direction(direction, target, source));
    struct work work = {.what = COPY, .to = to, .from = from, .size = size};
    if (stream->capture) return submit(stream, work, NULL);
    if (source.place == PAGEABLE) {
        work.snapshot = malloc(size);
        memcpy(work.snapshot, source.bytes, size);
    }
    if (target.place != PAGEABLE) return submit(stream, work, NULL);
    struct mark *finished;
    TRY(submit(stream, work, &finished));
    CUresult code = wait_for(finished);
    release(finished);
    return code;
}

/* In the legacy stream; within the device the host does not wait. */
static CUresult copy(uint64_t to, uint64_t from, size_t size, enum direction direction) {
    if (!size) return CUDA_SUCCESS;
    struct place_of target, source;
    TRY(resolve(to, size, &target));
    TRY(resolve(from, size, &source));
    TRY(check_direction(direction, target, source));
    struct work work = {.what = COPY, .to = to, .from = from, .size = size};
    struct mark *finished;
    TRY(submit(&legacy, work, &finished));
    bool waits = target.place != DEVICE_MEMORY || source.place != DEVICE_MEMORY;
    CUresult code = waits ? wait_for(finished) : CUDA_SUCCESS;
    release(finished);
    return code;
}

CUresult CUDAAPI cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    ENTER(CONTEXT);
    return copy_async(to, (uint64_t)from, size, TO_DEVICE, stream);
}

CUresult CUDAAPI cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    ENTER(CONTEXT);
    return copy_async((uint64_t)to, from, size, TO_HOST, stream);
}

CUresult CUDAAPI cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t size,
                                   CUstream stream) {
    ENTER(CONTEXT);
    return copy_async(to, from, size, WITHIN_DEVICE, stream);
}

CUresult CUDAAPI cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    ENTER(CONTEXT);
    return copy_async(to, from, size, ANY, stream);
}

CUresult CUDAAPI cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t size) {
    ENTER(CONTEXT_AND_NO_CAPTURE);
    return copy(to, (uint64_t)from, size, TO_DEVICE);
}

CUresult CUDAAPI cuMemcpyDtoH(void *to, CUdeviceptr from, size_t size) {
    ENTER(CONTEXT_AND_NO_CAPTURE);
    return copy((uint64_t)to, from, size, TO_HOST);
}

CUresult CUDAAPI cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t size) {
    ENTER(CONTEXT_AND_NO_CAPTURE);
    return copy(to, from, size, WITHIN_DEVICE);
}

CUresult CUDAAPI cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t size) {
    ENTER(CONTEXT_AND_NO_CAPTURE);
    return copy(to, from, size, ANY);
}

static CUresult fill(uint64_t to, unsigned char value, size_t size, struct CUstream_st *stream) {
    struct place_of target;
    if (!size) return CUDA_SUCCESS;
    TRY(resolve(to, size, &target));
    if (!target.device_address) return CUDA_ERROR_INVALID_VALUE;
    return submit(stream, (struct work){.what = FILL, .to = to, .value = value, .size = size}, NULL);
}

CUresult CUDAAPI cuMemsetD8(CUdeviceptr to, unsigned char value, size_t size) {
    ENTER(CONTEXT_AND_NO_CAPTURE);
    return fill(to, value, size, &legacy);
}

CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size,
                                 CUstream handle) {
    ENTER(CONTEXT);
    struct CUstream_st *stream;
    TRY(find_stream(handle, &stream));
    return fill(to, value, size, stream);
}
