/* An HTTP server for one thread that answers, where gemmac is built with libmicrohttpd: that takes requests in threads
 * of its own, fe_http_next hands them out one after the other. */
#ifndef GM_FRONTEND_HTTP_H
#define GM_FRONTEND_HTTP_H

#include "runtime/base.h"

typedef struct fe_http fe_http;

/* One that has come in whole. */
typedef struct fe_http_request {
    char *method, *path; /* path: without what follows a '?' */
    gm_string body;      /* ends in a NUL that does not count */
} fe_http_request;

/* Is asked first, by several threads at once: true, if it has answered the request (fe_http_answer). Others wait for
 * fe_http_next. */
typedef bool (*fe_http_quick_fn)(void *user, fe_http_request *request);

/* Listen at host and port, 0: any that is free. Connections that ask nothing for a minute are closed. GM_IO: with the
 * system's reason. Lives as long as the process. */
gm_status fe_http_open(const char *host, int port, fe_http_quick_fn quick, void *user, gm_diag *diag, fe_http **out);
/* The port that it listens at. */
int fe_http_port(const fe_http *http);
/* Waits for a request whose client is still there. Bodies of more than FE_HTTP_MOST bytes are refused before. */
enum { FE_HTTP_MOST = 1 << 23 };
fe_http_request *fe_http_next(fe_http *http);
/* Answer in one piece. */
void fe_http_answer(fe_http_request *request, int status, const char *type, const gm_string *body);
/* Or in pieces as they come: begin once, write any times, end. type is borrowed. False: nobody reads them any more. */
void fe_http_begin(fe_http_request *request, int status, const char *type);
bool fe_http_write(fe_http_request *request, const char *data, size_t bytes);
/* The request is gone then. */
void fe_http_end(fe_http_request *request);

#endif
