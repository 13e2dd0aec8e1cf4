/* Modules and the one kernel that the stand-in knows: `work` of tests/gpu/kernel.py. */
#include "standin.h"

struct CUmod_st {
    int life;
};
struct CUfunc_st {
    int life;
};

static struct CUfunc_st work_function = {.life = ALIVE};

CUresult CUDAAPI cuModuleLoadData(CUmodule *made, const void *image) {
    ENTER(CONTEXT);
    if (!made || !image) return CUDA_ERROR_INVALID_VALUE;
    CUmodule module = calloc(1, sizeof *module);
    module->life = ALIVE;
    *made = module;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleUnload(CUmodule module) {
    ENTER(CONTEXT);
    if (!module || module->life != ALIVE) return CUDA_ERROR_INVALID_HANDLE;
    module->life = DEAD; /* kept, so that a second unload is found out */
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction *found, CUmodule module, const char *name) {
    ENTER(CONTEXT);
    if (!module || module->life != ALIVE) return CUDA_ERROR_INVALID_HANDLE;
    if (strcmp(name, "work")) return CUDA_ERROR_NOT_FOUND;
    *found = &work_function;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y,
                                unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                                unsigned int block_z, unsigned int shared_bytes, CUstream handle,
                                void **arguments, void **extra) {
    ENTER(CONTEXT);
    struct CUstream_st *stream;
    TRY(find_stream(handle, &stream));
    if (function != &work_function) return CUDA_ERROR_INVALID_HANDLE;
    if (!grid_x || !grid_y || !grid_z || !block_x || !block_y || !block_z || shared_bytes || extra)
        return CUDA_ERROR_INVALID_VALUE;
    /* Arguments are read now, as the driver does: (source, target, source bytes, target bytes, ns). */
    struct work work = {.what = KERNEL};
    memcpy(&work.from, arguments[0], sizeof work.from);
    memcpy(&work.to, arguments[1], sizeof work.to);
    memcpy(&work.size, arguments[2], sizeof work.size);
    memcpy(&work.target_size, arguments[3], sizeof work.target_size);
    return submit(stream, work, NULL);
}
