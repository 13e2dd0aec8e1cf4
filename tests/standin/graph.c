/* Capture of streams into graphs, and their replay. */
#include "standin.h"

static struct capture *captures;
static uint64_t last_capture_id;
static __thread CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

void add_index(struct indices *indices, int index) {
    for (int i = 0; i < indices->n; i++)
        if (indices->items[i] == index) return;
    indices->items = realloc(indices->items, (indices->n + 1) * sizeof *indices->items);
    indices->items[indices->n++] = index;
}

void copy_indices(struct indices *to, const struct indices *from) {
    to->n = 0;
    for (int i = 0; i < from->n; i++) add_index(to, from->items[i]);
}

void invalidate(struct capture *capture) { capture->invalidated = true; }

/* What cuThreadExchangeStreamCaptureMode says in cuda.h of calls that a capture does not see. */
CUresult refuse_if_capturing(void) {
    CUresult code = CUDA_SUCCESS;
    if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return code;
    for (struct capture *at = captures; at; at = at->next) {
        if (at->ended) continue;
        bool mine = pthread_equal(at->owner, pthread_self());
        if (mine ? at->mode == CU_STREAM_CAPTURE_MODE_RELAXED
                 : at->mode != CU_STREAM_CAPTURE_MODE_GLOBAL ||
                       thread_mode != CU_STREAM_CAPTURE_MODE_GLOBAL)
            continue;
        invalidate(at);
        code = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return code;
}

/* Work in the legacy stream would wait for blocking streams, and a captured one cannot be. */
CUresult refuse_if_blocking_capture(void) {
    CUresult code = CUDA_SUCCESS;
    for (struct CUstream_st *at = streams; at; at = at->next) {
        if (!at->capture || at->flags & CU_STREAM_NON_BLOCKING) continue;
        invalidate(at->capture);
        code = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    return code;
}

CUresult refuse_stream_if_capturing(struct CUstream_st *stream) {
    if (!stream->capture) return CUDA_SUCCESS;
    invalidate(stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

CUresult refuse_event_if_captured(CUevent event) {
    if (!event->capture) return CUDA_SUCCESS;
    invalidate(event->capture);
    return CUDA_ERROR_CAPTURED_EVENT;
}

CUresult capture_work(struct CUstream_st *stream, struct work work) {
    if (stream->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (work.what == LAUNCH) { /* a child graph: not modelled */
        invalidate(stream->capture);
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    CUgraph graph = stream->capture->graph;
    CUgraphNode node = calloc(1, sizeof *node);
    node->work = work;
    copy_indices(&node->after, &stream->captured);
    graph->nodes = realloc(graph->nodes, (graph->n_nodes + 1) * sizeof *graph->nodes);
    graph->nodes[graph->n_nodes] = node;
    stream->captured.n = 0;
    add_index(&stream->captured, graph->n_nodes++);
    return CUDA_SUCCESS;
}

CUresult capture_record(struct CUstream_st *stream, CUevent event) {
    if (stream->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    event->capture = stream->capture;
    copy_indices(&event->captured, &stream->captured);
    return CUDA_SUCCESS;
}

/* Waiting for a captured event takes the stream into the capture. */
CUresult capture_wait(struct CUstream_st *stream, CUevent event) {
    if (stream->capture && stream->capture->invalidated)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (!event->capture) {
        if (!event->latest) return CUDA_SUCCESS;
        invalidate(stream->capture);
        return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (event->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (event->capture->ended) return CUDA_ERROR_CAPTURED_EVENT;
    if (stream->capture && stream->capture != event->capture) {
        invalidate(stream->capture);
        invalidate(event->capture);
        return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    }
    if (stream == &legacy) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    stream->capture = event->capture;
    for (int i = 0; i < event->captured.n; i++)
        add_index(&stream->captured, event->captured.items[i]);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
    ENTER(INITIALISED);
    if (*mode > CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
    CUstreamCaptureMode before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}

static CUgraph new_graph(void) {
    CUgraph graph = calloc(1, sizeof *graph);
    graph->life = ALIVE;
    return graph;
}

CUresult CUDAAPI cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
    ENTER(CONTEXT);
    struct CUstream_st *stream;
    TRY(find_stream(handle, &stream));
    if (mode > CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
    if (stream == &legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
    struct capture *capture = calloc(1, sizeof *capture);
    *capture = (struct capture){.next = captures, .id = ++last_capture_id, .mode = mode,
                                .owner = pthread_self(), .origin = stream, .graph = new_graph()};
    captures = capture; /* kept for ever: events point to it */
    stream->capture = capture;
    stream->captured.n = 0;
    return CUDA_SUCCESS;
}

static void mark_reached(CUgraph graph, const struct indices *from, bool *reached) {
    for (int i = 0; i < from->n; i++) reached[from->items[i]] = true;
    for (int i = graph->n_nodes - 1; i >= 0; i--) /* nodes come after what they depend on */
        for (int j = 0; reached[i] && j < graph->nodes[i]->after.n; j++)
            reached[graph->nodes[i]->after.items[j]] = true;
}

static bool has_unjoined(struct capture *capture) {
    bool *reached = calloc(capture->graph->n_nodes + 1, sizeof *reached);
    mark_reached(capture->graph, &capture->origin->captured, reached);
    bool unjoined = false;
    for (struct CUstream_st *at = streams; at; at = at->next)
        for (int i = 0; at->capture == capture && i < at->captured.n; i++)
            if (!reached[at->captured.items[i]]) unjoined = true;
    free(reached);
    return unjoined;
}

static void free_nodes(CUgraph graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        free(graph->nodes[i]->after.items);
        free(graph->nodes[i]);
    }
    free(graph->nodes);
    graph->nodes = NULL;
    graph->n_nodes = 0;
    graph->life = DEAD;
}

static void end(struct capture *capture) {
    capture->ended = true;
    for (struct CUstream_st *at = streams; at; at = at->next)
        if (at->capture == capture) {
            at->capture = NULL;
            at->captured.n = 0;
        }
}

/* One of its streams goes; without the first one nobody can end it. */
void abandon(struct capture *capture, struct CUstream_st *stream) {
    invalidate(capture);
    if (stream != capture->origin) return;
    end(capture);
    free_nodes(capture->graph);
}

CUresult CUDAAPI cuStreamEndCapture(CUstream handle, CUgraph *graph) {
    ENTER(CONTEXT);
    struct CUstream_st *stream;
    TRY(find_stream(handle, &stream));
    if (graph) *graph = NULL;
    struct capture *capture = stream->capture;
    if (!capture) return CUDA_ERROR_ILLEGAL_STATE;
    if (capture->origin != stream) {
        invalidate(capture);
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    }
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
        !pthread_equal(capture->owner, pthread_self()))
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    CUresult code = capture->invalidated    ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                    : has_unjoined(capture) ? CUDA_ERROR_STREAM_CAPTURE_UNJOINED
                                            : CUDA_SUCCESS;
    end(capture);
    if (code || !graph) {
        free_nodes(capture->graph);
        return code;
    }
    *graph = capture->graph;
    live[LIVE_GRAPH]++;
    return CUDA_SUCCESS;
}

static CUstreamCaptureStatus status_of(struct CUstream_st *stream) {
    if (!stream->capture) return CU_STREAM_CAPTURE_STATUS_NONE;
    return stream->capture->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                        : CU_STREAM_CAPTURE_STATUS_ACTIVE;
}

CUresult CUDAAPI cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
    ENTER(CONTEXT);
    struct CUstream_st *stream;
    TRY(find_stream(handle, &stream));
    if (stream == &legacy) TRY(refuse_if_blocking_capture());
    *status = status_of(stream);
    return CUDA_SUCCESS;
}

static CUresult capture_info(CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id,
                             CUgraph *graph, const CUgraphNode **after, size_t *n_after) {
    struct CUstream_st *stream;
    TRY(find_stream(handle, &stream));
    *status = status_of(stream);
    if (*status != CU_STREAM_CAPTURE_STATUS_ACTIVE) return CUDA_SUCCESS;
    if (id) *id = stream->capture->id;
    if (graph) *graph = stream->capture->graph;
    size_t n = stream->captured.n;
    stream->captured_out = realloc(stream->captured_out, (n + 1) * sizeof(CUgraphNode));
    for (size_t i = 0; i < n; i++)
        stream->captured_out[i] = stream->capture->graph->nodes[stream->captured.items[i]];
    if (after) *after = stream->captured_out;
    if (n_after) *n_after = n;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetCaptureInfo(CUstream handle, CUstreamCaptureStatus *status,
                                        cuuint64_t *id, CUgraph *graph, const CUgraphNode **after,
                                        const CUgraphEdgeData **edges, size_t *n_after) {
    ENTER(CONTEXT);
    if (edges) *edges = NULL;
    return capture_info(handle, status, id, graph, after, n_after);
}

#undef cuStreamGetCaptureInfo_v2
EXPORTED CUresult CUDAAPI cuStreamGetCaptureInfo_v2(CUstream handle, CUstreamCaptureStatus *status,
                                                    cuuint64_t *id, CUgraph *graph,
                                                    const CUgraphNode **after, size_t *n_after) {
    ENTER(CONTEXT);
    return capture_info(handle, status, id, graph, after, n_after);
}

#define CHECK_ALIVE(handle) \
    if (!(handle) || (handle)->life != ALIVE) return CUDA_ERROR_INVALID_HANDLE

CUresult CUDAAPI cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *n) {
    ENTER(CONTEXT);
    CHECK_ALIVE(graph);
    size_t room = *n;
    if (!nodes) *n = graph->n_nodes;
    for (size_t i = 0; nodes && i < room; i++)
        nodes[i] = i < (size_t)graph->n_nodes ? graph->nodes[i] : NULL;
    if (nodes && room > (size_t)graph->n_nodes) *n = graph->n_nodes;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphInstantiate(CUgraphExec *made, CUgraph graph, unsigned long long flags) {
    ENTER(CONTEXT);
    CHECK_ALIVE(graph);
    if (flags & ~(unsigned long long)CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH)
        return CUDA_ERROR_NOT_SUPPORTED;
    CUgraphExec exec = calloc(1, sizeof *exec);
    exec->life = ALIVE;
    exec->graph.n_nodes = graph->n_nodes;
    exec->graph.nodes = calloc(graph->n_nodes + 1, sizeof *exec->graph.nodes);
    for (int i = 0; i < graph->n_nodes; i++) {
        CUgraphNode node = exec->graph.nodes[i] = calloc(1, sizeof *node);
        node->work = graph->nodes[i]->work;
        copy_indices(&node->after, &graph->nodes[i]->after);
    }
    live[LIVE_EXEC]++;
    *made = exec;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphUpload(CUgraphExec exec, CUstream handle) {
    ENTER(CONTEXT);
    struct CUstream_st *stream;
    TRY(find_stream(handle, &stream));
    CHECK_ALIVE(exec);
    return refuse_stream_if_capturing(stream);
}

CUresult CUDAAPI cuGraphLaunch(CUgraphExec exec, CUstream handle) {
    ENTER(CONTEXT);
    struct CUstream_st *stream;
    TRY(find_stream(handle, &stream));
    CHECK_ALIVE(exec);
    return submit(stream, (struct work){.what = LAUNCH, .exec = exec}, NULL);
}

/* The nodes stay: launches that are still queued run them. */
CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec exec) {
    ENTER(CONTEXT);
    CHECK_ALIVE(exec);
    exec->life = DEAD;
    live[LIVE_EXEC]--;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphDestroy(CUgraph graph) {
    ENTER(CONTEXT);
    CHECK_ALIVE(graph);
    free_nodes(graph);
    live[LIVE_GRAPH]--;
    return CUDA_SUCCESS;
}
