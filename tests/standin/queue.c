/* Work in streams, and the order in which it runs.

   There is no thread of the stand-in's own: work runs in the calls of the program, as STANDIN_ORDER
   says. eager: as soon as it may. lazy: when a call waits for it, and no other work than that.
   seed:N: in any order that the program allows, drawn from N; some of it already at submission. */
#include "standin.h"

#include <time.h>

struct CUstream_st legacy = {.life = ALIVE, .id = 1}, *streams = &legacy;
static __thread struct CUstream_st *per_thread;
static __thread bool calling_host_function;
static uint64_t last_id = 2;

enum order { UNREAD, EAGER, LAZY, SEEDED };
static enum order order_read;
static uint64_t drawn;

static enum order order(void) {
    if (order_read) return order_read;
    const char *value = getenv("STANDIN_ORDER");
    order_read = EAGER;
    if (value && !strcmp(value, "lazy")) order_read = LAZY;
    if (value && !strncmp(value, "seed:", 5)) {
        order_read = SEEDED;
        drawn = (uint64_t)strtoull(value + 5, NULL, 10) * 2654435761u + 88172645463325252u;
    }
    return order_read;
}

/* Marsaglia, Xorshift RNGs (2003), p. 4, the 64-bit triple (13, 7, 17). */
static int draw(int below) {
    drawn ^= drawn << 13;
    drawn ^= drawn >> 7;
    drawn ^= drawn << 17;
    return (int)((drawn >> 33) % (uint64_t)below);
}

bool in_host_function(void) { return calling_host_function; }

struct mark *new_mark(struct CUstream_st *stream) {
    struct mark *mark = calloc(1, sizeof *mark);
    *mark = (struct mark){.references = 1, .stream = stream};
    return mark;
}

struct mark *keep(struct mark *mark) {
    if (mark) mark->references++;
    return mark;
}

void release(struct mark *mark) {
    if (mark && --mark->references == 0) free(mark);
}

static void replace(struct mark **kept, struct mark *mark) {
    struct mark *old = *kept;
    *kept = keep(mark);
    release(old);
}

static void finish_mark(struct mark *mark) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    mark->time_ms = (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
    mark->done = true;
}

CUresult find_stream(CUstream handle, struct CUstream_st **found) {
    if (!handle || handle == CU_STREAM_LEGACY) {
        *found = &legacy;
    } else if (handle == CU_STREAM_PER_THREAD) {
        if (!per_thread) {
            per_thread = calloc(1, sizeof *per_thread);
            *per_thread = (struct CUstream_st){.life = ALIVE, .next = streams, .id = ++last_id};
            streams = per_thread;
        }
        *found = per_thread;
    } else if (handle->life == ALIVE) {
        *found = handle;
    } else {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    return CUDA_SUCCESS;
}

static void free_op(struct op *op) {
    for (int i = 0; i < op->n_after; i++) release(op->after[i]);
    if (op->node_marks)
        for (int i = 0; i < op->work.exec->graph.n_nodes; i++) release(op->node_marks[i]);
    free(op->after);
    free(op->node_marks);
    free(op->node_done);
    free(op->work.snapshot);
    release(op->finished);
    free(op);
}

static void add_after(struct op *op, struct mark *mark) {
    if (!mark || mark->done) return;
    op->after = realloc(op->after, (op->n_after + 1) * sizeof *op->after);
    op->after[op->n_after++] = keep(mark);
}

/* The legacy stream and the blocking streams wait for each other. */
static void add_implicit(struct op *op, struct CUstream_st *stream) {
    if (stream == &legacy) {
        for (struct CUstream_st *at = streams; at; at = at->next)
            if (!(at->flags & CU_STREAM_NON_BLOCKING)) add_after(op, at->last);
    } else if (!(stream->flags & CU_STREAM_NON_BLOCKING)) {
        add_after(op, legacy.last);
    }
}

/* A launch's own waits for events come before its own records, which then stand for the events. */
static void prepare_launch(struct op *op, struct CUstream_st *stream) {
    struct CUgraph_st *graph = &op->work.exec->graph;
    op->n_left = graph->n_nodes;
    op->node_done = calloc(graph->n_nodes + 1, sizeof *op->node_done);
    op->node_marks = calloc(graph->n_nodes + 1, sizeof *op->node_marks);
    add_after(op, op->work.exec->last);
    replace(&op->work.exec->last, op->finished);
    for (int i = 0; i < graph->n_nodes; i++) {
        struct work *work = &graph->nodes[i]->work;
        if (work->what == WAIT && work->event->life == ALIVE) add_after(op, work->event->latest);
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        struct work *work = &graph->nodes[i]->work;
        if (work->what != RECORD || work->event->life != ALIVE) continue;
        op->node_marks[i] = new_mark(stream);
        replace(&work->event->latest, op->node_marks[i]);
    }
}

static bool is_ready(struct op *op) {
    if (!op || op->running) return false;
    for (int i = 0; i < op->n_after; i++)
        if (!op->after[i]->done) return false;
    return true;
}

/* A host function may call other libraries and wait for other threads: not under the lock. */
static void call(struct op *op, struct work *work) {
    op->running = true;
    calling_host_function = true;
    pthread_mutex_unlock(&lock);
    work->function(work->data);
    pthread_mutex_lock(&lock);
    calling_host_function = false;
    op->running = false;
}

static CUresult perform(struct op *op, struct work *work) {
    struct place_of to, from;
    switch (work->what) {
    case COPY:
        if (resolve(work->to, work->size, &to)) return CUDA_ERROR_ILLEGAL_ADDRESS;
        if (!work->snapshot && resolve(work->from, work->size, &from))
            return CUDA_ERROR_ILLEGAL_ADDRESS;
        memmove(to.bytes, work->snapshot ? work->snapshot : from.bytes, work->size);
        break;
    case FILL:
        if (resolve(work->to, work->size, &to)) return CUDA_ERROR_ILLEGAL_ADDRESS;
        memset(to.bytes, work->value, work->size);
        break;
    case KERNEL:
        if (resolve(work->to, work->target_size, &to) || resolve(work->from, work->size, &from))
            return CUDA_ERROR_ILLEGAL_ADDRESS;
        for (size_t i = 0; i < work->target_size; i++)
            to.bytes[i] = (char)(from.bytes[i % work->size] + 1);
        break;
    case CALL: call(op, work); break;
    default: break;
    }
    return CUDA_SUCCESS;
}

static bool node_is_ready(struct op *op, CUgraphNode node) {
    for (int i = 0; i < node->after.n; i++)
        if (!op->node_done[node->after.items[i]]) return false;
    return true;
}

/* The first captured node that may run, the last, or any. */
static int choose_node(struct op *op) {
    struct CUgraph_st *graph = &op->work.exec->graph;
    int chosen = -1, n_ready = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        if (op->node_done[i] || !node_is_ready(op, graph->nodes[i])) continue;
        n_ready++;
        if (n_ready == 1 || order() == LAZY || (order() == SEEDED && draw(n_ready) == 0))
            chosen = i;
    }
    return chosen;
}

static CUresult perform_node(struct op *op) {
    int chosen = choose_node(op);
    if (chosen < 0) return CUDA_SUCCESS;
    TRY(perform(op, &op->work.exec->graph.nodes[chosen]->work));
    op->node_done[chosen] = true;
    if (op->node_marks[chosen]) finish_mark(op->node_marks[chosen]);
    op->n_left--;
    return CUDA_SUCCESS;
}

void unlink_if_gone(struct CUstream_st *stream) {
    if (stream->life == ALIVE || stream->head) return;
    for (struct CUstream_st **link = &streams; *link; link = &(*link)->next)
        if (*link == stream) {
            *link = stream->next;
            return;
        }
}

/* One piece of the stream's first work, which is ready. */
static void step(struct CUstream_st *stream) {
    struct op *op = stream->head;
    CUresult code;
    if (op->work.what == LAUNCH) {
        code = perform_node(op);
    } else {
        code = perform(op, &op->work);
    }
    if (code) {
        primary.sticky = code;
    } else if (op->n_left == 0) {
        finish_mark(op->finished);
        stream->head = op->next;
        if (!stream->head) stream->tail = NULL;
        free_op(op);
        unlink_if_gone(stream);
    }
    pthread_cond_broadcast(&changed);
}

static struct CUstream_st *any_ready(void) {
    struct CUstream_st *chosen = NULL;
    int n_ready = 0;
    for (struct CUstream_st *at = streams; at; at = at->next)
        if (is_ready(at->head) && (++n_ready == 1 || (order() == SEEDED && draw(n_ready) == 0)))
            chosen = at;
    return chosen;
}

/* The stream whose next work the mark waits for in the end; NULL if that runs in another thread. */
static struct CUstream_st *needed_for(struct mark *mark) {
    for (;;) {
        struct op *op = mark->stream->head;
        if (op->running) return NULL;
        struct mark *first = NULL;
        for (int i = 0; i < op->n_after && !first; i++)
            if (!op->after[i]->done) first = op->after[i];
        if (!first) return mark->stream;
        mark = first;
    }
}

static struct CUstream_st *next_for(struct mark *mark) {
    if (stalled || primary.sticky) return NULL;
    return order() == SEEDED ? any_ready() : needed_for(mark);
}

void run_eagerly(void) {
    if (order() != EAGER) return;
    struct CUstream_st *stream;
    while (!stalled && !primary.sticky && (stream = any_ready())) step(stream);
}

CUresult wait_for(struct mark *mark) {
    if (!mark) return CUDA_SUCCESS;
    keep(mark);
    while (!mark->done && !primary.sticky) {
        struct CUstream_st *stream = next_for(mark);
        if (stream)
            step(stream);
        else
            pthread_cond_wait(&changed, &lock);
    }
    release(mark);
    return primary.sticky;
}

CUresult wait_for_all(void) {
    for (struct CUstream_st *at = streams; at;) {
        if (!at->head) {
            at = at->next;
            continue;
        }
        TRY(wait_for(at->last));
        at = streams; /* the list may have changed */
    }
    return primary.sticky;
}

/* A program that polls gets on: each answer that the work is not done does a piece of it. */
CUresult query(struct mark *mark) {
    if (!mark || mark->done) return CUDA_SUCCESS;
    struct CUstream_st *stream = next_for(mark);
    if (stream) step(stream);
    return primary.sticky ? primary.sticky : CUDA_ERROR_NOT_READY;
}

CUresult submit_after(struct CUstream_st *stream, struct work work, struct mark **after,
                      int n_after, struct mark **finished) {
    CUresult code = CUDA_SUCCESS;
    if (stream->capture)
        code = finished ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : capture_work(stream, work);
    else if (stream == &legacy)
        code = refuse_if_blocking_capture();
    if (code || stream->capture) {
        free(work.snapshot);
        return code;
    }
    struct op *op = calloc(1, sizeof *op);
    op->work = work;
    op->finished = new_mark(stream);
    for (int i = 0; i < n_after; i++) add_after(op, after[i]);
    add_implicit(op, stream);
    if (work.what == LAUNCH) prepare_launch(op, stream);
    *(stream->tail ? &stream->tail->next : &stream->head) = op;
    stream->tail = op;
    replace(&stream->last, op->finished);
    if (finished) *finished = keep(op->finished);
    run_eagerly();
    while (order() == SEEDED && !stalled && !primary.sticky && draw(3) == 0) {
        struct CUstream_st *ready = any_ready();
        if (!ready) break;
        step(ready);
    }
    return primary.sticky;
}

CUresult submit(struct CUstream_st *stream, struct work work, struct mark **finished) {
    return submit_after(stream, work, NULL, 0, finished);
}

/* With the context gone, or after a fault that nothing survives. */
void drop_all_work(void) {
    for (struct CUstream_st *at = streams; at; at = at->next) {
        while (at->head && at->head->running) pthread_cond_wait(&changed, &lock);
        for (struct op *op = at->head, *next; op; op = next) {
            next = op->next;
            op->finished->done = true;
            free_op(op);
        }
        at->head = at->tail = NULL;
        replace(&at->last, NULL);
    }
}
