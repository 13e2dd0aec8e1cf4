/* Streams, events and host functions. */
#include "standin.h"

#define LEAST_PRIORITY 0
#define GREATEST_PRIORITY (-5)
#define FIRST_CREATED (1u << 16)

/* Handles are never given out twice: a destroyed one is found out, and its memory kept. */
static struct CUevent_st *events;
static uint64_t last_stream_id = FIRST_CREATED;

#define FIND_STREAM(handle)      \
    struct CUstream_st *stream;  \
    TRY(find_stream(handle, &stream))

#define CHECK_EVENT(event) \
    if (!(event) || (event)->life != ALIVE) return CUDA_ERROR_INVALID_HANDLE

static CUresult create(CUstream *made, unsigned int flags, int priority) {
    if (flags & ~(unsigned int)CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
    if (priority > LEAST_PRIORITY) priority = LEAST_PRIORITY;
    if (priority < GREATEST_PRIORITY) priority = GREATEST_PRIORITY;
    struct CUstream_st *stream = calloc(1, sizeof *stream);
    stream->life = ALIVE;
    stream->next = streams;
    stream->id = ++last_stream_id;
    stream->flags = flags;
    stream->priority = priority;
    streams = stream;
    live[LIVE_STREAM]++;
    *made = stream;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamCreate(CUstream *made, unsigned int flags) {
    ENTER(CONTEXT);
    return create(made, flags, LEAST_PRIORITY);
}

CUresult CUDAAPI cuStreamCreateWithPriority(CUstream *made, unsigned int flags, int priority) {
    ENTER(CONTEXT);
    return create(made, flags, priority);
}

CUresult CUDAAPI cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    ENTER(CONTEXT);
    if (least) *least = LEAST_PRIORITY;
    if (greatest) *greatest = GREATEST_PRIORITY;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetPriority(CUstream handle, int *priority) {
    ENTER(CONTEXT);
    FIND_STREAM(handle);
    *priority = stream->priority;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetFlags(CUstream handle, unsigned int *flags) {
    ENTER(CONTEXT);
    FIND_STREAM(handle);
    *flags = stream->flags;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetId(CUstream handle, unsigned long long *id) {
    ENTER(CONTEXT);
    FIND_STREAM(handle);
    *id = stream->id;
    return CUDA_SUCCESS;
}

static CUresult context_of(CUstream handle, CUcontext *context) {
    FIND_STREAM(handle);
    *context = &primary;
    return stream->capture ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetCtx_v2(CUstream handle, CUcontext *context, CUgreenCtx *green) {
    ENTER(CONTEXT);
    if (green) *green = NULL;
    return context_of(handle, context);
}

CUresult CUDAAPI cuStreamGetCtx(CUstream handle, CUcontext *context) {
    ENTER(CONTEXT);
    return context_of(handle, context);
}

/* Work that is still there runs all the same, as the driver's does. */
CUresult CUDAAPI cuStreamDestroy(CUstream handle) {
    ENTER(CONTEXT);
    FIND_STREAM(handle);
    if (stream != handle) return CUDA_ERROR_INVALID_HANDLE; /* one of the default streams */
    if (stream->capture) abandon(stream->capture, stream);
    stream->life = DEAD;
    live[LIVE_STREAM]--;
    unlink_if_gone(stream);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamSynchronize(CUstream handle) {
    ENTER(CONTEXT);
    FIND_STREAM(handle);
    TRY(refuse_stream_if_capturing(stream));
    TRY(refuse_if_capturing());
    if (stream != &legacy) return wait_for(stream->last);
    struct mark *finished; /* the legacy stream stands for all blocking ones */
    TRY(submit(stream, (struct work){.what = NOTHING_TO_DO}, &finished));
    CUresult code = wait_for(finished);
    release(finished);
    return code;
}

CUresult CUDAAPI cuStreamQuery(CUstream handle) {
    ENTER(CONTEXT);
    FIND_STREAM(handle);
    TRY(refuse_stream_if_capturing(stream));
    TRY(refuse_if_capturing());
    if (stream == &legacy)
        for (struct CUstream_st *at = streams; at; at = at->next)
            if (!(at->flags & CU_STREAM_NON_BLOCKING)) TRY(query(at->last));
    return query(stream->last);
}

CUresult CUDAAPI cuStreamWaitEvent(CUstream handle, CUevent event, unsigned int flags) {
    ENTER(CONTEXT);
    FIND_STREAM(handle);
    CHECK_EVENT(event);
    if (flags & ~(unsigned int)CU_EVENT_WAIT_EXTERNAL) return CUDA_ERROR_INVALID_VALUE;
    if (flags) {
        if (!stream->capture) return CUDA_ERROR_INVALID_VALUE;
        return submit(stream, (struct work){.what = WAIT, .event = event}, NULL);
    }
    if (stream->capture || event->capture) return capture_wait(stream, event);
    if (!event->latest || event->latest->done) return CUDA_SUCCESS;
    return submit_after(stream, (struct work){.what = NOTHING_TO_DO}, &event->latest, 1, NULL);
}

CUresult CUDAAPI cuLaunchHostFunc(CUstream handle, CUhostFn function, void *data) {
    ENTER(CONTEXT);
    FIND_STREAM(handle);
    if (!function) return CUDA_ERROR_INVALID_VALUE;
    return submit(stream, (struct work){.what = CALL, .function = function, .data = data}, NULL);
}

CUresult CUDAAPI cuEventCreate(CUevent *made, unsigned int flags) {
    ENTER(CONTEXT);
    const unsigned int known =
        CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
    if (flags & ~known) return CUDA_ERROR_INVALID_VALUE;
    if (flags & CU_EVENT_INTERPROCESS) return CUDA_ERROR_NOT_SUPPORTED;
    struct CUevent_st *event = calloc(1, sizeof *event);
    *event = (struct CUevent_st){.life = ALIVE, .next = events, .flags = flags};
    events = event;
    live[LIVE_EVENT]++;
    *made = event;
    return CUDA_SUCCESS;
}

static void end(CUevent event) {
    event->life = DEAD;
    release(event->latest);
    event->latest = NULL;
}

CUresult CUDAAPI cuEventDestroy(CUevent event) {
    ENTER(CONTEXT);
    CHECK_EVENT(event);
    end(event);
    live[LIVE_EVENT]--;
    return CUDA_SUCCESS;
}

void destroy_all_streams_and_events(void) {
    for (struct CUevent_st *at = events; at; at = at->next)
        if (at->life == ALIVE) end(at);
    for (struct CUstream_st *at = streams, *next; at; at = next) {
        next = at->next;
        if (at->id >= FIRST_CREATED) at->life = DEAD; /* the default streams stay */
        unlink_if_gone(at);
    }
}

static CUresult record(CUevent event, CUstream handle, unsigned int flags) {
    FIND_STREAM(handle);
    CHECK_EVENT(event);
    if (flags & ~(unsigned int)CU_EVENT_RECORD_EXTERNAL) return CUDA_ERROR_INVALID_VALUE;
    if (flags) {
        if (!stream->capture) return CUDA_ERROR_INVALID_VALUE;
        return submit(stream, (struct work){.what = RECORD, .event = event}, NULL);
    }
    if (stream->capture) return capture_record(stream, event);
    struct mark *finished;
    TRY(submit(stream, (struct work){.what = NOTHING_TO_DO}, &finished));
    release(event->latest);
    event->latest = finished;
    event->capture = NULL;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventRecord(CUevent event, CUstream handle) {
    ENTER(CONTEXT);
    return record(event, handle, CU_EVENT_RECORD_DEFAULT);
}

CUresult CUDAAPI cuEventRecordWithFlags(CUevent event, CUstream handle, unsigned int flags) {
    ENTER(CONTEXT);
    return record(event, handle, flags);
}

CUresult CUDAAPI cuEventQuery(CUevent event) {
    ENTER(CONTEXT);
    CHECK_EVENT(event);
    TRY(refuse_event_if_captured(event));
    TRY(refuse_if_capturing());
    return query(event->latest);
}

CUresult CUDAAPI cuEventSynchronize(CUevent event) {
    ENTER(CONTEXT);
    CHECK_EVENT(event);
    TRY(refuse_event_if_captured(event));
    TRY(refuse_if_capturing());
    return wait_for(event->latest);
}

static CUresult elapsed(float *milliseconds, CUevent start, CUevent stop) {
    CHECK_EVENT(start);
    CHECK_EVENT(stop);
    TRY(refuse_event_if_captured(start));
    TRY(refuse_event_if_captured(stop));
    if ((start->flags | stop->flags) & CU_EVENT_DISABLE_TIMING) return CUDA_ERROR_INVALID_HANDLE;
    if (!start->latest || !stop->latest) return CUDA_ERROR_INVALID_HANDLE;
    if (!start->latest->done || !stop->latest->done) return CUDA_ERROR_NOT_READY;
    *milliseconds = (float)(stop->latest->time_ms - start->latest->time_ms);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventElapsedTime(float *milliseconds, CUevent start, CUevent stop) {
    ENTER(CONTEXT);
    return elapsed(milliseconds, start, stop);
}

#undef cuEventElapsedTime
EXPORTED CUresult CUDAAPI cuEventElapsedTime(float *milliseconds, CUevent start, CUevent stop) {
    ENTER(CONTEXT);
    return elapsed(milliseconds, start, stop);
}
