/* The HTTP server over libmicrohttpd: see http.h. Each connection has a thread of the library's, which waits for what
 * the answering thread writes. */
#include "frontend/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum {
    CONNECTIONS = 256,
    IDLE_SECONDS = 60,
    BLOCK = 4096,
    LOOK_MS = 200 /* how often a waiting thread looks whether its client is still there */
};

/* A request and its answer, of which the connection's thread and the answering one have a share each. */
typedef struct exchange {
    fe_http_request request; /* first: what is handed out */
    fe_http *http;
    struct exchange *next; /* in the queue */
    int owners;
    bool too_large, queued, begun, ended, gone; /* gone: nobody reads the answer */
    int status;
    const char *type;
    gm_string answer;
    size_t sent; /* of the answer */
} exchange;

struct fe_http {
    struct MHD_Daemon *daemon;
    fe_http_quick_fn quick;
    void *user;
    pthread_mutex_t lock;   /* of the queue and all exchanges */
    pthread_cond_t changed; /* any of them */
    exchange *first, *last; /* that wait to be handed out */
};

static exchange *exchange_of(fe_http_request *request) {
    return (exchange *)request;
}

/* The lock is held. */
static void let_go(exchange *e) {
    if (--e->owners > 0) return;
    free(e->request.method);
    free(e->request.path);
    gm_string_free(&e->request.body);
    gm_string_free(&e->answer);
    free(e);
}

/* ---- a connection's thread ---- */

static char *copy(const char *text) {
    char *made = strdup(text);
    GM_ASSERT(made);
    return made;
}

static exchange *exchange_new(fe_http *http, const char *method, const char *path) {
    exchange *e = calloc(1, sizeof *e);
    GM_ASSERT(e);
    *e = (exchange){.request = {.method = copy(method), .path = copy(path)}, .http = http, .owners = 1};
    gm_string_append(&e->request.body, "", 0);
    return e;
}

static void take_body(exchange *e, const char *data, size_t bytes) {
    e->too_large |= bytes > FE_HTTP_MOST - e->request.body.length;
    if (!e->too_large) gm_string_append(&e->request.body, data, bytes);
}

/* A client that closes its half of the connection counts as gone: nothing tells it apart from one that has closed it
 * all. */
static bool has_hung_up(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    char byte;
    return info && recv(info->connect_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* The lock is held. */
static void enqueue(exchange *e) {
    fe_http *http = e->http;
    *(http->last ? &http->last->next : &http->first) = e;
    http->last = e;
    e->queued = true;
    pthread_cond_broadcast(&http->changed);
}

/* The lock is held. */
static void dequeue(exchange *e) {
    fe_http *http = e->http;
    exchange **at = &http->first, *before = NULL;
    for (; *at != e; at = &(*at)->next) before = *at;
    *at = e->next;
    if (http->last == e) http->last = before;
    e->queued = false;
}

/* When to look next whether a client is still there. */
static struct timespec look_at(void) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += LOOK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    return until;
}

/* Waits for the answer to begin; the lock is held. False: the client went away before. */
static bool wait_for_answer(exchange *e, struct MHD_Connection *connection) {
    fe_http *http = e->http;
    struct timespec until = look_at();
    while (!e->begun && !e->gone) {
        /* of any exchange: until stays */
        if (pthread_cond_timedwait(&http->changed, &http->lock, &until) != ETIMEDOUT) continue;
        e->gone = has_hung_up(connection);
        until = look_at();
    }
    return !e->gone;
}

/* More of an answer that comes in pieces. */
static ssize_t read_answer(void *cls, uint64_t position, char *to, size_t most) {
    exchange *e = cls;
    pthread_mutex_lock(&e->http->lock);
    while (e->sent == e->answer.length && !e->ended) pthread_cond_wait(&e->http->changed, &e->http->lock);
    size_t bytes = e->answer.length - e->sent < most ? e->answer.length - e->sent : most;
    if (bytes) memcpy(to, e->answer.data + e->sent, bytes);
    e->sent += bytes;
    pthread_mutex_unlock(&e->http->lock);
    return bytes ? (ssize_t)bytes : MHD_CONTENT_READER_END_OF_STREAM;
}

static enum MHD_Result queue(struct MHD_Connection *connection, int status, const char *type,
                             struct MHD_Response *response) {
    GM_ASSERT(response);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    enum MHD_Result result = MHD_queue_response(connection, (unsigned)status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result respond(struct MHD_Connection *connection, exchange *e) {
    static char large[] = "{\"error\":{\"message\":\"the request is too large\",\"type\":\"invalid_request_error\"}}\n";
    if (e->too_large)
        return queue(connection, MHD_HTTP_CONTENT_TOO_LARGE, "application/json",
                     MHD_create_response_from_buffer(sizeof large - 1, large, MHD_RESPMEM_PERSISTENT));
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u); /* an answer may take long */
    e->owners++;
    bool quick = e->http->quick(e->http->user, &e->request);
    pthread_mutex_lock(&e->http->lock);
    if (!quick) enqueue(e);
    bool answered = wait_for_answer(e, connection), whole = e->ended;
    pthread_mutex_unlock(&e->http->lock);
    if (!answered) return MHD_NO;
    struct MHD_Response *response =
        whole ? MHD_create_response_from_buffer(e->answer.length, e->answer.data, MHD_RESPMEM_MUST_COPY)
              : MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, read_answer, e, NULL);
    return queue(connection, e->status, e->type, response);
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *connection, const char *path, const char *method,
                                 const char *version, const char *data, size_t *bytes, void **state) {
    exchange *e = *state;
    if (!e) {
        *state = exchange_new(cls, method, path);
        return MHD_YES;
    }
    if (!*bytes) return respond(connection, e);
    take_body(e, data, *bytes);
    *bytes = 0;
    return MHD_YES;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code) {
    fe_http *http = cls;
    exchange *e = *state;
    if (!e) return;
    pthread_mutex_lock(&http->lock);
    e->gone = true;
    if (e->queued) { /* it would have been the answering thread's */
        dequeue(e);
        e->owners--;
    }
    let_go(e);
    pthread_mutex_unlock(&http->lock);
    *state = NULL;
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)IDLE_SECONDS);
}

/* ---- the answering thread ---- */

fe_http_request *fe_http_next(fe_http *http) {
    pthread_mutex_lock(&http->lock);
    while (!http->first) pthread_cond_wait(&http->changed, &http->lock);
    exchange *e = http->first;
    dequeue(e);
    pthread_mutex_unlock(&http->lock);
    return &e->request;
}

/* The lock is held. */
static void begin(exchange *e, int status, const char *type) {
    GM_ASSERT(!e->begun);
    e->begun = true;
    e->status = status;
    e->type = type;
    pthread_cond_broadcast(&e->http->changed);
}

void fe_http_begin(fe_http_request *request, int status, const char *type) {
    exchange *e = exchange_of(request);
    pthread_mutex_lock(&e->http->lock);
    begin(e, status, type);
    pthread_mutex_unlock(&e->http->lock);
}

bool fe_http_write(fe_http_request *request, const char *data, size_t bytes) {
    exchange *e = exchange_of(request);
    pthread_mutex_lock(&e->http->lock);
    bool there = !e->gone;
    gm_string_append(&e->answer, data, bytes);
    pthread_cond_broadcast(&e->http->changed);
    pthread_mutex_unlock(&e->http->lock);
    return there;
}

void fe_http_end(fe_http_request *request) {
    exchange *e = exchange_of(request);
    fe_http *http = e->http;
    pthread_mutex_lock(&http->lock);
    e->ended = true;
    pthread_cond_broadcast(&http->changed);
    let_go(e);
    pthread_mutex_unlock(&http->lock);
}

void fe_http_answer(fe_http_request *request, int status, const char *type, const gm_string *body) {
    exchange *e = exchange_of(request);
    fe_http *http = e->http;
    pthread_mutex_lock(&http->lock);
    gm_string_append(&e->answer, body->data, body->length);
    e->ended = true; /* before it begins: then its length is known */
    begin(e, status, type);
    let_go(e);
    pthread_mutex_unlock(&http->lock);
}

/* ---- the server ---- */

static gm_status cannot_listen(const char *host, int port, const char *reason, gm_diag *diag) {
    return gm_fail(diag, GM_IO, "%s:%d: cannot listen: %s", host, port, reason);
}

gm_status fe_http_open(const char *host, int port, fe_http_quick_fn quick, void *user, gm_diag *diag, fe_http **out) {
    char service[16];
    struct addrinfo wanted = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *address;
    snprintf(service, sizeof service, "%d", port);
    int failed = getaddrinfo(host, service, &wanted, &address);
    if (failed) return cannot_listen(host, port, gai_strerror(failed), diag);
    fe_http *http = calloc(1, sizeof *http);
    GM_ASSERT(http);
    http->quick = quick;
    http->user = user;
    pthread_mutex_init(&http->lock, NULL);
    pthread_cond_init(&http->changed, NULL);
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION |
                     (address->ai_family == AF_INET6 ? MHD_USE_IPv6 : 0);
    errno = 0;
    http->daemon =
        MHD_start_daemon(flags, (uint16_t)port, NULL, NULL, on_access, http, MHD_OPTION_SOCK_ADDR, address->ai_addr,
                         MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
                         (unsigned)IDLE_SECONDS, MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_END);
    int reason = errno;
    freeaddrinfo(address);
    *out = http;
    if (http->daemon) return GM_OK;
    free(http);
    return cannot_listen(host, port, reason ? strerror(reason) : "the address cannot be used", diag);
}

int fe_http_port(const fe_http *http) {
    return MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
}
